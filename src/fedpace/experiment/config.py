"""The experiment file: flat, typed sections, read once; unknown keys are errors.

Only this room sees these records; everything else gets plain arguments.
"""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, model_validator

from fedpace.core.arguments import PATH, TEXTS, takes
from fedpace.core.plan import ScheduleChoice
from fedpace.core.profile import DEFAULT_ALLOCATION, AllocationRule
from fedpace.experiment.parsing import OneLine, parse
from fedpace.experiment.section import (
    Count,
    Goal,
    Name,
    NonNegative,
    Positive,
    Rate,
    Section,
    Whole,
)
from fedpace.experiment.toml_files import anchor, read_toml, set_key, without_none
from fedpace.federation.hooks.rounding import UploadDtype


class ModelSection(Section):
    """[model]: what is fine-tuned."""

    name: Name = "minilm"
    """A hub id, a local folder, a GGUF file or a folder with one, or a model from a package:
    "minilm" (all-MiniLM-L6-v2), "smollm2" (SmolLM2-135M-Instruct)."""
    task: Literal["classification", "causal-lm"] = "classification"
    """What the head predicts."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen base; the adapter is always float32."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Load the base quantised (needs bitsandbytes and a GPU)."""
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """Implementation of attention; without it what transformers takes for the model."""
    trust_remote_code: bool = False
    """Run the Python files that a model brings. Read them first; without it they never run."""
    max_length: Count = 64
    """Longest input in tokens; the rest is cut."""
    pooling: Literal["model", "mean"] = "model"
    """What a classifier reads: "model", what the architecture's own sequence classifier does;
    "mean", the mean of the last hidden states, for which sentence encoders are made."""
    layers: Whole = 0
    """Keep the first so many transformer layers; 0 keeps all."""


class DataSection(Section):
    """[data]: what it is fine-tuned on, and how it lies with the clients."""

    name: Name = "stdlib-docs"
    """"stdlib-docs", a file or folder (JSONL, CSV, Parquet, text; gzip too), or a hub id."""
    eval: str | None = None
    """Held-out file or split; "holdout" takes a tenth of the training data, to tune on. Without
    it the test or validation split, or else a tenth of the examples."""
    partition: Literal["dirichlet", "iid", "group"] = "group"
    """How the examples are dealt to the clients."""
    alpha: Positive = 0.5
    """Label skew of the Dirichlet partition; small is skewed."""
    clients: Annotated[int, Field(ge=1, le=10**7)] = 40
    """Number of clients."""
    size_sigma: NonNegative = 0.5
    """Log-normal spread of the clients' sizes (dirichlet, iid)."""
    chat_template: str = "model"
    """How turns of "chat" and "instruct" data become text: "model" (the model's own; prompt and
    response without one as "plain"), "plain", "chatml", "alpaca", or a Jinja file."""
    loss_on: Literal["response", "all"] = "response"
    """Train on the response (the assistant's words) alone, or on every token."""
    max_eval: Whole = 0
    """Evaluate on so many held-out examples, drawn once; 0 takes all."""


class LoraSection(Section):
    """[lora]: the adapter and its sketch."""

    rank: Annotated[int, Field(ge=1, le=2**16)] = 16
    """r, rank of the global adapter."""
    alpha: Positive = 16.0
    """The adapter is multiplied by alpha / rank."""
    use_rslora: bool = False
    """Multiply by alpha / sqrt(rank) in its place (rsLoRA)."""
    target_modules: list[str] | str | None = None
    """Modules to adapt: a list of names or their ends, a regular expression for full names, or
    "all-linear"; without it PEFT's choice for the architecture, or all linear layers
    (docs/models.md)."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Further modules, by name or its end, that are trained and sent whole, as a new head is."""
    init_lora_weights: bool | str = True
    """How A is drawn, B being zero: true is Kaiming-uniform, "gaussian" normal with deviation
    1 / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each A's inputs that a local step leaves out (PEFT's lora_dropout)."""
    start_from: str | None = None
    """Folder of an adapter in PEFT's format, of this rank, scale and modules, to begin with."""
    sketch: Literal["scaled", "residual"] = "residual"
    """"scaled": the client sees B S A (the paper). "residual": the whole adapter, trains k of r."""
    upload_dtype: UploadDtype | None = None
    """Type of the values on the uplink: without it int8, with [privacy] float32. bfloat16 rounds to
    the nearest, int8 and int4 at random."""
    upload_density: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Method flasc: share of the values that a client sends, those that changed most."""


class TrainingSection(Section):
    """[training]: local steps, server steps, when to stop."""

    local_steps: Count = 5
    """H."""
    batch_size: Count = 4
    """Examples in a local step."""
    learning_rate: Rate = 0.1
    """Rate of the local steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of the local steps; its state lasts one round."""
    weight_decay: NonNegative = 0.0
    """Decay in the local steps."""
    gradient_checkpointing: bool = False
    """Keep of each layer its input alone and compute the rest again in the backward pass: less
    memory, about a third more time, the same result to rounding."""
    server_optimizer: Literal["sgd", "adam"] = "adam"
    """How the server moves along the aggregated update."""
    server_learning_rate: Rate = 0.01
    """lambda for "sgd"; the step per entry for "adam"."""
    server_memory: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each client's last update that is used as a control variate (FedVARP); 0 for none.
    Takes the memory of an adapter per client, also in the checkpoints."""
    server_decay: Literal["none", "noise"] = "none"
    """"noise": server_learning_rate falls as the measured noise of the server's steps grows, so
    that a long run ends where a constant step would not let it settle; "none": it stays."""
    schedule: ScheduleChoice = "auto"
    """"synchronous": a round waits for all who take part; "overlapping": the server moves at beats
    and takes what has arrived; "auto": overlapping where the planner "exact" predicts it to be
    clearly faster (all others wait). Asynchronous methods (fedasync, fedbuff, ...) have their
    own."""
    beat_seconds: Positive | None = None
    """Overlapping: seconds between two steps of the server; the planner "exact" plans it without,
    and plans for it with, others need it."""
    beat_rate_factor: Positive | None = None
    """Overlapping: what server_learning_rate is multiplied by; without it what the delay and the
    noise of a beat ask for, so that one rate serves both schedules."""
    buffer_size: Count = 10
    """Asynchronous methods step after so many arrivals (fedasync: after each)."""
    rounds: Count = 50
    """At most so many rounds, beats or steps of an asynchronous server; where "auto" takes beats,
    as many as make the progress of so many rounds."""
    target: Goal | None = None
    """Stop at "accuracy>=0.85" or "loss<=1.2" (held-out); refused if it holds before training."""
    eval_every: Count = 5
    """Rounds between evaluations, counted as in `rounds`."""
    eval_seconds: Positive | None = None
    """In place of eval_every: evaluate after the first round that ends beyond each multiple of so
    many seconds of the run's clock."""
    on_divergence: Literal["stop", "step-back"] = "stop"
    """What a method does where a loss, an update or a logit is not finite: "stop" ends it;
    "step-back" goes on from the adapter of the last good evaluation with half the server step."""


class EvaluationSection(Section):
    """[evaluation]: what a language model is asked before and after its training."""

    samples: Annotated[int, Field(ge=0)] = 3
    """Held-out prompts whose answers, before and after, stand in the report; 0 for none."""
    metrics: list[str] = Field(default_factory=list)
    """Measures of generated answers: "exact-match" (the final number, or the text), "rouge-l"; and
    "multiple-choice": is the likeliest of the answers that a question allows the right one?"""
    answers: Count = 32
    """Held-out prompts that are answered for these metrics."""
    max_new_tokens: Count = 48
    """Longest answer, tokens."""


class NetworkSection(Section):
    """[network]: the cell, its links, and the virtual clock."""

    bandwidth_hz: Positive | None = None
    """W, uplink band shared by the participants of a round; the scenario's where not given."""
    scenario: str = "cell-balanced"
    """A named population of devices and links."""
    upload_compute_ratio: Positive | None = None
    """In place of the scenario's: mean upload over mean computation time; above 1 is link-bound."""
    ratio_cohort: Annotated[float, Field(ge=1)] | None = None
    """In place of the scenario's 5: how many clients share the band where that ratio holds."""
    step_spread: NonNegative | None = None
    """In place of the scenario's: standard deviation of ln(time of a local step)."""
    shadowing_db: NonNegative | None = None
    """In place of the scenario's: standard deviation of the links' shadowing, dB."""
    size_slowness_correlation: Annotated[float, Field(ge=-1, le=1)] | None = None
    """In place of the scenario's: above 0, clients with much data compute and send slowly."""
    small_memory_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """In place of the scenario's: share of clients whose memory holds a quarter of the ranks."""
    clients: str | None = None
    """A clients.csv in place of the scenario."""
    fading: bool = False
    """Rayleigh block fading, drawn anew each round."""
    gain_trace: str | None = None
    """A recorded rate that every link follows: CSV with time,rate or Mahimahi (docs/clock.md)."""
    gain_db: Positive | None = None
    """Links change within a round: standard deviation of each power gain, dB (Gauss-Markov)."""
    gain_seconds: Positive = 1.0
    """Correlation time of these gains."""
    best_first: bool = False
    """Where links change: serve those whose link stands best, not those who were ready first."""
    allocation: AllocationRule = DEFAULT_ALLOCATION
    """How the band is divided among the participants: "work-conserving" (it never idles),
    "equal-finish" or "equal-share"; see docs/clock.md."""
    downlink_bps: Positive | None = None
    """Downlink rate of every client; without it downloads cost no time."""
    overhead_seconds: NonNegative = 0.2
    """What every round costs besides, also an empty one: the server's work and scheduling."""


class PlannerSection(Section):
    """[planner]: how sampling probabilities and sketch ranks are chosen."""

    name: str = "exact"
    """The planner of the method "adaptive" (and of `fedpace plan`)."""
    replan_every: Whole = 0
    """Renew the plan every so many rounds, or beats, from what was measured; 0 never."""
    q_min: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Least sampling probability."""
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Plan for this quantile of the round time in place of its mean."""
    p95_limit_seconds: Positive | None = None
    """Longest 95 % quantile of the round time, of the updates' age where rounds overlap, s."""
    cohort: Annotated[float, Field(gt=0, le=1)] | None = None
    """Mean sampling probability at which the methods that leave it open (uniform, weighted,
    statistics, oort, infocom22, fslora) are held; without it each takes its best."""
    max_participants: Positive | None = None
    """Most clients that a round may ask, in the mean, for every method; without it no limit."""
    max_bias: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Overlapping: how far the mean of a beat may lie from that of the data, squared, over its own
    square, where that saves time: slow clients count less, and the adapter leans to the others. 0:
    never."""
    noise_ratio: NonNegative = 0.5
    """V / ||u||^2 at full participation and rank; a guess before a run.
    A run measures it, where rounds overlap only with `replan_every` or `server_decay`."""


class ChecksSection(Section):
    """[checks]: what `fedpace serve` checks of an update before it uses it.

    In `fedpace run` the clients are in its own process and nothing is checked: the same file may
    be used for both, and the result of `fedpace run` does not depend on this section.
    """

    norm_factor: Annotated[float, Field(ge=1)] = 6.0
    """`fedpace serve` alone: an update whose norm is above so many times the scale of the fleet, or
    of its client, is refused; inf lets every norm through. 1 would refuse half of all honest
    updates."""
    norm_cap: Annotated[float, Field(gt=0)] | None = None
    """`fedpace serve` alone: an update whose norm is above this is refused whatever the scale,
    also in the first round."""
    window: Count = 100
    """`fedpace serve` alone: the scale is taken of so many norms, the last ones."""
    strikes: Count = 3
    """`fedpace serve` alone: a client is excluded at so many strikes: one for each refusal, less a
    fifth for each accepted update."""
    examples_factor: Annotated[float, Field(ge=1)] = 10.0
    """`fedpace serve` alone: a client is believed to have at most so many times the median number
    of examples; inf believes everyone."""
    most_weight: Annotated[float, Field(ge=0.5, le=1)] = 0.5
    """`fedpace serve` alone: the largest share of all examples that a client is believed to have;
    1 believes everyone."""


class PrivacySection(Section):
    """[privacy]: differential privacy of clients, docs/privacy.md; without the section none."""

    clip_norm: Positive | None = None
    """C: each client cuts its update, as it is aggregated, to this norm."""
    noise_multiplier: NonNegative | None = None
    """Standard deviation of the server's Gaussian noise over the most that one client can add to
    the sum, max a_n / q_n times clip_norm; 0 cuts and adds none."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Chance that epsilon does not hold; far below 1 over the number of clients."""
    max_epsilon: Positive | None = None
    """No client's epsilon may pass this: plans keep to it, and a run that would pass it is refused
    or ends before."""

    @model_validator(mode="after")
    def _whole_or_nothing(self) -> "PrivacySection":
        given = [name for name, value in self.model_dump().items() if value is not None]
        missing = [n for n in ("clip_norm", "noise_multiplier", "delta") if n not in given]
        if given and missing:
            raise ValueError(f"[privacy] {given[0]} needs {' and '.join(missing)} too; set all")
        return self


class OutputSection(Section):
    """[output]: what is written besides the run folder's fixed files."""

    tensorboard: bool = False
    """Also write TensorBoard event files."""
    mlflow: bool = False
    """Also log to MLflow (MLFLOW_TRACKING_URI says where), a run of it for each method."""
    checkpoint_every: Count = 1
    """Rounds, or beats, between checkpoints."""


class PayloadSection(Section):
    """[payload]: message sizes of a scenario without a model (`fedpace plan`)."""

    fixed_bits: NonNegative = 148e3
    """Bits a client sends whatever its rank, as float32; the default: 12-class head on MiniLM."""
    bits_per_rank: Positive = 295e3
    """Bits for each rank component, as float32; the default is query and value of MiniLM."""


class Experiment(OneLine, Section):
    """Everything that decides the result of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Every random draw derives from it."""
    methods: list[str] = Field(default_factory=lambda: ["adaptive", "uniform"], min_length=1)
    """The methods to compare on the same work; docs/methods.md lists them."""
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    network: NetworkSection = NetworkSection()
    planner: PlannerSection = PlannerSection()
    checks: ChecksSection = ChecksSection()
    privacy: PrivacySection = PrivacySection()
    output: OutputSection = OutputSection()

    @property
    def upload_dtype(self) -> UploadDtype:
        """How values are sent: as [lora] says, or as int8, or with [privacy] as float32.

        int8 took 1.02 (0.97 to 1.09) of float32's rounds (benchmarks/suites/uploads.toml, TREC).
        """
        return self.lora.upload_dtype or ("int8" if self.privacy.clip_norm is None else "float32")

    @model_validator(mode="after")
    def _says_what_is_sent(self) -> "Experiment":
        if self.lora.upload_dtype is None:  # or a folder would change with the default
            lora = self.lora.model_copy(update={"upload_dtype": self.upload_dtype})
            object.__setattr__(self, "lora", lora)  # of a frozen record, while it is made
        return self

    def flat(self) -> dict[str, object]:
        """Return every value by its name, "section.key"."""
        table: dict[str, object] = {}
        for name, value in self.model_dump().items():
            section = value if isinstance(value, dict) else {"": value}
            table |= {f"{name}.{key}".rstrip("."): each for key, each in section.items()}
        return table

    def to_toml(self) -> str:
        """Return the experiment as TOML, every key that has a value."""
        return tomli_w.dumps(without_none(self.model_dump()))


class Scenario(Experiment):
    """What `fedpace plan` reads: an experiment, of which only the planning part is used."""

    payload: PayloadSection = PayloadSection()
    """Message sizes; where it is absent and [model] is there, they are derived from the model."""


@takes(path=PATH, overrides=TEXTS)
def load_experiment(
    path: str | PathLike[str] | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Read an experiment file; without one the embedded default.

    Args:
        path: a TOML file; relative paths in it count from its folder.
        overrides: "section.key=value" texts, applied on top; the value in TOML notation, or a
            plain word for text.

    Raises:
        InputError: what is wrong, where, and what would be right.
    """
    if path is None:
        where, table = "embedded default", tomllib.loads(default_experiment())
    else:
        file = Path(path)
        where, table = str(file), read_toml(file)
        anchor(table, file.parent)
    for override in overrides:
        set_key(table, override)
    return parse(Experiment, table, where)


def default_experiment() -> str:
    """Return the embedded default experiment, TOML text."""
    return files("fedpace").joinpath("default.toml").read_text("utf-8")
