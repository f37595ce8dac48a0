from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from transformers import AutoModel

import manylens
from manylens.run_folder import RunFolder
from manylens.serving.states import StateStore
from manylens.student.split import LowerProduct
from tiny import TinyShop

from .test_runs import assert_one_line

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def split(shop: TinyShop, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run up to its student, a plain BERT of two layers, the first of them split."""
    options = {"backbone_options": {"num_hidden_layers": 2}, "split_layers": 1}
    tree = shop.recipe(method="bert", baselines=[], **options)
    return manylens.run(tree, folder=tmp_path_factory.mktemp("runs") / "split", until="distil")


def test_precompute_stores_every_product_once(cli: Cli, split: RunFolder, shop: TinyShop, tmp_path: Path) -> None:
    done = cli("precompute", split.path, shop.pairs, "--out", "store")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "80 products computed, 80 in the store ─► store")
    again = cli("precompute", split.model, shop.pairs, "-o", "store")
    assert again.stdout.splitlines()[0] == "0 products computed, 80 in the store ─► store"

    student = manylens.Student.load(split.model, device="cpu")
    encoded = student.encoder.encode_products(["red mug | Orvel"])
    ids, mask = (torch.tensor(encoded[name]) for name in ("input_ids", "attention_mask"))
    expected = LowerProduct(student.model)(ids, mask).detach().numpy()
    with StateStore.open(tmp_path / "store") as store:
        states, lengths = store.get(["p0-e"], "es")
        assert lengths.tolist() == [ids.shape[1]]
        np.testing.assert_allclose(states, expected, atol=2e-3)
        assert done.stdout.splitlines()[1] == f"{store.bytes_per_product:,.0f} bytes a product"
    small = cli("precompute", split.path, shop.pairs, "--out", "small", "--precision", "int8")
    assert small.exit_code == 0
    assert json.loads((tmp_path / "small" / "store.json").read_text())["precision"] == "int8"
    assert (tmp_path / "small/states.bin").stat().st_size < 0.6 * (tmp_path / "store/states.bin").stat().st_size


def test_columns_are_mapped(cli: Cli, split: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text("sku,name\n7,red mug\n8,blue lamp\n")
    columns = ("--column", "product_id=sku", "--column", "title=name")
    done = cli("precompute", split.path, "catalogue.csv", "-o", "store", *columns)
    assert done.stdout.startswith("2 products computed, 2 in the store"), done.output


def test_precompute_tells_what_is_wrong(
    cli: Cli, split: RunFolder, finished: RunFolder, shop: TinyShop, tmp_path: Path
) -> None:
    assert_one_line(cli("precompute", finished.path, shop.pairs, "-o", "store"), "train one with student.split_layers")
    assert_one_line(cli("precompute", tmp_path / "absent", shop.pairs, "-o", "store"), "student", "absent")
    assert_one_line(cli("precompute", split.path, "absent.csv", "-o", "store"), "absent.csv")
    unknown = cli("precompute", split.path, shop.pairs, "-o", "store", "--precision", "int4")
    assert_one_line(unknown, "unknown precision 'int4'", "fp16, int8")
    cli("precompute", split.path, shop.pairs, "-o", "other")
    refused = cli("precompute", split.path, shop.pairs, "-o", "other", "--precision", "int8")
    assert_one_line(refused, "is a store of another precision; write to another folder")


def test_the_backbone_has_two_layers(split: RunFolder, shop: TinyShop) -> None:
    assert AutoModel.from_pretrained(shop.models / "backbone").config.num_hidden_layers == 1
    assert manylens.Student.load(split.model).model.config.split_layers == 1
