from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manylens.evaluation import compare
from manylens.evaluation.compare import verdict_of
from manylens.records import ESCI
from manylens.study.report import where
from manylens.study.rows import CONTRAST_SCHEMA, FIGURE_SCHEMA, RESAMPLES
from manylens.study.tables import study_tables

from .build import config, kept, places, predictions, study


def on_test(table: pa.Table) -> pa.Table:
    return table.filter(pa.array([split == "test" for split in table["split"].to_pylist()]))


def test_figures_and_comparisons_of_a_study(tmp_path: Path) -> None:
    tables = {
        "weak": [predictions(0.2, seed) for seed in (1, 2)],
        "strong": [predictions(2.0, seed) for seed in (3, 4)],
        "same": [predictions(0.2, seed) for seed in (5, 6)],
    }
    folder = places(tmp_path)
    figures, contrasts, _ = study_tables(study(*tables), kept(folder, tables), folder)
    assert figures.schema == FIGURE_SCHEMA and contrasts.schema == CONTRAST_SCHEMA
    assert len(figures) == 3 * 2 * 4 and len(contrasts) == 2 * 2 * 4

    settings = config().evaluate.model_copy(update={"bootstrap_samples": RESAMPLES})
    direct = compare(*([on_test(table) for table in tables[name]] for name in ("strong", "weak")), ESCI, settings, 13)
    accuracy = direct.metrics["accuracy"]
    (row,) = where(figures.to_pylist(), arm="strong", split="test", metric="accuracy")
    assert (row["mean"], row["sd"]) == (accuracy.treatment, pytest.approx(accuracy.treatment_sd))
    assert (row["seeds"], row["queries"], row["pairs"]) == (2, 12, 48)
    assert row["mean"] == np.mean(row["values"]) and (row["min"], row["max"]) == (
        min(row["values"]),
        max(row["values"]),
    )

    (row,) = where(contrasts.to_pylist(), treatment="strong", split="test", metric="accuracy")
    assert (row["low"], row["high"]) == accuracy.interval_seeds
    assert (row["low_queries"], row["high_queries"]) == accuracy.interval
    assert (row["difference"], row["by_seed"]) == (accuracy.difference, list(accuracy.by_seed))
    # Four tests in the family: two comparisons, accuracy and macro-F1. These are the smallest p values of it.
    assert row["p"] < row["p_holm"] <= 4 * row["p"] and row["verdict"] == "gain"
    for row in where(contrasts.to_pylist(), treatment="same", split="test"):
        assert row["verdict"] == "no difference shown"
        assert (row["p_holm"] is None) == (row["metric"] in ("ndcg", "mrr"))


def test_one_seed_has_intervals_over_queries_alone(tmp_path: Path) -> None:
    tables = {"weak": [predictions(0.2, 1)], "strong": [predictions(2.0, 2)]}
    folder = places(tmp_path)
    figures, contrasts, _ = study_tables(study(*tables), kept(folder, tables), folder)
    assert set(figures["sd"].to_pylist()) == {None}
    for row in contrasts.to_pylist():
        assert (row["low"], row["high"]) == (row["low_queries"], row["high_queries"])
        assert row["verdict"] in (verdict_of((row["low"], row["high"])), "no difference shown")


def test_slices_have_rows_of_their_own(tmp_path: Path) -> None:
    def with_locales(table: pa.Table, without: str = "") -> pa.Table:
        locales = ["es" if index % 8 < 4 else "us" for index in range(len(table))]
        table = table.set_column(3, "locale", pa.array(locales))
        splits = table["split"].to_pylist()
        kept_rows = [split != "dev" or locale != without for split, locale in zip(splits, locales, strict=True)]
        return table.filter(pa.array(kept_rows))

    tables = {
        "all": [with_locales(predictions(0.5, 1))],
        "held_out": [with_locales(predictions(0.5, 2), without="es")],
        "too": [with_locales(predictions(1.0, 3), without="es")],
    }
    folder = places(tmp_path)
    wanted = study(*tables, slices=("locale",), contrasts=(("too", "held_out"),))
    figures, contrasts, _ = study_tables(wanted, kept(folder, tables), folder)
    (row,) = where(figures.to_pylist(), arm="all", split="test", slice="locale=es", metric="mrr")
    assert (row["pairs"], row["queries"]) == (24, 6)
    assert where(figures.to_pylist(), arm="held_out", split="dev", slice="locale=es") == []
    assert {(row["split"], row["slice"]) for row in contrasts.to_pylist()} == {
        *(("test", part) for part in ("all", "locale=es", "locale=us")),
        *(("dev", part) for part in ("all", "locale=us")),
    }
