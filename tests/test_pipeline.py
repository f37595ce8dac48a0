from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification

import manylens
from manylens import pipeline
from manylens.config import Config
from manylens.errors import (
    BadRowError,
    BudgetError,
    ConfigError,
    DataError,
    MissingExtraError,
    StageError,
    StudentError,
)
from manylens.evaluation.predictions import Predictions
from manylens.evaluation.ranking import rank_queries
from manylens.pipeline import STAGES, fingerprints, load_or_read_pairs
from manylens.recipe import load_config
from manylens.records import ESCI
from manylens.run_folder import RunFolder
from manylens.serving import Scorer
from manylens.student.targets import Targets
from manylens.teacher import PERSPECTIVES, JudgementStore
from tiny import TinyShop

NAMES = ["data", "judge", "curate", "embed", "distil", "evaluate"]


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


def marks(folder: Path) -> dict[str, int]:
    """Return when each stage and each student was marked as done."""
    return {str(mark.parent.relative_to(folder)): mark.stat().st_mtime_ns for mark in folder.rglob("done.json")}


def ran(folder: Path, before: Mapping[str, int]) -> list[str]:
    """Return the stages and students that were marked anew."""
    return sorted(name for name, when in marks(folder).items() if before.get(name) != when)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "judge" / "report.json").read_text())
    return found


def test_a_run_leaves_what_its_docs_say(finished: RunFolder) -> None:
    written = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    expected = {
        "config.yaml",
        "run.json",
        "data/pairs.parquet",
        "data/skipped.jsonl",
        "data/report.json",
        "judge/judgements.sqlite",
        "judge/judgements.parquet",
        "judge/report.json",
        "curate/rationales.parquet",
        "curate/sft.parquet",
        "curate/preferences.parquet",
        "curate/report.json",
        "curate/panel.json",
        "embed/targets.npy",
        "embed/targets.parquet",
        "distil/lrkd-seed13/model.safetensors",
        "distil/lrkd-seed13/training.json",
        "distil/bert-seed13/config.json",
        "evaluate/lrkd-seed13/predictions.parquet",
        "evaluate/bert-seed13/evaluation.json",
        "evaluate/lrkd-against-bert.json",
        *(f"{name}/done.json" for name in (*NAMES, "distil/lrkd-seed13", "distil/bert-seed13")),
    }
    assert expected <= written
    assert not [name for name in written if "checkpoint" in name or name.endswith((".tmp", ".unfinished"))]


def test_the_stages_hand_on_what_the_shop_holds(finished: RunFolder) -> None:
    assert report(finished.path)["asked"] == 64 * 3  # 12 train and 4 dev queries of 4 pairs, three perspectives.
    rationales = pq.read_table(finished.path / "curate" / "rationales.parquet").to_pydict()
    # business_rules takes each of the 16 substitutes for exact.
    assert sum(rationales["consistent"]) == 64 * 3 - 16
    assert pq.read_table(finished.path / "curate" / "preferences.parquet").num_rows == 12 * 2
    targets = np.load(finished.path / "embed" / "targets.npy")
    assert targets.shape == (64, 1, 32)
    train = set(load_or_read_pairs(finished.config, finished.path).split("train").table["pair_id"].to_pylist())
    in_train = [
        name in train for name in pq.read_table(finished.path / "embed" / "targets.parquet")["pair_id"].to_pylist()
    ]
    assert np.abs(targets[in_train].mean(axis=0)).max() < 1e-6  # Centred on train.
    predictions = pq.read_table(finished.path / "evaluate" / "bert-seed13" / "predictions.parquet")
    assert predictions["split"].value_counts().to_pylist() == [
        {"values": "dev", "counts": 16},
        {"values": "test", "counts": 16},
    ]


def test_the_model_is_a_plain_hugging_face_folder_of_the_wanted_method(finished: RunFolder) -> None:
    assert finished.model == finished.path / "distil" / "lrkd-seed13"
    model = AutoModelForSequenceClassification.from_pretrained(finished.model)
    assert (model.config.extractor, model.config.num_labels) == ("mlp", 4)


def test_a_second_run_skips_everything(shop: TinyShop, copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = marks(copy)
    manylens.run(shop.recipe(), folder=copy)
    assert ran(copy, before) == []
    assert capfd.readouterr().err.count("current, skipped") == len(NAMES)


def test_another_name_or_place_of_the_same_recipe_changes_nothing(shop: TinyShop, copy: Path) -> None:
    moved = copy.rename(copy.with_name("moved"))
    before = marks(moved)
    manylens.run({**shop.recipe(), "name": "renamed"}, folder=moved)
    assert ran(moved, before) == []


def test_another_extractor_distils_and_evaluates_again_and_leaves_the_baseline(shop: TinyShop, copy: Path) -> None:
    before = marks(copy)
    run = manylens.run(shop.recipe(), ["student.extractor=gat"], folder=copy)
    assert ran(copy, before) == ["distil", "distil/lrkd-seed13", "evaluate"]
    assert json.loads((run.model / "config.json").read_text())["extractor"] == "gat"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluate.bootstrap_samples=150", ["evaluate"]),
        ("student.guide.weight=0.5", ["distil", "distil/lrkd-seed13", "evaluate"]),
        ("student.earlier.temperature=3", ["distil", "evaluate"]),
        ("student.seeds=[13, 14]", ["distil", "distil/bert-seed14", "distil/lrkd-seed14", "evaluate"]),
        ("student.baselines=[]", ["distil", "evaluate"]),
        ("student.max_length=24", ["distil", "distil/bert-seed13", "distil/lrkd-seed13", "evaluate"]),
        ("embed.target=per_perspective", ["distil", "distil/lrkd-seed13", "embed", "evaluate"]),
        ("curate.preferences.max_per_pair=1", ["curate", "distil", "distil/lrkd-seed13", "embed", "evaluate"]),
    ],
)
def test_an_edited_section_reruns_its_stage_and_what_follows(
    shop: TinyShop, copy: Path, override: str, expected: list[str]
) -> None:
    before = marks(copy)
    manylens.run(shop.recipe(), [override], folder=copy)
    assert ran(copy, before) == expected


def test_going_back_to_an_earlier_recipe_trains_no_student_again(shop: TinyShop, copy: Path) -> None:
    before = marks(copy)
    manylens.run(shop.recipe(), ["curate.filter=none"], folder=copy, until="curate")
    assert sorted(marks(copy)) == ["curate", "data", "distil/bert-seed13", "distil/lrkd-seed13", "judge"]
    manylens.run(shop.recipe(), folder=copy)
    assert ran(copy, before) == ["curate", "distil", "embed", "evaluate"]


def test_until_stops_after_a_stage(shop: TinyShop, tmp_path: Path) -> None:
    run = manylens.run(shop.recipe(), folder=tmp_path / "run", until="judge")
    assert sorted(marks(run.path)) == ["data", "judge"]
    assert not (run.path / "curate").exists()


def test_an_unknown_stage_is_refused_with_the_nearest_one(shop: TinyShop, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"unknown stage 'distill' \(did you mean 'distil'\?\)"):
        manylens.run(shop.recipe(), folder=tmp_path / "run", until="distill")
    assert not (tmp_path / "run").exists()


def with_panel(shop: TinyShop, *perspectives: str | Path) -> dict[str, Any]:
    return {**shop.recipe(), "judge": {"perspectives": [str(name) for name in perspectives]}}


def test_another_text_of_one_perspective_asks_that_perspective_only(shop: TinyShop, tmp_path: Path) -> None:
    own = tmp_path / "user_intent.jinja"
    packaged = Path(manylens.__file__).parent / "teacher" / "prompts" / "user_intent.jinja"
    text = packaged.read_text(encoding="utf-8")
    own.write_text(text, encoding="utf-8")
    recipe = with_panel(shop, own, "structured_analysis", "business_rules")
    run = manylens.run(recipe, folder=tmp_path / "run", until="judge")
    own.write_text(text.replace("Take the shopper's side.", "Be the shopper."), encoding="utf-8")
    assert run.state("judge", fingerprints(run.config)["judge"]) == "stale"

    manylens.run(recipe, folder=run.path, until="judge")
    found = report(run.path)
    asked = {name: (counts["reused"], counts["asked"]) for name, counts in found["by_perspective"].items()}
    assert asked == {"user_intent": (0, 64), "structured_analysis": (64, 0), "business_rules": (64, 0)}
    with JudgementStore(run.path / "judge" / "judgements.sqlite") as store:
        assert len(store) == 64 * 4  # The answers to the old text are still there.
    assert pq.read_table(run.path / "judge" / "judgements.parquet").num_rows == 64 * 3


def test_one_more_perspective_and_one_more_sample_pay_for_the_difference(shop: TinyShop, tmp_path: Path) -> None:
    def counts(recipe: Mapping[str, Any]) -> tuple[int, int]:
        manylens.run(recipe, folder=tmp_path / "run", until="judge")
        found = report(tmp_path / "run")
        return found["reused"], found["asked"]

    two = with_panel(shop, *PERSPECTIVES[:2])
    assert counts(two) == (0, 64 * 2)
    assert counts(with_panel(shop, *PERSPECTIVES)) == (64 * 2, 64)
    more_samples = with_panel(shop, *PERSPECTIVES)
    more_samples["judge"]["samples"] = 2
    assert counts(more_samples) == (64 * 3, 64 * 3)
    assert counts(two) == (64 * 2, 0)


def test_more_pairs_pay_for_the_difference(models: Path, tmp_path: Path) -> None:
    few = TinyShop.make(tmp_path / "shop", models, queries=10)
    judgements = few.folder / "judgements.jsonl"
    # The recorded teacher goes by its file's content: the same file for both runs.
    TinyShop.make(tmp_path / "more", models, queries=20)
    shutil.copy(tmp_path / "more" / "judgements.jsonl", judgements)
    run = manylens.run(few.recipe(), folder=tmp_path / "run", until="judge")
    assert report(run.path)["asked"] == 32 * 3
    shutil.copy(tmp_path / "more" / "pairs.csv", few.pairs)
    manylens.run(few.recipe(), folder=run.path, until="judge")
    assert (report(run.path)["reused"], report(run.path)["asked"]) == (32 * 3, 32 * 3)


def test_an_edited_input_file_reruns_from_data(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    run = manylens.run(shop.recipe(), folder=tmp_path / "run")
    before = marks(run.path)
    shop.pairs.write_text(shop.pairs.read_text().replace("Orvel", "Korbento"))
    states = [run.state(name, wanted) for name, wanted in fingerprints(run.config).items()]
    assert states == ["stale"] * len(NAMES)
    manylens.run(shop.recipe(), folder=run.path)
    assert ran(run.path, before) == sorted([*NAMES, "distil/bert-seed13", "distil/lrkd-seed13"])
    brands = pq.read_table(run.path / "data" / "pairs.parquet")["brand"].to_pylist()
    assert set(brands) == {"Korbento"}


def test_an_edited_file_of_judgements_reruns_from_judge(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    run = manylens.run(shop.recipe(), folder=tmp_path / "run", until="curate")
    before = marks(run.path)
    judgements = shop.folder / "judgements.jsonl"
    judgements.write_text(judgements.read_text().replace("against", "beside"))
    manylens.run(shop.recipe(), folder=run.path, until="curate")
    assert ran(run.path, before) == ["curate", "judge"]
    assert report(run.path)["asked"] == 16 * 3  # Another teacher: nothing of the old one is reused.


def test_other_weights_under_the_same_path_are_another_model(shop: TinyShop, tmp_path: Path) -> None:
    models = Path(shutil.copytree(shop.models, tmp_path / "models"))
    own = TinyShop(folder=shop.folder, models=models)
    run = manylens.run(own.recipe(), folder=tmp_path / "run")
    before, targets = marks(run.path), np.load(run.path / "embed" / "targets.npy")

    weights = models / "encoder" / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    manylens.run(own.recipe(), folder=run.path)
    assert ran(run.path, before) == ["distil", "distil/lrkd-seed13", "embed", "evaluate"]
    assert not np.allclose(np.load(run.path / "embed" / "targets.npy"), targets)

    before = marks(run.path)
    weights = models / "backbone" / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    manylens.run(own.recipe(), folder=run.path)
    assert ran(run.path, before) == ["distil", "distil/bert-seed13", "distil/lrkd-seed13", "evaluate"]


def test_a_failing_stage_leaves_no_mark_and_the_stages_before_it_stand(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    judgements = shop.folder / "judgements.jsonl"
    whole = judgements.read_text()
    judgements.write_text("".join(line for line in whole.splitlines(True) if '"label": "exact"' in line))
    recipe = {**shop.recipe(), "judge": {"perspectives": ["business_rules"]}}
    judgements.write_text(judgements.read_text().replace('"label": "exact"', '"label": "irrelevant"'))
    with pytest.raises(manylens.ManylensError, match="nothing to distil"):
        manylens.run(recipe, folder=tmp_path / "run")
    assert sorted(marks(tmp_path / "run")) == ["curate", "data", "judge"]
    judgements.write_text(whole)
    manylens.run(recipe, folder=tmp_path / "run", until="embed")
    assert sorted(marks(tmp_path / "run")) == ["curate", "data", "embed", "judge"]


def test_checkpoints_of_another_recipe_are_not_taken_up(shop: TinyShop, copy: Path) -> None:
    student = copy / "distil" / "lrkd-seed13"
    for started in ("another recipe", None):
        before = marks(copy)
        (student / "done.json").unlink()
        (copy / "distil" / "done.json").unlink()
        stray = student / "checkpoints" / "checkpoint-9999" / "trainer_state.json"
        stray.parent.mkdir(parents=True)
        stray.write_text('{"global_step": 9999}')
        if started is None:
            (student / "started").unlink()  # As after a kill -9 while the folder was being removed.
        else:
            (student / "started").write_text(started)
        manylens.run(shop.recipe(), folder=copy)
        assert ran(copy, before) == ["distil", "distil/lrkd-seed13", "evaluate"]
        assert json.loads((student / "training.json").read_text())["steps"] == 12


def test_an_edit_after_data_was_read_does_not_pass_for_trained(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    run = manylens.run(shop.recipe(), folder=tmp_path / "run", until="embed")
    distil = next(stage for stage in STAGES if stage.name == "distil")
    with run.running(distil.name, fingerprints(run.config)[distil.name]) as folder:
        shop.pairs.write_text(shop.pairs.read_text().replace("Orvel", "Korbento"))
        distil.run(run, folder)
    before = marks(run.path)
    manylens.run(shop.recipe(), folder=run.path)
    assert {"distil/bert-seed13", "distil/lrkd-seed13"} <= set(ran(run.path, before))


def test_run_takes_a_mapping_a_file_and_a_config(shop: TinyShop, copy: Path, tmp_path: Path) -> None:
    before = marks(copy)
    config = load_config(shop.recipe())
    assert isinstance(manylens.run(config, folder=copy).config, Config)
    manylens.run(copy / "config.yaml", folder=copy)
    assert ran(copy, before) == []


def test_the_default_place_is_runs_name(shop: TinyShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert manylens.run(shop.recipe(), until="data").path == Path("runs/tiny")
    assert (tmp_path / "runs" / "tiny" / "data" / "pairs.parquet").is_file()


def test_a_mistake_is_found_before_the_run_folder_is_made(shop: TinyShop, tmp_path: Path) -> None:
    recipe = {**shop.recipe(), "teacher": {"path": str(tmp_path / "absent.jsonl")}}
    with pytest.raises(BadRowError, match=r"absent\.jsonl"):
        manylens.run(recipe, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bad_row_stops_data_and_names_itself(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    with shop.pairs.open("a", newline="") as stream:
        csv.writer(stream).writerow(["q9", "p9", "a query", "a title", "", "us", "perfect", "train"])
    with pytest.raises(BadRowError, match=r"pairs\.csv, row 21, field 'label'"):
        manylens.run(shop.recipe(), folder=tmp_path / "run")
    run = manylens.run(shop.recipe(), ["data.on_bad_row=skip"], folder=tmp_path / "run", until="data")
    assert len((run.path / "data" / "skipped.jsonl").read_text().splitlines()) == 1


def test_pairs_without_a_run_are_loaded_for_this_once(shop: TinyShop, tmp_path: Path) -> None:
    config = load_config({**shop.recipe(), "teacher": {"path": "not there yet"}})
    pairs = load_or_read_pairs(config, tmp_path / "run")
    assert pairs.get("q0:p0-e").title == "red mug"
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="did you mean 'q0:p0-"):
        pairs.get("q0:p0-x")


def test_a_stage_that_the_recipe_leaves_out_is_no_stage_of_it(shop: TinyShop, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="this recipe leaves out stage 'tune'; its stages: data, judge, curate, embed"):
        manylens.run(shop.recipe(), folder=tmp_path / "run", until="tune")
    assert list(fingerprints(load_config(shop.recipe()))) == NAMES
    rationalized = load_config(shop.recipe(), ["annotate.rationalize=true"])
    assert list(fingerprints(rationalized)) == [*NAMES[:3], "annotate", *NAMES[3:]]


def test_what_is_operational_makes_no_stage_run_again(shop: TinyShop) -> None:
    wanted = fingerprints(load_config(shop.recipe()))
    assert fingerprints(load_config(shop.recipe(), ["judge.budget=5Mtok", "judge.store=elsewhere.sqlite"])) == wanted
    assert fingerprints(load_config(shop.recipe(), ["judge.samples=2"]))["judge"] != wanted["judge"]


def test_rationalised_pairs_are_distilled_too(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    judgements = shop.folder / "judgements.jsonl"
    kept, missed = [], {"query_id": "q0", "product_id": "p0-e"}
    for line in judgements.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        # All judgements of one train pair are wrong, so that there is nothing consistent to distil of it.
        kept.append(json.dumps({**row, "label": "irrelevant"} if missed.items() <= row.items() else row))
    rationalised = {**missed, "perspective": "rationalize", "rationale": "It is the red mug.", "label": "exact"}
    judgements.write_text("\n".join([*kept, json.dumps(rationalised)]) + "\n", encoding="utf-8")
    run = manylens.run(shop.recipe(), ["annotate.rationalize=true"], folder=tmp_path / "run", until="embed")
    table = pq.read_table(run.path / "annotate" / "rationales.parquet").to_pylist()
    added = [row for row in table if row["rationalized"]]
    assert [(row["pair_id"], row["label"], row["consistent"]) for row in added] == [("q0:p0-e", "exact", True)]
    assert Targets.load(run.path / "embed").mask.sum() == 16
    plain = manylens.run(shop.recipe(), folder=tmp_path / "plain", until="embed")
    assert Targets.load(plain.path / "embed").mask.sum() == 15


def test_a_spent_budget_keeps_every_answer_and_more_of_it_goes_on(models: Path, tmp_path: Path) -> None:
    shop = TinyShop.make(tmp_path / "shop", models, queries=5)
    with pytest.raises(BudgetError, match="Every answer is kept"):
        manylens.run(shop.recipe(), ["judge.budget=20ktok"], folder=tmp_path / "run", until="judge")
    with JudgementStore(tmp_path / "run" / "judge" / "judgements.sqlite") as store:
        kept = len(store)
    assert 0 < kept < 48
    manylens.run(shop.recipe(), ["judge.budget=1Mtok"], folder=tmp_path / "run", until="judge")
    assert (report(tmp_path / "run")["reused"], report(tmp_path / "run")["asked"]) == (kept, 48 - kept)


def test_recipes_that_share_a_store_pay_once(shop: TinyShop, tmp_path: Path) -> None:
    shared = [f"judge.store={tmp_path / 'shared' / 'judgements.sqlite'}"]
    manylens.run(shop.recipe(), shared, folder=tmp_path / "first", until="judge")
    manylens.run(shop.recipe(), [*shared, "curate.filter=none"], folder=tmp_path / "second", until="curate")
    assert report(tmp_path / "second")["asked"] == 0


def with_export(shop: TinyShop, **export: object) -> dict[str, Any]:
    return {**shop.recipe(), "export": {"variants": ["onnx_fp32"], **export}}


@pytest.fixture
def exported_copy(exported_run: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_run.path, tmp_path / "exported"))


def test_a_section_export_adds_a_stage_and_runs_none_before_it(finished: RunFolder, exported_run: RunFolder) -> None:
    assert ran(exported_run.path, marks(finished.path)) == ["export"]
    written = {
        path.relative_to(exported_run.path / "export").as_posix() for path in exported_run.path.rglob("export/**/*")
    }
    heads = {
        f"{head}/{name}"
        for head in ("classes", "ranking")
        for name in ("manylens.json", "onnx/model.onnx", "config.json")
    }
    assert heads | {"parity.json", "done.json"} <= written and "unfinished" not in written
    parity = json.loads((exported_run.path / "export" / "parity.json").read_text())
    assert (parity["model"], parity["pairs"], list(parity["variants"])) == ("lrkd-seed13", 16, ["onnx_fp32"])
    evaluation = json.loads((exported_run.path / "evaluate" / "lrkd-seed13" / "evaluation.json").read_text())
    assert parity["temperature"] == evaluation["temperature"]
    assert parity["macro_f1"] == pytest.approx(evaluation["dev"]["macro_f1"])
    # Calibrated probabilities have the same best label, and may have another order of expected gains.
    table = pq.read_table(exported_run.path / "evaluate" / "lrkd-seed13" / "predictions.parquet")
    dev = Predictions.from_table(table.filter(pc.equal(table["split"], "dev")), ESCI)
    calibrated = replace(dev, logits=dev.logits / parity["temperature"])
    ndcg, _ = rank_queries(calibrated, ESCI, parity["ndcg_cutoff"])
    assert parity["ndcg"] == pytest.approx(ndcg.mean())


def test_an_export_is_skipped_the_second_time(
    shop: TinyShop, exported_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = marks(exported_copy)
    manylens.run(with_export(shop), folder=exported_copy)
    pipeline.export(exported_copy)
    assert ran(exported_copy, before) == []
    assert capfd.readouterr().err.count("current, skipped") == len(NAMES) + 1 + 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("export.fp32.labels=0.9", ["export"]),
        ("evaluate.bootstrap_samples=150", ["evaluate", "export"]),
        ("student.extractor=poly", ["distil", "distil/lrkd-seed13", "evaluate", "export"]),
    ],
)
def test_an_export_runs_again_with_its_section_and_what_it_is_made_of(
    shop: TinyShop, exported_copy: Path, override: str, expected: list[str]
) -> None:
    before = marks(exported_copy)
    manylens.run(with_export(shop), [override], folder=exported_copy)
    assert ran(exported_copy, before) == expected


def test_an_export_of_an_earlier_student_is_not_served(shop: TinyShop, exported_copy: Path) -> None:
    manylens.run(shop.recipe(), ["evaluate.bootstrap_samples=150"], folder=exported_copy)  # No section export any more.
    with pytest.raises(StudentError, match="its export is of an earlier student; export it again: manylens export"):
        Scorer.load(exported_copy)


def test_a_finished_run_is_exported_without_its_input_files(finished: RunFolder, copy: Path) -> None:
    recipe = copy / "config.yaml"
    recipe.write_text(recipe.read_text().replace(finished.config.data.path, "absent.csv"))  # type: ignore[union-attr]
    before = marks(copy)
    run = pipeline.export(copy, ["export.variants=[onnx_fp32]", "export.calibration_pairs=8"])
    assert ran(copy, before) == ["export"]
    kept = RunFolder.open(copy).config.export
    assert (
        kept is not None
        and kept == run.config.export
        and (kept.variants, kept.calibration_pairs) == (("onnx_fp32",), 8)
    )
    run.require("evaluate")
    run.require("export")
    pipeline.export(copy)  # The section is the run's own now.
    pipeline.export(copy, ["export.calibration_pairs=9"])
    assert RunFolder.open(copy).config.export == kept.model_copy(update={"calibration_pairs": 9})


def test_an_exported_run_goes_on_as_a_recipe(finished: RunFolder, copy: Path) -> None:
    pipeline.export(copy, ["export.variants=[onnx_fp32]"])
    before = marks(copy)
    manylens.run(copy / "config.yaml", folder=copy)
    assert ran(copy, before) == []


def test_a_failed_gate_leaves_figures_no_heads_and_no_mark(shop: TinyShop, exported_copy: Path) -> None:
    strict = ["export.fp32.logit_max=1e-30", "export.fp32.logit_mean=null"]
    with pytest.raises(
        StudentError, match=r"lrkd-seed13 is too far .* onnx_fp32: logit_max is .*, at most 1e-30 is allowed"
    ):
        pipeline.export(exported_copy, strict)
    export = exported_copy / "export"
    assert [path.name for path in export.iterdir()] == ["parity.json"]
    (problem,) = json.loads((export / "parity.json").read_text())["variants"]["onnx_fp32"]["problems"]
    assert problem.startswith("logit_max")
    with pytest.raises(StageError, match="stage export is to do"):
        RunFolder.open(exported_copy).require("export")
    manylens.run(with_export(shop), folder=exported_copy)
    assert (export / "classes" / "onnx" / "model.onnx").is_file() and (export / "done.json").is_file()


def test_what_an_export_refuses_changes_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config_and_marks() -> tuple[str, dict[str, int]]:
        return (copy / "config.yaml").read_text(), marks(copy)

    before = config_and_marks()
    with pytest.raises(
        ConfigError, match=r"settings of its own section alone.*got student\.extractor=gat; for another"
    ):
        pipeline.export(copy, ["export.calibration_pairs=9", "student.extractor=gat"])
    with pytest.raises(ConfigError, match=r"unknown key export\.variant.*did you mean 'variants'"):
        pipeline.export(copy, ["export.variant=[onnx_fp32]"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; run: pip install 'manylens\[openvino\]'"):
        pipeline.export(copy, ["export.variants=[onnx_fp32, openvino_bf16]"])
    assert config_and_marks() == before
    (copy / "evaluate" / "done.json").unlink()
    with pytest.raises(StageError, match="stage evaluate is to do; run its recipe again"):
        pipeline.export(copy)
    with pytest.raises(StageError, match="is not a run folder"):
        pipeline.export(copy / "distil")


def test_a_recipe_without_the_section_leaves_export_out(shop: TinyShop, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="this recipe leaves out stage 'export'; its stages: data, judge"):
        manylens.run(shop.recipe(), folder=tmp_path / "run", until="export")
    assert list(fingerprints(load_config(with_export(shop)))) == [*NAMES, "export"]
