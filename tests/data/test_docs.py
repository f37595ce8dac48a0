"""What docs/data.md shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from manylens.data import iter_unlabelled
from manylens.recipe import load_config

from .build import ROWS, write

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_recipe_of_the_page_is_valid(block: str) -> None:
    tree = {"name": "docs", "labels": {"scale": "esci"}, **yaml.safe_load(block)}
    assert load_config(tree).data.loader == tree["data"]["loader"]


def test_the_table_of_the_page_is_readable(tmp_path: Path) -> None:
    (block,) = blocks("csv")
    (tmp_path / "pairs.csv").write_text(block)
    (batch,) = iter_unlabelled(tmp_path / "pairs.csv")
    assert batch["title"].to_pylist() == ["Trail runner in red", "Shoe laces"]


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.csv", ROWS)
    (block,) = blocks("python")
    exec(block, {})
    assert capsys.readouterr().out == "{'train': 1, 'dev': 1, 'test': 1} {}\nblue hat | Blue cap | substitute\n"
