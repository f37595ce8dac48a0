"""Every packaged recipe loads, passes the checks, and its data are read as its comments say."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.data import Pairs, load_pairs
from manylens.preflight import check
from manylens.recipe import load_config, recipe_path
from manylens.records import ESCI
from manylens.study.catalogue import STUDIES
from manylens.teacher import PERSPECTIVES

PACKAGED = sorted(file.stem for file in recipe_path("demo").parent.glob("*.yaml"))
QUERIES = 60
REAL_ESCI = Path(__file__).parents[2] / "shared/data/esci_us_150"

#: Makes what a recipe needs and this machine lacks, and returns the overrides that point to it.
StandIn = Callable[[Path], list[str]]


def demo(folder: Path) -> list[str]:
    return []


def esci_us_150(folder: Path) -> list[str]:
    _esci_layout(folder)
    _judgements(folder / "judgements.jsonl", [(f"{query}", f"B{query}") for query in range(QUERIES)], "exact")
    return [f"data.path={folder}"]


def esci(folder: Path) -> list[str]:
    # Its models are downloads; the embedded one stands in for both.
    models = ["embed.encoder=minilm", "student.backbone=minilm"]
    return [*esci_us_150(folder), f"teacher.path={folder / 'judgements.jsonl'}", *models]


def own_data(folder: Path) -> list[str]:
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["query", "title", "label", "colour"])
        labels = ("relevant", "Partial", "0", "2")  # Names and aliases of the recipe's scale.
        writer.writerows([f"mug {number // 2}", f"A mug {number}", labels[number % 4], "red"] for number in range(40))
    _judgements(folder / "answers.jsonl", [("q1", "p1")], "relevant")
    return [f"data.path={folder / 'pairs.csv'}", f"teacher.path={folder / 'answers.jsonl'}"]


def world(folder: Path) -> list[str]:
    return ["data.pairs=200"]


STAND_INS: dict[str, StandIn] = {
    "demo": demo,
    "esci_us_150": esci_us_150,
    "esci": esci,
    "own_data": own_data,
    "world": world,
}


def _judgements(path: Path, pairs: list[tuple[str, str]], label: str) -> None:
    rows = [
        {"query_id": query, "product_id": product, "perspective": name, "sample": 0, "rationale": "So.", "label": label}
        for query, product in pairs
        for name in PERSPECTIVES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _esci_layout(folder: Path) -> None:
    """Write `QUERIES` queries of a pair each in the dataset's original files."""
    examples = [
        {
            "example_id": number,
            "query": f"query {number}",
            "query_id": number,
            "product_id": f"B{number}",
            "product_locale": "us",
            "esci_label": "ESCI"[number % 4],
            "small_version": 1,
            "large_version": 1,
            "split": "test" if number % 5 == 4 else "train",
        }
        for number in range(QUERIES)
    ]
    products = [
        {
            "product_id": f"B{number}",
            "product_title": f"Product {number}",
            "product_description": None,
            "product_bullet_point": "Point one.",
            "product_brand": "Orvel",
            "product_color": "red",
            "product_locale": "us",
        }
        for number in range(QUERIES)
    ]
    for name, rows in (("examples", examples), ("products", products)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"shopping_queries_dataset_{name}.parquet")


def test_every_packaged_recipe_has_its_stand_in() -> None:
    assert sorted(STAND_INS) == PACKAGED


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_recipe_passes_the_checks_and_its_data_load(name: str, tmp_path: Path) -> None:
    config = load_config(name, STAND_INS[name](tmp_path))
    assert config.name == name
    check(config)
    report = load_pairs(config.data, config.labels.build(), tmp_path / "data")
    pairs = Pairs.read(tmp_path / "data" / "pairs.parquet")
    assert len(pairs) == report.rows_read and all(report.queries[split] for split in ("train", "dev", "test"))


def test_the_full_recipe_is_the_papers_set_up() -> None:
    config = load_config("esci")
    assert config.data.model_dump()["version"] == "large" and config.data.model_dump()["locales"] == ("us", "es", "jp")
    assert config.embed.encoder == "BAAI/bge-m3"
    student = config.student
    assert student.backbone == "google-bert/bert-base-multilingual-cased"
    assert (student.method, student.extractor, student.max_length) == ("lrkd", "gat", 128)
    assert student.guide.weight == 0.1


def test_the_demo_trains_a_plain_bert_beside_lrkd() -> None:
    student = load_config("demo").student
    assert (student.method, student.baselines) == ("lrkd", ("bert",))


def test_every_method_of_the_paper_is_a_recipe_that_trains_the_student_of_the_study() -> None:
    arms = {arm.name: arm for arm in STUDIES["methods"].arms}
    assert {file.stem for file in (recipe_path("demo").parent / "students").glob("*.yaml")} == set(arms)
    for name, arm in arms.items():
        student = load_config(f"students/{name}").student
        wanted = load_config("demo", [*arm.overrides, f"student.method={arm.method}", "student.baselines=[]"]).student
        assert student == wanted


@pytest.mark.skipif(not REAL_ESCI.is_dir(), reason="the real ESCI excerpt does not lie beside the repository")
def test_the_real_excerpt_passes_the_checks_of_its_recipe() -> None:
    check(load_config("esci_us_150", [f"data.path={REAL_ESCI}"]))


@pytest.mark.slow
@pytest.mark.skipif(not REAL_ESCI.is_dir(), reason="the real ESCI excerpt does not lie beside the repository")
def test_real_pairs_with_human_labels_run_from_end_to_end(tmp_path: Path) -> None:
    """One epoch of one student, so that the recipe is seen to work; it says nothing of its quality."""
    command = [str(Path(sys.executable).with_name("manylens")), "run", "esci_us_150", "--run", str(tmp_path / "run")]
    short = ("embed.verdict_tuning.epochs=0.2", "student.training.num_train_epochs=1", "student.baselines=[]")
    for override in (f"data.path={REAL_ESCI}", *short):
        command += ["--set", override]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for label in ESCI.names:
        assert re.search(rf"^ *{label} +\d+( +[01]\.\d+){{3}}", done.stdout, flags=re.MULTILINE), done.stdout
    assert re.search(r"^ *user_intent +0\.\d+", done.stdout, flags=re.MULTILINE)
