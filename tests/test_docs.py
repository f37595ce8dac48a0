"""What the README and the pages say is so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from manylens.cli import app
from manylens.recipe import load_config, recipe_path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of click, or of what typer has of it
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in commands(command))
        else:
            yield name, command


def test_the_readme_shows_the_two_commands_first() -> None:
    commands = [line.partition("#")[0].strip() for line in blocks(README, "bash")[0].splitlines()]
    assert commands == ["make run", "make test"]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    known = {
        name: {option for each in command.params for option in each.opts}
        for name, command in commands(typer.main.get_command(app))
    }
    for block in blocks(page.read_text(encoding="utf-8"), "bash"):
        for line in block.splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["manylens"]:
                name = next((name for name in (" ".join(words[1:3]), words[1]) if name in known), None)
                assert name is not None, line
                assert {word for word in words if word.startswith("-")} <= known[name], line


def test_the_table_of_recipes_is_complete() -> None:
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    packaged = {file.stem for file in recipe_path("demo").parent.glob("*.yaml")}
    assert packaged == set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert {page.name for page in PAGES} == {name for entry in navigation for name in entry.values()}


def test_the_teacher_of_the_readme_is_a_section_of_a_recipe() -> None:
    (section,) = blocks(README, "yaml")
    config = load_config({**yaml.safe_load(section), "extends": "demo"})
    assert config.teacher.backend == "openai" and config.teacher.model == "Qwen/Qwen3-14B"


def test_the_table_of_the_readme_fits_the_recipe_for_own_data(tmp_path: Path) -> None:
    from manylens.data import iter_unlabelled

    (table,) = blocks(README, "csv")
    path = tmp_path / "pairs.csv"
    path.write_text(table, encoding="utf-8")
    scale = load_config("own_data").labels.build()
    (batch,) = iter_unlabelled(path, scale=scale)
    assert batch["label"].to_pylist() == ["relevant"]


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    """The demo recipe from nothing to a measured student, and a prediction of it."""
    (example,) = blocks(README, "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label, score, *_ = done.stdout.split()
    assert label in load_config("demo").labels.build().names
    assert 0.0 <= float(score) <= 1.0
    assert (tmp_path / "runs/demo/evaluate/lrkd-against-bert.json").is_file()
