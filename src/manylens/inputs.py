"""What the stages read from outside a run folder, as hashes and texts that enter their fingerprints."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from manylens.config import TUNED_TEACHER, Config
from manylens.data import input_files, recorded_judgements
from manylens.run_folder import file_hash
from manylens.teacher import build_backend, load_perspective


def data(config: Config) -> list[str]:
    """Return the hashes of the data's files."""
    return [file_hash(path) for path in input_files(config.data)]


def judge(config: Config) -> list[str]:
    """Return the teacher's identity and the templates of the panel and of the layout."""
    packaged = resources.files("manylens.teacher") / "prompts"
    shared = sorted(file.read_text(encoding="utf-8") for file in packaged.iterdir() if file.name.endswith(".jinja"))
    own = [load_perspective(name).template for name in config.judge.perspectives]
    return [build_backend(config.teacher, recorded_judgements(config.data)).name, *own, *shared]


def curate(config: Config) -> list[str]:
    """Return the template of the unified teacher's prompt."""
    return [load_perspective(config.curate.prompt).template]


def tune(config: Config) -> list[str]:
    """Return the files of the model that is tuned."""
    assert config.tuned_model is not None  # The stage is only active then.
    return _model_files(config.tuned_model)


def annotate(config: Config) -> list[str]:
    """Return the template that shows the gold label, where it is used."""
    template = resources.files("manylens.teacher") / "prompts" / "tools" / "rationalize.jinja"
    return [template.read_text(encoding="utf-8")] if config.annotate.rationalize else []


def embed(config: Config) -> list[str]:
    """Return the files of the sentence encoder; the tuned teacher's weights follow from the stage tune."""
    return [] if config.embed.encoder == TUNED_TEACHER else _model_files(config.embed.encoder)


def distil(config: Config) -> list[str]:
    """Return the files of the backbone."""
    return _model_files(config.student.backbone)


def _model_files(name: str) -> list[str]:
    """Return the hash of every file of a local model; a model that goes by its id has none."""
    folder = Path(name)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return [f"{file.relative_to(folder)} {file_hash(file)}" for file in files]


def none(config: Config) -> list[str]:
    """Return nothing: the stage reads what other stages wrote."""
    return []
