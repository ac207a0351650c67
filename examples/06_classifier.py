"""Fine-tune a classifier among clients that share a band, and look at its curves."""

# %% The default experiment, made small: two layers of MiniLM, two methods, eight rounds.
import tempfile
from pathlib import Path

import fedpace as fp

experiment = fp.load_experiment(
    None,
    ["model.layers=2", "training.rounds=8", "data.clients=12", "data.max_eval=100"],
)

# %% Train. `done.folder` holds the adapters, the plan, and every round.
folder = Path(tempfile.mkdtemp()) / "run"
done = fp.run(experiment, out=folder)

# %% The curves are columns; in a notebook: pandas.DataFrame(curves).
curves = done.curves()
print(*curves)
for method in experiment.methods:
    loss = [x for m, x in zip(curves["method"], curves["loss"], strict=True) if m == method]
    print(f"{method}: {len(loss)} evaluations, the loss fell: {loss[-1] < loss[0]}")

# %% The adapter loads in plain PEFT; these lines stand in its README.md.
print((folder / "adapter" / "README.md").read_text().splitlines()[4])
