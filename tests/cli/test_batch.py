from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from manylens.cli import app
from manylens.run_folder import RunFolder
from manylens.teacher import JudgementStore
from servers.scripted import completion
from tiny import TinyShop


@pytest.fixture
def recipe(shop: TinyShop, tmp_path: Path) -> Path:
    """The tiny shop's recipe with a teacher behind an API: 64 pairs of train and dev, two perspectives."""
    tree = shop.recipe()
    tree["teacher"] = {"backend": "openai", "model": "gpt", "base_url": "http://127.0.0.1:9/v1"}
    tree["judge"] = {"perspectives": ["user_intent", "business_rules"]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def batch(*arguments: object) -> Any:  # noqa: ANN401 - typer's result
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def results_of(batch_file: Path, results: Path, count: int) -> Path:
    """Answer the first `count` requests of a batch file; the others fail."""
    rows = []
    for number, line in enumerate(map(json.loads, batch_file.read_text().splitlines())):
        body: dict[str, Any] = completion("Fits.\n\nLabel: exact") if number < count else {"error": {"message": "no"}}
        response = {"status_code": 200 if number < count else 400, "body": body}
        rows.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}))
    results.write_text("\n".join(rows) + "\n")
    return results


def test_written_answered_and_read(recipe: Path, tmp_path: Path) -> None:
    run, first, second = tmp_path / "run", tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    wrote = batch("write", recipe, "--out", first, "--run", run)
    assert wrote.exit_code == 0, wrote.output
    assert f"128 requests ─► {first}" in wrote.stdout

    read = batch("read", recipe, results_of(first, tmp_path / "results.jsonl", 100), "--run", run)
    assert read.exit_code == 0, read.output
    store = run / "judge" / "judgements.sqlite"
    assert f"128 rows: 100 answers, 100 of them new ─► {store}" in read.stdout
    assert "28 failed (HTTP 400)" in read.stdout
    with JudgementStore(store) as opened:
        assert len(opened) == 100

    # Only what failed is written again.
    again = batch("write", recipe, "--out", second, "--run", run)
    assert f"28 requests ─► {second}" in again.stdout
    both = [tmp_path / "results.jsonl", results_of(second, tmp_path / "more.jsonl", 28)]
    read = batch("read", recipe, *both, "--run", run)
    assert "156 rows: 128 answers, 28 of them new" in read.stdout
    assert "failed" not in read.stdout
    done = batch("write", recipe, "--out", tmp_path / "third.jsonl", "--run", run)
    assert "every question is answered" in done.stdout
    assert not (tmp_path / "third.jsonl").exists()


def test_results_of_another_teacher_are_counted(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "batch.jsonl"
    batch("write", recipe, "--out", out, "--run", tmp_path / "run")
    results = results_of(out, tmp_path / "results.jsonl", 128)
    read = batch("read", recipe, results, "--run", tmp_path / "run", "--set", "teacher.model=other")
    assert read.exit_code == 0, read.output
    assert "128 rows: 0 answers, 0 of them new" in read.stdout
    assert "128 of other questions (another recipe, teacher or prompt)" in read.stdout


def test_a_broken_result_file_names_its_row(recipe: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text("<html>Sign in</html>\n")
    read = batch("read", recipe, results, "--run", tmp_path / "run")
    assert read.exit_code == 1
    assert "results.jsonl, row 1: expected a row of batch results" in read.stderr


def test_other_backends_have_no_batches(shop: TinyShop, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(shop.recipe()))
    wrote = batch("write", path, "--out", tmp_path / "batch.jsonl", "--run", tmp_path / "run")
    assert wrote.exit_code == 1
    assert "batch files are for teacher.backend openai, the recipe has 'recorded'" in wrote.stderr


def test_a_run_in_progress_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    from manylens.recipe import load_config

    with RunFolder(tmp_path / "run", load_config(recipe)).locked():
        wrote = batch("write", recipe, "--out", tmp_path / "batch.jsonl", "--run", tmp_path / "run")
    assert wrote.exit_code == 1
    assert "another process is running in" in wrote.stderr
