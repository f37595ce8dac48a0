from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from manylens.run_folder import RunFolder
from tiny import TinyShop
from tiny_teacher import make_teacher

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture
def recipe(shop: TinyShop, teacher: Path, tmp_path: Path) -> Path:
    """A recipe with a local teacher, and two further stages that ask."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "data": {"loader": "table", "path": str(shop.pairs)},
        "labels": {"scale": "esci"},
        "teacher": {
            "backend": "transformers",
            "model": str(teacher),
            "price": {"input": 10.0, "output": 100.0},
            "sampling": {"max_tokens": 12},
        },
        "tune": {"measure_pairs": 8},
        "annotate": {"rationalize": True},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def row(output: str, name: str) -> list[str]:
    """Return the cells of a table's row."""
    (line,) = [line for line in output.splitlines() if re.match(rf"\s*{name}\s+[\d,]+\s", line)]
    return re.split(r"\s{2,}", line.strip())[1:]


def test_plan_counts_and_leaves_nothing_behind(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    result = cli("plan", recipe)
    assert result.exit_code == 0, result.output
    assert set(tmp_path.rglob("*")) == before
    assert max(map(len, result.stdout.splitlines())) <= 80
    # 64 pairs of train and dev.
    for name in ("user_intent", "structured_analysis", "business_rules"):
        assert row(result.stdout, name)[:2] == ["0", "64"]
        assert row(result.stdout, name)[3] == "≤ 768"
    judged, to_ask, prompt, answers, cost = row(result.stdout, "all")
    assert (judged, to_ask, answers) == ("0", "192", "≤ 2,304")
    expected = (int(prompt.replace(",", "")) * 10 + 2304 * 100) / 1e6
    assert cost == f"≤ {expected:.2f}"
    told = " ".join(result.stdout.split())
    # 16 dev pairs, of which 8 are measured, at the start and after two phases; 48 train pairs.
    assert "tune measures its teacher by about 24 answers and annotate asks it 48 times" in told
    assert "whose gold label no judgement reached" in told


def test_preview_shows_pairs_and_keeps_the_answers(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    result = cli("preview", recipe, "-n", "2")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.count("─ user_intent ─") == result.stdout.count("─ business_rules ─") == 2
    assert len(re.findall(r"gold: (exact|substitute|complement|irrelevant)", result.stdout)) == 2
    assert "asked 6; known before 0; " in result.stdout
    assert row(result.stdout, "all")[:2] == ["6", "186"]
    assert "answers ─► runs/tiny/judge/judgements.sqlite" in result.stderr
    again = cli("preview", recipe, "-n", "2")
    assert "asked 0; known before 6\n" in again.stdout
    planned = cli("plan", recipe)
    assert row(planned.stdout, "all")[:2] == ["6", "186"]
    assert "as long as the 6 in the store" in " ".join(planned.stdout.split())
    # A folder in which something else runs is left alone.
    with RunFolder(tmp_path / "runs/tiny", config=None).locked():  # type: ignore[arg-type]
        assert "another process is running in" in cli("preview", recipe, "-n", "3").stderr


def test_prompts_can_be_looked_at_without_asking(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    result = cli("preview", recipe, "-n", "1", "--prompts")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("You judge how relevant a product is") == 3
    assert len(re.findall(r"━━ q\d+:p\d+-\w, business_rules, \d+ tokens", result.stderr)) == 1
    assert not (tmp_path / "runs").exists()


def test_a_recorded_teacher_costs_nothing(cli: Cli) -> None:
    result = cli("plan", "demo")
    assert row(result.stdout, "all")[1:] == ["2,640", "0", "0", "0.00"]
    assert "Recorded judgements cost nothing." in result.stdout


def test_errors_are_one_line(cli: Cli) -> None:
    for command in ("plan", "preview"):
        result = cli(command, "nowhere")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "no recipe at nowhere" in result.stderr
