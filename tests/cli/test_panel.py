from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result

import manylens
from manylens.cli import panel
from manylens.run_folder import RunFolder
from manylens.teacher import PERSPECTIVES
from manylens.teacher.votes import VOTE_SCHEMA
from tiny import TinyShop

assert panel  # Its command joins the application when it is imported.
Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def judged(shop: TinyShop, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run up to curate with two samples of each of three perspectives."""
    recipe = {**shop.recipe(), "judge": {"samples": 2}}
    return manylens.run(recipe, folder=tmp_path_factory.mktemp("runs") / "judged", until="curate")


def test_panel_shows_every_table(cli: Cli, judged: RunFolder) -> None:
    result = cli("panel", judged.path)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    for title in (
        "teacher panel: share right",
        "pass@k",
        "right where another perspective is wrong",
        "cost of a kept rationale",
        "teacher's predictions on dev (cross-validated): 4 queries, 16 pairs",
    ):
        assert title in words
    assert "…" not in result.stdout
    # The recorded business_rules takes each substitute, a quarter of the pairs, for exact; the others are right.
    assert "business_rules 1 0.750 0.667 -0.250" in words
    assert "3 business_rules 0.000 0.000 -" in words
    assert "majority 6 1.000 1.000 +0.000" in words and "oracle 6 1.000 1.000 +0.000" in words


def test_the_labels_of_two_perspectives_side_by_side(cli: Cli, judged: RunFolder) -> None:
    result = cli("panel", judged.path, "--confusion", "user_intent", "business_rules")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "labels of user_intent (rows) and business_rules (columns)" in words
    assert "exact 32 0 0 0 substitute 32 0 0 0 complement 0 0 32 0 irrelevant 0 0 0 32" in words
    assert "unknown perspective 'busines'" in cli("panel", judged.path, "--confusion", "user_intent", "busines").stderr


def test_votes_are_written_for_every_judged_pair(cli: Cli, judged: RunFolder, tmp_path: Path) -> None:
    result = cli("panel", judged.path, "--votes", "votes.parquet")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("64 pairs ─► votes.parquet\n")
    table = pq.read_table(tmp_path / "votes.parquet")
    assert table.schema.equals(VOTE_SCHEMA)
    assert table["majority"].to_pylist() == table["label"].to_pylist() == table["weighted"].to_pylist()


def test_the_price_of_the_recipe_makes_the_money(cli: Cli, judged: RunFolder, tmp_path: Path) -> None:
    """The judgements' tokens and the recipe's price meet in the table; a price may be added after judging."""
    run = Path(shutil.copytree(judged.path, tmp_path / "priced"))
    statistics = json.loads((run / "curate" / "panel.json").read_text())
    for name in PERSPECTIVES:
        statistics["by_perspective"][name] |= {"prompt_tokens": 64_000, "completion_tokens": 6_400}
    (run / "curate" / "panel.json").write_text(json.dumps(statistics))
    recipe = (run / "config.yaml").read_text()
    priced = "teacher:\n  backend: openai\n  model: m\n  price: {input: 1.0, output: 10.0}\n"
    (run / "config.yaml").write_text(recipe.replace("teacher:\n  backend: recorded\n  path: null\n", priced))
    words = " ".join(cli("panel", run).stdout.split())
    # 128 answers, all kept: 128,000 millionths of a dollar for 128.
    assert "user_intent 128 128 1.000 550 1.00" in words


def test_a_run_that_is_not_curated_is_one_line(cli: Cli, tmp_path: Path, shop: TinyShop) -> None:
    run = manylens.run(shop.recipe(), folder=tmp_path / "run", until="judge")
    result = cli("panel", run.path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "stage curate is to do" in result.stderr


def test_without_dev_the_other_tables_are_shown(cli: Cli, tmp_path: Path, shop: TinyShop) -> None:
    recipe = {**shop.recipe(), "judge": {"splits": ["train"]}}
    run = manylens.run(recipe, folder=tmp_path / "run", until="curate")
    result = cli("panel", run.path)
    assert result.exit_code == 1
    assert "cost of a kept rationale" in result.stdout
    assert "add dev to judge.splits" in " ".join(result.stderr.split())
