"""Backends: who answers the prompts."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from manylens.config import RecordedTeacher, TeacherConfig
from manylens.errors import ConfigError, MissingExtraError
from manylens.teacher.backends.protocol import Answer, Backend, Request, canonical_json, request_seed
from manylens.teacher.backends.recorded import RecordedBackend

__all__ = [
    "BACKENDS",
    "Answer",
    "Backend",
    "RecordedBackend",
    "Request",
    "build_backend",
    "canonical_json",
    "check_installed",
    "request_seed",
]

#: From a name in the recipe to the class that answers, imported when it is wanted; it takes the teacher's section.
BACKENDS: dict[str, str] = {
    "openai": "manylens.teacher.backends.openai:OpenAIBackend",
    "vllm": "manylens.teacher.backends.vllm:VllmBackend",
    "transformers": "manylens.teacher.backends.transformers:TransformersBackend",
}


#: What a backend imports when it is first asked, and the extra that brings it.
_LIBRARIES: dict[str, tuple[str, str]] = {
    "openai": ("aiohttp", "teacher"),
    "vllm": ("vllm", "vllm"),
    "transformers": ("torch", "teacher"),
}


def check_installed(backend: str) -> None:
    """Check that a backend's library is there; building one does not, so that finished runs can be read without it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    library, extra = _LIBRARIES.get(backend, (None, ""))
    if library is not None and importlib.util.find_spec(library) is None:
        raise MissingExtraError(library, extra)


def build_backend(config: TeacherConfig, default_path: Path | None = None) -> Backend:
    """Build the backend that a recipe names; a model is loaded when it is first asked.

    Args:
        config: The recipe's section.
        default_path: Recorded judgements that come with the data, or ``None``.

    Returns:
        The backend.

    Raises:
        ConfigError: If a setting is missing.
        BadRowError: If recorded judgements are wrong.
        MissingExtraError: If the backend's library is not installed.
        TeacherError: If the teacher cannot be reached as the section says.
    """
    if isinstance(config, RecordedTeacher):
        path = Path(config.path) if config.path is not None else default_path
        if path is None:
            raise ConfigError("teacher.path is required: this data brings no recorded judgements; give a JSONL file")
        return RecordedBackend(path)
    module, _, name = BACKENDS[config.backend].partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), name)(config)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, "teacher") from None
    return backend
