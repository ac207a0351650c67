"""Every key of the experiment file, listed for people."""

import json

from pydantic import BaseModel

from fedpace.experiment.config import Scenario


def keys_table() -> str:
    """Return every key of the experiment file as a Markdown table, for docs/file-formats.md."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in Scenario.model_fields.items():
        section = field.annotation
        rows = [(name, field)]
        if isinstance(section, type) and issubclass(section, BaseModel):
            rows = [(f"[{name}] {key}", f) for key, f in section.model_fields.items()]
        for key, f in rows:
            default = f.get_default(call_default_factory=True)
            shown = "" if default is None else f"`{json.dumps(default)}`"
            meaning = " ".join((f.description or "").split()).replace("|", r"\|")
            lines.append(f"| `{key}` | {shown} | {meaning} |")
    return "\n".join(lines)
