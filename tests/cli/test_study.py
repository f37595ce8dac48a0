from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from manylens.cli.study import parse_seeds
from manylens.errors import ConfigError
from tiny import TinyShop

OWN = """
name: mine
title: My study
arms:
  - {name: bert, title: BERT, method: bert}
  - {name: bert_slow, title: BERT at half the rate, method: bert, overrides: [student.training.learning_rate=5e-4]}
baseline: bert
"""


def test_a_study_of_ones_own_from_the_command_line(cli: Callable[..., Result], shop: TinyShop, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(OWN, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(shop.recipe()), encoding="utf-8")
    change = "student.training.num_train_epochs=1"
    result = cli("study", "mine.yaml", "recipe.yaml", "--seeds", "1", "--workers", "1", "--set", change)
    assert result.exit_code == 0, result.output
    assert f"`manylens study mine.yaml recipe.yaml --seeds 1 --set {change}`" in result.stdout
    assert "| BERT at half the rate - BERT |" in result.stdout
    assert (tmp_path / "studies" / "tiny" / "mine-contrasts.parquet").exists()
    # Run again, it trains nothing and says the same.
    again = cli("study", "mine.yaml", "recipe.yaml", "--seeds", "1", "--set", change)
    assert again.exit_code == 0 and again.stdout == result.stdout
    assert "students to train 0," in again.stderr


def test_an_unknown_study_is_told(cli: Callable[..., Result]) -> None:
    result = cli("study", "metods", "demo")
    assert result.exit_code == 1
    assert "unknown study 'metods' (did you mean 'methods'?)" in result.stderr


@pytest.mark.parametrize(("text", "seeds"), [("3", [1, 2, 3]), ("3,7,11", [3, 7, 11]), ("7,", [7]), ("0,1", [0, 1])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1,b", ","])
def test_wrong_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="seeds are a number of them"):
        parse_seeds(text)
