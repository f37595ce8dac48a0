from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

import manylens
from manylens.errors import DataError, StageError
from manylens.results import compare_runs, evaluations, parity_of, result_tables, status_table
from manylens.run_folder import RunFolder
from manylens.serving.layout import VARIANTS
from manylens.serving.parity import Parity, parity_table
from tiny import TinyShop


def shown(*tables: Table) -> str:
    stream = io.StringIO()
    for table in tables:
        Console(file=stream, width=160).print(table)
    return stream.getvalue()


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder.open(shutil.copytree(finished.path, tmp_path / "run"))


def test_evaluations_go_by_method_the_wanted_one_first(finished: RunFolder) -> None:
    found = evaluations(finished)
    assert list(found) == ["lrkd", "bert"]
    (lrkd,) = found["lrkd"]
    assert (lrkd.test.pairs, lrkd.test.queries, lrkd.labels[0]) == (16, 4, "exact")
    assert sum(sum(row) for row in lrkd.test.confusion) == 16


def test_the_tables_of_a_finished_run(finished: RunFolder) -> None:
    text = shown(*result_tables(finished))
    assert "teacher panel" in text and "business_rules" in text
    assert "LRKD (mlp)" in text and "BERT" in text and "BERT (mlp)" not in text
    (lrkd,) = evaluations(finished)["lrkd"]
    assert f"{lrkd.test.accuracy:.3f}" in text and f"{lrkd.test.macro_f1:.3f}" in text
    for label in ("exact", "substitute", "complement", "irrelevant"):
        assert label in text
    assert "95% interval" in text


@pytest.mark.parametrize("function", [evaluations, result_tables])
def test_an_unfinished_run_has_no_results(copy: RunFolder, function: object) -> None:
    (copy.path / "evaluate" / "done.json").unlink()
    with pytest.raises(StageError, match="stage evaluate is to do; run its recipe again"):
        function(copy)  # type: ignore[operator]


def test_results_of_an_earlier_recipe_are_not_shown_for_the_last_one(shop: TinyShop, copy: RunFolder) -> None:
    changed = manylens.run(shop.recipe(), ["student.extractor=gat"], folder=copy.path, until="data")
    with pytest.raises(StageError, match="stage evaluate is stale"):
        result_tables(changed)
    with pytest.raises(StageError, match="stage evaluate is stale"):
        compare_runs(copy, changed)


def test_results_do_not_need_the_input_files(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    run = manylens.run(shop.recipe(baselines=[]), folder=tmp_path / "run")
    shutil.rmtree(shop.folder)
    assert list(evaluations(RunFolder.open(run.path))) == ["lrkd"]


def test_a_run_compared_with_itself_shows_no_difference(finished: RunFolder) -> None:
    comparison = compare_runs(finished, finished)
    assert comparison.pairs == 16
    for difference in comparison.metrics.values():
        assert difference.difference == 0.0 and difference.interval == (0.0, 0.0)


def test_runs_are_compared_by_their_wanted_students(shop: TinyShop, finished: RunFolder, copy: RunFolder) -> None:
    overrides = ["student.method=bert", "student.baselines=[lrkd]"]
    bert_first = manylens.run(shop.recipe(), overrides, folder=copy.path)
    comparison = compare_runs(finished, bert_first)
    found = evaluations(finished)
    expected = found["lrkd"][0].test.accuracy - found["bert"][0].test.accuracy
    assert comparison.metrics["accuracy"].difference == pytest.approx(expected)


def test_runs_with_other_test_pairs_cannot_be_compared(models: Path, finished: RunFolder, tmp_path: Path) -> None:
    other = TinyShop.make(tmp_path / "shop", models, queries=10)
    run = manylens.run(other.recipe(baselines=[]), folder=tmp_path / "run")
    with pytest.raises(DataError):
        compare_runs(finished, run)


def test_status_tells_what_is_done_stale_and_to_do(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    run = manylens.run(shop.recipe(), folder=tmp_path / "run", until="curate")

    def states() -> list[str]:
        return [str(cell) for cell in status_table(RunFolder.open(run.path)).columns[1].cells]

    todo = ["[dim]to do[/]"] * 3
    assert states() == ["[green]done[/]"] * 3 + todo
    judgements = shop.folder / "judgements.jsonl"
    judgements.write_text(judgements.read_text().replace("against", "beside"))
    assert states() == ["[green]done[/]", "[yellow]stale[/]", "[yellow]stale[/]", *todo]
    text = shown(status_table(run))
    assert "evaluate" in text and "curate/" in text and "embed/" not in text


def test_a_folder_with_brackets_is_shown_as_it_is(copy: RunFolder) -> None:
    moved = RunFolder.open(copy.path.rename(copy.path.with_name("run[bold]")))
    assert "run[bold]" in shown(status_table(moved)).replace("\n", "")


def test_the_parity_of_an_export_is_shown_with_the_results(finished: RunFolder, exported_run: RunFolder) -> None:
    text = shown(*result_tables(exported_run))
    assert "lrkd-seed13 on 16 dev pairs" in text and "onnx_fp32" in text
    assert text.endswith(shown(parity_of(exported_run)))
    parity = json.loads((exported_run.path / "export" / "parity.json").read_text())
    (row,) = [line.split() for line in shown(parity_of(exported_run)).splitlines() if line.strip()[:5] == "onnx_"]
    figures = parity["variants"]["onnx_fp32"]
    assert row[4:7] == ["1.000", f"{figures['macro_f1']:.3f}", f"{figures['ndcg']:.3f}"]
    assert [float(cell) for cell in row[1:4]] == pytest.approx(
        [figures["logit_max"], figures["logit_mean"], figures["gain_max"]], rel=0.1
    )
    assert "dev pairs" not in shown(*result_tables(finished))


def test_a_run_that_was_not_exported_has_no_parity(copy: RunFolder, exported_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="stage export is to do"):
        parity_of(copy)
    exported = RunFolder.open(shutil.copytree(exported_run.path, tmp_path / "exported"))
    manylens.run(exported.config, ["export.fp32.labels=0.9"], folder=exported.path, until="data")
    with pytest.raises(StageError, match="stage export is stale"):
        parity_of(exported)


def test_the_names_of_all_variants_fit_a_terminal_of_80_columns(exported_run: RunFolder) -> None:
    parity = TypeAdapter(Parity).validate_json((exported_run.path / "export" / "parity.json").read_bytes())
    figures = replace(parity.variants["onnx_fp32"], logit_max=2.3e-06, logit_mean=0.00038, gain_max=5.7e-07)
    stream = io.StringIO()
    Console(file=stream, width=80).print(parity_table(replace(parity, variants=dict.fromkeys(VARIANTS, figures))))
    assert "…" not in stream.getvalue() and all(name in stream.getvalue() for name in (*VARIANTS, "macro-F1"))
