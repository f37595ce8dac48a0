"""docs/performance.md is what the stored run says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manylens.errors import DataError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.

from benchmarks.serving import figures  # noqa: E402
from benchmarks.serving.render import PAGE, against_peers, render, table  # noqa: E402
from benchmarks.serving.result import Measured, Result, Workload  # noqa: E402


@pytest.fixture
def result() -> Result:
    """Two rounds of 100 pairs, 10^9 operations each, on a machine of 200 and 400 of them a second."""
    return Result(
        command="python -m benchmarks.serving",
        finished="2026-01-02T03:04:05+00:00",
        processor="Some CPU",
        cores=2,
        native_bf16=False,
        workload=Workload(
            source="made up",
            pairs=100,
            tokens={"p50": 44.0, "mean": 57.0, "p95": 134.0, "p99": 260.0, "max": 438.0},
            flops=1e9,
            compared=50,
        ),
        rounds=2,
        peaks={"fp32": (190.0, 210.0), "int8": (400.0, 400.0)},
        systems=(
            Measured(
                name="transformers",
                title="transformers, arrival order",
                kind="library",
                precision="fp32",
                seconds=(2.0, 4.0),
                requests={1: ((0.010, 0.030, 0.020), (0.020, 0.020, 0.020)), 10: ((0.2,), (0.4,))},
                agreement=1.0,
                versions={"torch": "2.13.0"},
            ),
            Measured(
                name="openvino_int8",
                title="OpenVINO, tuned by hand",
                kind="tuned",
                precision="int8",
                seconds=(0.5, 0.7),
                requests={1: ((0.004, 0.004, 0.004), (0.004, 0.004, 0.004)), 10: ((0.05,), (0.06,))},
                agreement=0.94,
                difference=0.164,
                versions={"openvino": "2026.4.1"},
            ),
            Measured(
                name="flashrank",
                title="FlashRank",
                kind="library",
                precision="int8",
                reason="load: ImportError: no | here",
            ),
            Measured(
                name="manylens_openvino_int8",
                title="manylens, OpenVINO",
                kind="ours",
                precision="int8",
                seconds=(0.4, 0.4),
                requests={1: ((0.004, 0.004, 0.004), (0.002, 0.002, 0.002)), 10: ((0.02,), (0.03,))},
                agreement=0.95,
                difference=0.15,
                versions={"openvino": "2026.4.1"},
            ),
        ),
    )


def test_the_page_is_what_the_stored_run_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m benchmarks.serving --render"


def test_a_run_is_read_as_it_was_stored(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run.json")
    assert Result.load(tmp_path / "run.json") == result
    with pytest.raises(DataError, match=r"no run is stored in .*elsewhere.json; make one with"):
        Result.load(tmp_path / "elsewhere.json")


def test_the_page_without_a_run_has_no_part_on_serving(result: Result, tmp_path: Path) -> None:
    without = render(tmp_path / "run.json")
    assert "## Training speed" in without and "## Serving speed" not in without
    result.save(tmp_path / "run.json")
    page = render(tmp_path / "run.json")
    assert page.startswith(without) and "on 2 cores of an Some CPU, without\ninstructions for bf16" in page
    assert "- all others: openvino 2026.4.1\n- transformers, arrival order, fp32: torch 2.13.0" in page


def test_the_table_has_medians_ratios_and_shares_of_the_floor(result: Result) -> None:
    lines = table(result).splitlines()
    # 100 pairs in 3 s; the machine's 200 x 10^9 operations a second are 200 pairs.
    assert "| transformers, arrival order | fp32 | 33 | 1.0 | 17% | 20.0 | 300.0 | 1.000 | 0.000 |" in lines
    # 100 pairs in 0.6 s of 400 a second; (2 / 0.5 + 4 / 0.7) / 2 = 4.857.
    assert "| OpenVINO, tuned by hand | int8 | 167 | 4.9 | 42% | 4.0 | 55.0 | 0.940 | 0.164 |" in lines
    assert "| **manylens, OpenVINO** | int8 | 250 | 7.5 | 62% | 3.0 | 25.0 | 0.950 | 0.150 |" in lines
    assert "| FlashRank | int8 | not run: load: ImportError: no / here |  |  |  |  |  |  |" in lines
    assert len({line.count("|") for line in lines}) == 1


def test_ours_is_compared_with_the_best_peer_within_rounds(result: Result) -> None:
    ours, peer = "manylens, OpenVINO, int8", "OpenVINO, tuned by hand, int8"
    lines = against_peers(result).splitlines()[2:]
    assert lines == [
        f"| all pairs, int8 | {ours} | {peer} | 1.50 (1.25 to 1.75) | 1.2 |",
        f"| request of 1 product | {ours} | {peer} | 1.50 (1.00 to 2.00) | 1.0 |",
        f"| request of 10 products | {ours} | {peer} | 2.25 (2.00 to 2.50) | 1.5 |",
    ]
    assert figures.best(result, ("helper",), figures.all_pairs) is None
