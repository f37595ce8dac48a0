from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import manylens
from manylens.cli import app
from manylens.pipeline import load_or_read_pairs
from manylens.records import ESCI
from manylens.run_folder import RunFolder
from manylens.teacher import load_perspective, render_prompt
from tiny import TinyShop

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Invoke a command in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def recipe(shop: TinyShop) -> Path:
    file = shop.folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(shop.recipe()))
    return file


def assert_one_line(result: Result, *parts: str) -> None:
    """Check that a command failed with one line on standard error, and nothing else anywhere."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.strip() and "━" not in line]
    assert len(lines) == 1 and lines[0].startswith("error "), result.stderr
    for part in parts:
        assert part in lines[0]


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").stdout == f"{manylens.__version__}\n"
    told = cli("--help").stdout
    for command in ("run", "status", "check", "compare", "score", "show-prompt"):
        assert command in told


def test_check(cli: Cli, recipe: Path) -> None:
    result = cli("check", recipe)
    assert (result.exit_code, result.stdout) == (0, "tiny is ready to run\n")
    assert_one_line(
        cli("check", recipe, "--set", "student.extractor=gta"), "unknown extractor 'gta'", "did you mean 'gat'"
    )


def test_run_ends_with_the_tables_the_model_and_what_to_do_next(cli: Cli, recipe: Path, finished: RunFolder) -> None:
    result = cli("run", recipe, "--run", finished.path)
    assert result.exit_code == 0
    assert "LRKD (mlp)" in result.stdout and "BERT" in result.stdout and "95% interval" in result.stdout
    assert result.stdout.endswith(
        f"model:  {finished.model}\n"
        f"score:  manylens score {finished.path} PAIRS.csv --out SCORES.csv\n"
        f"run:    {finished.path}\n"
    )
    assert result.stderr.count("current, skipped") == 6


def test_run_until_a_stage_shows_no_tables(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    result = cli("run", recipe, "--until", "data", "--set", "name=other", "--set", "data.dev_fraction=0.3")
    assert (result.exit_code, result.stdout) == (0, "run:    runs/other\n")
    assert RunFolder.open(tmp_path / "runs" / "other").config.data.dev_fraction == 0.3


def test_status(cli: Cli, finished: RunFolder) -> None:
    result = cli("status", finished.path)
    assert result.exit_code == 0
    assert result.stdout.count("done") == 6 and "evaluate/" in result.stdout and "…" not in result.stdout


def test_compare(cli: Cli, finished: RunFolder) -> None:
    result = cli("compare", finished.path, finished.path)
    assert result.exit_code == 0
    assert "4 queries, 16 pairs" in result.stdout and "95% interval" in result.stdout


@pytest.mark.parametrize("perspective", ["user_intent", "structured_analysis", "business_rules", "neutral"])
def test_show_prompt_prints_exactly_what_the_teacher_gets(
    cli: Cli, recipe: Path, finished: RunFolder, perspective: str
) -> None:
    pair = load_or_read_pairs(finished.config, finished.path).get("q3:p3-s")
    messages = render_prompt(load_perspective(perspective), pair, ESCI)
    result = cli("show-prompt", recipe, "--run", finished.path, "--pair", "q3:p3-s", "--perspective", perspective)
    assert result.exit_code == 0
    assert result.stdout == "".join(f"{message['content']}\n" for message in messages)
    assert [line for line in result.stderr.splitlines() if line.startswith("──")] == ["── system", "── user"]


def test_show_prompt_needs_no_run_and_leaves_none(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text('{% extends "perspective.jinja" %}{% block instruction %}Mind the [bold]colour[/].{% endblock %}')
    result = cli("show-prompt", recipe, "--pair", "q3:p3-s", "--perspective", own, "--set", "teacher.path=absent.jsonl")
    assert result.exit_code == 0 and "Mind the [bold]colour[/]." in result.stdout
    assert list(tmp_path.iterdir()) == [own]


def test_show_prompt_names_the_nearest_pair_and_perspective(cli: Cli, recipe: Path) -> None:
    show = ("show-prompt", recipe, "--pair")
    assert_one_line(cli(*show, "q3:p3-x", "--perspective", "neutral"), "no pair 'q3:p3-x'", "did you mean 'q3:p3-")
    assert_one_line(cli(*show, "q3:p3-s", "--perspective", "natural"), "unknown perspective 'natural'", "'neutral'")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "dmeo"], ["no recipe at dmeo", "did you mean 'demo'", "own_data"]),
        (["run", "demo", "--until", "distill"], ["unknown stage 'distill'", "did you mean 'distil'"]),
        (
            ["run", "demo", "--set", "student.extracter=gat"],
            ["unknown key student.extracter", "did you mean 'extractor'"],
        ),
        (["run", "demo", "--set", "student.seeds=[1"], ["override student.seeds: the value is not valid YAML"]),
        (["check", "demo", "--set", "student.training.lerning_rate=1"], ["unknown key student.training.lerning_rate"]),
        (["status", "runs/absent"], ["runs/absent is not a run folder"]),
        (["compare", "runs/a[b]", "runs/b"], ["runs/a[b] is not a run folder"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line_on_standard_error(cli: Cli, arguments: list[str], parts: list[str]) -> None:
    assert_one_line(cli(*arguments), *parts)


def test_a_locked_run_is_refused(cli: Cli, recipe: Path, finished: RunFolder) -> None:
    with finished.locked():
        assert_one_line(cli("run", recipe, "--run", finished.path), "another process is running in")


def test_as_a_process(shop: TinyShop, recipe: Path, tmp_path: Path) -> None:
    def manylens_(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("manylens")), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}
        )

    wrong = manylens_("run", str(recipe), "--set", "data.path=absent.csv")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert len(wrong.stderr.splitlines()) == 1 and "Traceback" not in wrong.stderr and "absent.csv" in wrong.stderr
    done = manylens_("run", str(recipe))
    assert done.returncode == 0, done.stderr
    assert "{'" not in done.stdout  # Trainer's own log lines.
    assert "LRKD (mlp)" in done.stdout and done.stdout.endswith("run:    runs/tiny\n")
    assert "Loading weights" not in done.stderr  # Other libraries' bars are off.
    assert (tmp_path / "runs" / "tiny" / "distil" / "lrkd-seed13" / "model.safetensors").is_file()


@pytest.mark.parametrize("command", [["run", "demo"], ["check", "demo"]], ids=str)
def test_a_missing_extra_is_one_line(command: list[str], tmp_path: Path) -> None:
    script = f"import sys; sys.modules['transformers'] = None\nfrom manylens.cli import app; app({command})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error transformers is not installed; run: pip install 'manylens[train]'\n"


def test_status_and_show_prompt_need_no_extra(recipe: Path, finished: RunFolder) -> None:
    for command in (
        ["status", str(finished.path)],
        ["show-prompt", str(recipe), "--pair", "q3:p3-s", "--perspective", "neutral"],
    ):
        block = "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'datasets', 'sklearn', 'scipy'])"
        script = f"{block}\nfrom manylens.cli import app; app({command})"
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
