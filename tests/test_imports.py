"""What importing costs, which names are public, and what the wheel holds."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

import manylens

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "datasets", "sklearn", "sentence_transformers", "scipy", "trl", "peft", "ir_measures")
COMMANDS = ("run", "status", "check", "compare", "score", "export", "precompute", "show-prompt")
PUBLIC = {
    "ESCI",
    "WANDS",
    "Config",
    "Judgement",
    "LabelScale",
    "LatentReasoningForSequenceClassification",
    "ManylensError",
    "Pair",
    "Perspective",
    "Scorer",
    "Student",
    "__version__",
    "load_config",
    "run",
}
PACKAGE_DATA = (
    "py.typed",
    "recipes/demo.yaml",
    "teacher/prompts/user_intent.jinja",
    "teacher/prompts/structured_analysis.jinja",
    "teacher/prompts/business_rules.jinja",
    "teacher/prompts/neutral.jinja",
    "teacher/prompts/perspective.jinja",
    "teacher/prompts/macros.jinja",
    "data/demo_store/README.md",
    "data/demo_store/products.jsonl",
    "data/demo_store/queries.jsonl",
    "data/demo_store/labels.jsonl",
    "data/demo_store/judgements.jsonl",
)


def heavy_after(statements: str) -> list[str]:
    """Return the heavy libraries that a fresh interpreter has imported after some statements."""
    script = f"{statements}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return list(eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    ["manylens", "manylens.cli", "manylens.recipe", "manylens.pipeline", "manylens.results", "manylens.serving"],
)
def test_importing_is_light(module: str) -> None:
    assert heavy_after(f"import {module}") == []


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=str
)
def test_help_is_light(arguments: list[str]) -> None:
    invoke = (
        f"from typer.testing import CliRunner; from manylens.cli import app; r = CliRunner().invoke(app, {arguments})"
    )
    assert heavy_after(f"{invoke}\nassert r.exit_code in (0, 2) and r.output, r.output") == []


def test_light_names_stay_light_and_heavy_ones_come_when_used() -> None:
    assert heavy_after("import manylens as m; m.load_config('demo'), m.Config, m.Scorer, m.run") == []
    assert "torch" in heavy_after("import manylens; manylens.Student")


def test_the_public_names_are_these_and_each_resolves() -> None:
    assert set(manylens.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(manylens, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'studnet'"):
        _ = manylens.studnet


@pytest.mark.parametrize("module", ["data", "teacher", "student", "evaluation", "serving"])
def test_the_names_of_every_folder_resolve(module: str) -> None:
    folder = importlib.import_module(f"manylens.{module}")
    assert folder.__all__ and all(getattr(folder, name) is not None for name in folder.__all__)


@pytest.mark.parametrize("name", PACKAGE_DATA)
def test_package_data_is_found(name: str) -> None:
    assert (resources.files("manylens") / name).is_file()


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
    monkeypatch.chdir(REPOSITORY)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        held = set(wheel.namelist())
    source = REPOSITORY / "src" / "manylens"
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {f"manylens/{file.as_posix()}" for file in files} <= held
    assert {f"manylens/{name}" for name in PACKAGE_DATA} <= held
    metadata = f"manylens-{manylens.__version__}.dist-info"
    assert {f"{metadata}/licenses/LICENSE", f"{metadata}/entry_points.txt"} <= held
    assert not [name for name in held if not name.startswith(("manylens/", metadata))]
