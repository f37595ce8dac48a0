"""The benchmark of serving: its workload, its arithmetic, and systems in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from manylens.errors import BadRowError, StageError
from manylens.student.pretrained import resolve_pretrained

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.

from benchmarks.serving import environments, measure  # noqa: E402
from benchmarks.serving.client import Client, WorkerError  # noqa: E402
from benchmarks.serving.floor import pair_flops  # noqa: E402
from benchmarks.serving.master import Master, make_master  # noqa: E402
from benchmarks.serving.workers.batching import ROUNDING, batches  # noqa: E402
from benchmarks.serving.workload import pairs, read_pairs, write_pairs  # noqa: E402

#: What the steep head makes of the rounding of a tiny, random encoder.
ROUNDED = 0.01


@pytest.fixture(scope="module")
def master(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Master:
    return make_master(tmp_path_factory.mktemp("master") / "master", pairs(20, 2), str(models / "backbone"))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl", pairs(12))


def expected_logits(folder: Path, file: Path) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with torch.inference_mode():
        rows = [model(**tokenizer(*pair, truncation=True, return_tensors="pt")).logits for pair in read_pairs(file)]
    return torch.cat(rows).numpy()


def test_pairs_are_as_long_as_a_shops_and_the_same_each_time() -> None:
    made = pairs()
    assert made == pairs() and made != pairs(seed=2)
    assert len({product for _, product in made}) > 1900 and len({query for query, _ in made}) < 1000
    tokenizer = Tokenizer.from_file(f"{resolve_pretrained('minilm')}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [len(each.ids) for each in tokenizer.encode_batch(made)]
    wanted = {0.5: 44, 0.95: 134, 0.99: 260, 1.0: 438}
    assert np.quantile(lengths, list(wanted)) == pytest.approx(list(wanted.values()), rel=0.03)
    assert np.mean(lengths) == pytest.approx(57, rel=0.03)


def test_a_file_of_pairs_is_read_as_far_as_is_wanted_and_a_bad_line_is_named(tmp_path: Path) -> None:
    made = pairs(3)
    file = write_pairs(tmp_path / "pairs.jsonl", made)
    assert read_pairs(file) == made and read_pairs(file, 2) == made[:2]
    for line in ("{}", '{"query": "a", "product": 1}', "[1]", "no JSON"):
        file.write_text(f'{{"query": "a", "product": "b"}}\n{line}\n', encoding="utf-8")
        with pytest.raises(BadRowError, match=r"pairs.jsonl, row 2: expected a JSON object with the texts"):
            read_pairs(file)


def test_the_operations_of_minilm_are_those_worked_out_by_hand() -> None:
    config = BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12)
    # 2 * (4 * 384^2 + 2 * 384 * 1536) * 6 a token, 4 * 384 * 6 for each pair of tokens.
    assert pair_flops(config, [10]) == 21_233_664 * 10 + 9_216 * 100
    assert pair_flops(config, [10, 30]) == 21_233_664 * 20 + 9_216 * 500


@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=60),
    budget=st.integers(8, 1024),
    streams=st.integers(1, 4),
)
def test_batches_keep_to_the_budget_and_hold_every_pair_once(lengths: list[int], budget: int, streams: int) -> None:
    cut = batches(lengths, budget, streams)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(lengths)))
    widths = [-(-max(lengths[index] for index in batch) // ROUNDING) * ROUNDING for batch in cut]
    assert all(len(batch) == 1 or len(batch) * width <= budget for batch, width in zip(cut, widths, strict=True))
    assert widths == sorted(widths, reverse=True)


def test_a_request_is_spread_over_the_streams() -> None:
    assert [batch.tolist() for batch in batches([16] * 4, 1024, 2)] == [[3, 2], [1, 0]]
    assert [len(batch) for batch in batches([16] * 10, 64, 2)] == [4, 4, 2]


def test_the_master_is_steep_and_its_one_logit_is_the_first(master: Master, scored: Path) -> None:
    seen = write_pairs(scored.with_name("seen.jsonl"), pairs(20, 2))
    logits = expected_logits(master.labels, seen)
    assert logits.mean(axis=0) == pytest.approx(0.0, abs=1e-3)
    assert logits.std(axis=0, ddof=1) == pytest.approx(3.0, abs=1e-3)
    one = expected_logits(master.one, seen)
    np.testing.assert_allclose(one[:, 0], logits[:, 0] - logits.mean(axis=1), atol=ROUNDED)


@pytest.mark.slow
@pytest.mark.parametrize("by_length", [False, True])
def test_transformers_in_its_own_process_says_what_transformers_says(
    master: Master, scored: Path, tmp_path: Path, by_length: bool
) -> None:
    with Client(sys.executable, "transformers", tmp_path / "log") as client:
        answer = client.ask(
            "load",
            master=str(master.labels),
            folder="",
            pairs=str(scored),
            threads=1,
            options={"by_length": by_length},
        )
        assert "transformers" in answer["versions"]
        outputs = client.ask("outputs", count=12)["outputs"]
        np.testing.assert_allclose(outputs, expected_logits(master.labels, scored), atol=ROUNDED)
        assert client.ask("score")["seconds"] > 0
        assert client.ask("request", start=10, products=5)["seconds"] > 0  # It goes on at the first product.
        sustained = client.ask("sustain", seconds=0.05, products=5, together=2)
        assert sustained["seconds"] >= 0.05 and sustained["requests"] >= 2 and sustained["requests"] % 2 == 0


@pytest.mark.slow
def test_ours_in_its_own_process_says_the_same_up_to_a_constant(master: Master, scored: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    folder = tmp_path / "export"
    with Client(sys.executable, "manylens", tmp_path / "log") as client:
        client.ask(
            "prepare",
            master=str(master.labels),
            folder=str(folder),
            calibration=str(scored),
            options={"variants": ["onnx_fp32"]},
        )
        client.ask(
            "load",
            master=str(master.labels),
            folder=str(folder),
            pairs=str(scored),
            threads=1,
            options={"variant": "onnx_fp32", "cache_products": 0},
        )
        outputs = np.array(client.ask("outputs", count=12)["outputs"])
    wanted = expected_logits(master.labels, scored)
    centred = outputs - outputs.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centred, wanted - wanted.mean(axis=1, keepdims=True), atol=ROUNDED)


def test_a_system_that_fails_says_why(scored: Path, tmp_path: Path) -> None:
    with Client(sys.executable, "no_such_system", tmp_path / "log") as client:
        with pytest.raises(WorkerError, match=r"load: ModuleNotFoundError: .*no_such_system"):
            client.ask("load")
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"score: the process ended; ModuleNotFoundError"):
            client.ask("score")


@pytest.mark.slow
def test_a_run_times_what_is_there_and_says_what_is_not(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "REQUESTS", {1: 2, 3: 1})
    result = measure.run(
        pairs(12),
        "made up",
        names=["transformers_sorted", "flashrank"],
        rounds=1,
        folder=tmp_path / "models",
        backbone=str(models / "backbone"),
    )
    first, by_length, flashrank = result.systems
    assert first.name == "transformers" and first.agreement == 1.0 and first.difference == 0.0
    assert by_length.agreement == 1.0 and by_length.difference < ROUNDED
    for each in (first, by_length):
        assert len(each.seconds) == 1 and min(each.seconds) > 0
        (of_one,), (of_three,) = each.requests[1], each.requests[3]
        assert len(of_one) == 2 and len(of_three) == 1
    assert flashrank.reason == "not installed; run: python -m benchmarks.serving --prepare"
    assert flashrank.seconds == () and flashrank.requests == {}
    assert result.peaks.keys() == {"fp32", "bf16", "int8"} and all(len(each) == 1 for each in result.peaks.values())
    assert result.workload.pairs == result.workload.compared == 12


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environments, "PEERS", tmp_path)
    (tmp_path / "broken.txt").write_text("./nowhere\n", encoding="utf-8")
    assert environments.environments() == ["broken"]
    with pytest.raises(StageError, match=r"not installed; run: python -m benchmarks.serving --prepare"):
        environments.interpreter("broken")
    assert not environments.prepare("broken")
    with pytest.raises(StageError, match=r"not installed: .*nowhere"):
        environments.interpreter("broken")
