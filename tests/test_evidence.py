"""docs/evidence.md is what the stored tables say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from manylens.errors import DataError
from manylens.study.report import head_of, write_study
from manylens.study.tables import study_tables

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.

from benchmarks.evidence.plots import draw  # noqa: E402
from benchmarks.evidence.render import PAGE, Evidence  # noqa: E402
from benchmarks.evidence.stored import Stored, take  # noqa: E402

from study.build import kept, places, predictions, study  # noqa: E402


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a study of three arms, two of which stand on a curve."""
    folder = places(tmp_path_factory.mktemp("studies"))
    made = {name: [predictions(skill, seed) for seed in (1, 2)] for name, skill in (("bert", 0.2), ("a", 1), ("b", 2))}
    wanted = study(*made, name="labels")
    settings = ({}, {"rate": 0.0}, {"rate": 0.5})
    arms = [arm.model_copy(update={"settings": at}) for arm, at in zip(wanted.arms, settings, strict=True)]
    wanted = wanted.model_copy(update={"arms": tuple(arms)})
    jobs = kept(folder, made)
    write_study(
        head_of(wanted, jobs, folder, command="manylens study"), *study_tables(wanted, jobs, folder)[:2], folder.out
    )
    stored = tmp_path_factory.mktemp("tables")
    assert len(take(folder.out, "demo", stored)) == 3
    return stored


def test_the_page_is_what_the_stored_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == Evidence().render(), "run: python -m benchmarks.evidence"


def test_a_study_that_was_taken_stands_on_the_page(tables: Path) -> None:
    evidence = Evidence(tables)
    page = evidence.render()
    found = Stored.load("demo/labels", tables)
    (row,) = [row for row in found.figures if (row["arm"], row["split"], row["metric"]) == ("b", "test", "macro_f1")]
    cell = f"{row['mean']:.3f} ±{row['sd']:.3f}"
    assert "## Demo store: labels" in page
    assert re.search(rf"^\| B \|.*{re.escape(cell)}", page, flags=re.MULTILINE)
    assert evidence.value("demo/labels", "b", "macro_f1") == cell
    (line,) = [line for line in evidence.contrasts("demo/labels", treatment="b").splitlines() if "B - BERT" in line]
    assert evidence.contrast("demo/labels", "b", "bert", "accuracy") in line
    assert page.endswith(Evidence().render()[-500:])


def test_what_is_not_there_is_not_made_up(tables: Path) -> None:
    evidence = Evidence(tables)
    with pytest.raises(DataError, match="no study 'demo/pareto'"):
        evidence.table("demo/pareto")
    with pytest.raises(DataError, match="expected one row"):
        evidence.value("demo/labels", "c", "accuracy")
    with pytest.raises(DataError, match="no finished study"):
        take(tables, "demo", tables)


def test_a_curve_has_its_points_and_its_reference(tables: Path) -> None:
    evidence = Evidence(tables)
    image = evidence.curve("demo/labels", "rate", "accuracy")
    assert image.endswith("(img/evidence/demo-labels-accuracy-over-rate.svg)")
    (plot,) = evidence.plots.values()
    line, reference = plot.lines
    assert line.x == (0.0, 0.5) and reference.x == () and reference.label == "BERT"
    assert f"{line.y[1]:.3f}" in evidence.value("demo/labels", "b", "accuracy")


def test_a_plot_is_the_same_file_each_time(tables: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evidence = Evidence(tables)
    evidence.curve("demo/labels", "rate", "accuracy")
    (plot,) = evidence.plots.values()
    first, second = (draw(plot, tmp_path / name) for name in ("one.svg", "two.svg"))
    assert first.read_bytes() == second.read_bytes() and b"BERT" in first.read_bytes()
