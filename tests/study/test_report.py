from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from manylens.study.report import difference_words, head_of, machine_words, spread_words, where, write_study
from manylens.study.tables import study_tables

from .build import SIZES, kept, places, predictions, study

GAIN = {"difference": 0.1234, "low": 0.02, "high": 0.2, "p": 0.01, "p_holm": 0.04, "verdict": "gain"}


def test_words_for_figures() -> None:
    assert spread_words({"mean": 0.51449, "sd": 0.01251}) == "0.514 ±0.013"
    assert spread_words({"mean": 0.5, "sd": None}) == "0.500"


def test_words_for_differences() -> None:
    assert difference_words(GAIN) == "**+0.123 (+0.020 to +0.200), p 0.040 (Holm): gain**"
    assert difference_words({**GAIN, "p_holm": None, "p": 0.0001}) == "**+0.123 (+0.020 to +0.200), p <0.001: gain**"
    none = {**GAIN, "difference": -0.1, "low": -0.3, "verdict": "no difference shown"}
    assert difference_words(none) == "-0.100 (-0.300 to +0.200), p 0.040 (Holm)"
    assert difference_words({**none, "low": None}) == "-0.100"


def test_a_study_as_files(tmp_path: Path) -> None:
    tables = {
        "weak": [predictions(0.2, seed) for seed in (1, 2)],
        "strong": [predictions(2.0, seed) for seed in (3, 4)],
    }
    folder, wanted = places(tmp_path), study("weak", "strong", question="Which?")
    jobs = kept(folder, tables)
    figures, contrasts, _ = study_tables(wanted, jobs, folder)
    head = head_of(wanted, jobs, folder, command="manylens study tiny demo --seeds 2", notes=["Words: one, two."])
    assert (head.seeds, head.pairs, head.recipe, head.finished) == ((1, 2), SIZES, "tiny", "2026-01-02")

    page = write_study(head, figures, contrasts, folder.out)
    assert pq.read_table(folder.out / "tiny.parquet").equals(figures)
    assert pq.read_table(folder.out / "tiny-contrasts.parquet").equals(contrasts)
    assert json.loads((folder.out / "tiny.json").read_text())["command"] == head.command
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[:5] == ["# Tiny", "", "Which?", "", "`manylens study tiny demo --seeds 2`"]
    assert [line for line in lines if line.startswith("## ")] == ["## dev", "## test"]
    assert "Words: one, two." in lines
    assert any("GPU of a test; 2 processors; torch 2.0; a student takes 3 s in the median." in line for line in lines)
    (strong,) = where(figures.to_pylist(), arm="strong", split="test", metric="mrr")
    written = [line for line in lines if line.startswith("| STRONG |")]
    assert len(written) == 2 and any(spread_words(strong) in line for line in written)
    assert sum(line.startswith("| STRONG - WEAK |") for line in lines) == 2


def test_a_student_of_an_older_study_does_not_say_its_machine(tmp_path: Path) -> None:
    folder, wanted = places(tmp_path), study("only")
    jobs = kept(folder, {"only": [predictions(1.0, 1)]})
    path = folder.kept(jobs["only"][0]) / "job.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: record[key] for key in record.keys() - {"machine", "versions"}}), encoding="utf-8")
    head = head_of(wanted, jobs, folder, command="manylens study tiny demo --seeds 1")
    assert machine_words(head) == "? processors; a student takes 2 s in the median."
