"""What names a model that runs in this process: its weights, wherever they are."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from manylens.errors import TeacherError
from manylens.progress import console

#: What transformers, peft and vLLM read of a model's folder; a README or a checkpoint beside it changes no answer.
_READ = frozenset({".bin", ".jinja", ".json", ".model", ".safetensors", ".tiktoken", ".txt"})
#: ``owner/name`` or ``name`` at the Hugging Face hub.
_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
#: From here on, reading a folder takes so long that one is told, in bytes.
_LARGE = 2 * 2**30


def model_identity(model: str, adapter: str | None = None) -> str:
    """Name a model so that other weights have another name, wherever they are.

    Args:
        model: A Hugging Face id, or a folder.
        adapter: The same of a LoRA adapter, or ``None``.

    Returns:
        The id, or for a folder ``NAME@HASH``: its name and 16 hex digits of the SHA-256 of the files that a
        library reads of it, whose sizes and times of change spare a second reading in the same process. An
        adapter follows after a plus sign.

    Raises:
        TeacherError: If it is neither a folder nor an id, or a folder without a model.
    """
    identity = _identity(model, "config.json")
    return identity if adapter is None else f"{identity}+{_identity(adapter, 'adapter_config.json')}"


def _identity(name: str, config: str) -> str:
    folder = Path(name)
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(name):
            raise TeacherError(f"expected a model's folder or Hugging Face id, got {name!r}, where there is no folder")
        return name
    folder = folder.resolve()
    files = sorted(file for file in folder.iterdir() if file.suffix in _READ and file.is_file())
    if folder / config not in files:
        raise TeacherError(f"{folder}: expected a folder with {config}, got {[file.name for file in files]}")
    states = ((file, file.stat()) for file in files)
    return f"{folder.name}@{_content(tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))}"


@lru_cache
def _content(files: tuple[tuple[Path, int, int], ...]) -> str:
    size = sum(size for _, size, _ in files)
    if size >= _LARGE:
        console.print(f"Reading {size / 2**30:,.1f} GiB of weights to know the teacher by them ...")
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
