from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from manylens.config import CurateConfig, SamplingConfig, TransformersOptions, TuneConfig
from manylens.errors import TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher.backends.local import model_identity
from manylens.teacher.curate import Curated, curate
from manylens.teacher.judgements import read_judgements
from manylens.teacher.perspectives import NEUTRAL, load_perspective
from manylens.teacher.tune import TuneReport, tune, tune_table, tuned_backends
from tune.build import SHORT, make_config, make_judgement, make_pairs, make_rows

#: Enough for the tiny teacher to learn one answer by heart.
BY_HEART = {**SHORT, "learning_rate": 0.01, "per_device_train_batch_size": 8, "save_strategy": "no"}
SHORT_PROMPT = """{% extends "perspective.jinja" %}
{% block system %}Judge.{% endblock %}
{% block user %}{{ pair.query }}: {{ pair.title }}{% endblock %}
"""


def run(
    config: TuneConfig, teacher: Path, folder: Path, *, rows: Curated | None = None, dev: list[Pair] | None = None
) -> TuneReport:
    rows = make_rows(make_pairs()) if rows is None else rows
    return tune(
        config,
        model=str(teacher),
        sft=rows.sft,
        preferences=rows.preferences,
        dev=make_pairs(2, split="dev") if dev is None else dev,
        scale=ESCI,
        prompt=NEUTRAL,
        folder=folder,
        seed=1,
    )


def marks(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("done.json")}


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_teacher_is_tuned_measured_and_saved(adapter: str, teacher: Path, tmp_path: Path) -> None:
    config = make_config(adapter=adapter)
    report = run(config, teacher, tmp_path)
    phases = report.teachers["unified"]
    assert list(phases) == ["sft", "dpo"]
    assert [phases[phase].training.rows for phase in ("sft", "dpo")] == [12, 8]
    assert all(phase.training.steps == 2 and phase.training.processes == 1 for phase in phases.values())
    whole = AutoModelForCausalLM.from_pretrained(teacher).num_parameters()
    trainable = phases["sft"].training.trainable_parameters
    assert trainable == whole if adapter == "none" else 0 < trainable < whole
    measures = [report.base, *(phase.dev for phase in phases.values())]
    assert all(measure is not None and measure.pairs == 2 and measure.unparsed == 1.0 for measure in measures)
    for place in ("base.parquet", "unified/sft/dev.parquet", "unified/dpo/dev.parquet"):
        judgements = list(read_judgements(tmp_path / place))
        assert [judgement.pair_id for judgement in judgements] == ["dev0", "dev1"]
        assert all(judgement.raw and judgement.perspective == "neutral" for judgement in judgements)
    # The final model is that of the last phase, and neither the base nor the first phase.
    last, first = (model_identity(str(tmp_path / "unified" / phase / "model")) for phase in ("dpo", "sft"))
    assert model_identity(str(tmp_path / "unified" / "model")) == last != first
    assert tuned_backends(config, tmp_path)["unified"].name == f"transformers:{last}"
    assert not list(tmp_path.rglob("checkpoint*"))
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["teachers"]["unified"]["dpo"]["training"]["lengths"]["rows"] == 8
    assert tune_table(report).row_count == 3


def test_only_what_changed_is_trained_again(teacher: Path, tmp_path: Path) -> None:
    first = run(make_config(adapter="none"), teacher, tmp_path)
    before = marks(tmp_path)
    assert run(make_config(adapter="none"), teacher, tmp_path) == first
    assert marks(tmp_path) == before
    sharper = make_config(adapter="none", dpo={**SHORT, "beta": 0.5, "learning_rate": 0.01})
    model = model_identity(str(tmp_path / "unified" / "model"))
    second = run(sharper, teacher, tmp_path)
    after = marks(tmp_path)
    assert after["unified/sft/done.json"] == before["unified/sft/done.json"]
    assert after["unified/dpo/done.json"] != before["unified/dpo/done.json"]
    assert model_identity(str(tmp_path / "unified" / "model")) != model
    assert second.teachers["unified"]["sft"] == first.teachers["unified"]["sft"]
    run(sharper, teacher, tmp_path, rows=make_rows(make_pairs(6)))
    assert marks(tmp_path)["unified/sft/done.json"] != before["unified/sft/done.json"]


def test_a_phase_is_recognised_elsewhere(teacher: Path, tmp_path: Path) -> None:
    sft_only = make_config(dpo=None)
    run(sft_only, teacher, tmp_path / "one")
    shutil.move(tmp_path / "one" / "unified" / "sft", tmp_path / "two" / "unified" / "sft")
    before = marks(tmp_path / "two")
    run(make_config(), teacher, tmp_path / "two")
    assert before.items() < marks(tmp_path / "two").items()


def test_each_perspective_gets_a_teacher_of_its_own(teacher: Path, tmp_path: Path) -> None:
    config = make_config(adapter="none", teachers="per_perspective", dpo=None)
    report = run(config, teacher, tmp_path)
    assert list(report.teachers) == ["a", "b"]
    for name, rows in (("a", 8), ("b", 4)):
        assert report.teachers[name]["sft"].training.rows == rows
        assert set(pq.read_table(tmp_path / name / "sft" / "rows.parquet")["perspective"].to_pylist()) == {name}
    assert report.ensemble["sft"].pairs == 2
    backends = tuned_backends(config, tmp_path)
    assert list(backends) == ["a", "b"] and backends["a"].name != backends["b"].name


def test_preference_tuning_can_come_alone(teacher: Path, tmp_path: Path) -> None:
    report = run(make_config(sft=None), teacher, tmp_path, dev=[])
    assert list(report.teachers["unified"]) == ["dpo"]
    assert report.base is None and report.teachers["unified"]["dpo"].dev is None
    assert (tmp_path / "unified" / "model" / "model.safetensors").exists()


def test_everything_wrong_with_rows_is_found_before_training(teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs())
    with pytest.raises(TeacherError, match=r"sft unified: 12 of 12 rows are longer than the 100 tokens"):
        run(make_config(max_length=100), teacher, tmp_path, rows=rows)
    none = replace(rows, preferences=rows.preferences.slice(0, 0))
    with pytest.raises(TeacherError, match="dpo unified: there is no row to train on"):
        run(make_config(), teacher, tmp_path, rows=none)
    assert not list(tmp_path.rglob("model"))


def test_an_end_that_the_tokenizer_does_not_know_is_learnt(teacher: Path, tmp_path: Path) -> None:
    """Base models such as Qwen3-14B-Base end texts with one token, and their chat template turns with another."""
    base = tmp_path / "base"
    shutil.copytree(teacher, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    end, tokenizer.eos_token = tokenizer.eos_token_id, "<|endoftext|>"
    tokenizer.save_pretrained(base)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id).save_pretrained(base)
    with pytest.raises(TeacherError, match=r"set tune\.sft\.eos_token"):
        run(make_config(), base, tmp_path / "tuned")
    run(make_config(sft={**SHORT, "eos_token": "<|im_end|>"}), base, tmp_path / "tuned", dev=[])
    tuned = tmp_path / "tuned" / "unified" / "model"
    assert AutoTokenizer.from_pretrained(tuned).eos_token_id == end
    assert end in GenerationConfig.from_pretrained(tuned).eos_token_id


def test_rows_that_are_dropped_are_counted_and_not_trained_on(teacher: Path, tmp_path: Path) -> None:
    rows = make_rows([*make_pairs(3), replace(make_pairs(1)[0], pair_id="long", title="red mug " * 40)])
    report = run(make_config(dpo=None, max_length=280, too_long="drop"), teacher, tmp_path, rows=rows, dev=[])
    training = report.teachers["unified"]["sft"].training
    assert (training.rows, training.lengths.dropped, training.max_length) == (9, 3, 280)
    assert training.lengths.longest > 280
    trained = pq.read_table(tmp_path / "unified" / "sft" / "rows.parquet")["pair_id"].to_pylist()
    assert set(trained) == {"train0", "train1", "train2"}


def test_an_unfinished_tuning_has_no_teachers(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="expected the report of a finished tuning"):
        tuned_backends(make_config(), tmp_path)


def test_a_teacher_learns_to_answer_and_then_to_prefer(teacher: Path, tmp_path: Path) -> None:
    """Two of three rationales say "exact", so that SFT does; DPO prefers the third, which is right."""
    prompt = tmp_path / "short.jinja"
    prompt.write_text(SHORT_PROMPT)
    pairs = make_pairs(8, label="substitute")
    voices = {"a": "substitute", "b": "exact", "c": "exact"}
    judgements = [
        make_judgement(pair, name, label, rationale=f"{name} looks at the title.")
        for pair in pairs
        for name, label in voices.items()
    ]
    curated = curate(pairs, judgements, ESCI, CurateConfig(filter="none", prompt=str(prompt)), seed=1)
    config = make_config(
        adapter="none",
        sft={**BY_HEART, "max_steps": 50},
        dpo={**BY_HEART, "max_steps": 10, "learning_rate": 0.001},
        generate=TransformersOptions(sampling=SamplingConfig(max_tokens=40), batch_size=8),
    )
    report = tune(
        config,
        model=str(teacher),
        sft=curated.sft,
        preferences=curated.preferences,
        dev=make_pairs(8, label="substitute", split="dev"),
        scale=ESCI,
        prompt=load_perspective(str(prompt)),
        folder=tmp_path,
        seed=1,
    )
    sft, dpo = (report.teachers["unified"][phase].dev for phase in ("sft", "dpo"))
    assert report.base is not None and report.base.unparsed == 1.0
    assert sft is not None and (sft.unparsed, sft.accuracy) == (0.0, 0.0)
    assert dpo is not None and (dpo.unparsed, dpo.accuracy) == (0.0, 1.0)
