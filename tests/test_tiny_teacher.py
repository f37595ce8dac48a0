"""The tiny teacher's world by hand, and the study of benchmarks/tiny_teacher on one seed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.

from benchmarks.tiny_teacher.catalogue import (  # noqa: E402
    LOOKS_AT,
    Finding,
    Listing,
    Rates,
    Relation,
    make_listings,
    verdict,
    write_rationale,
)


def finding(facet: str, *, holds: bool, relation: Relation = "same") -> Finding:
    return Finding(facet=facet, asked="red", found="Blue", holds=holds, relation=relation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("findings", "label"),
    [
        ([finding("type", holds=True)], "exact"),
        ([finding("type", holds=True), finding("colour", holds=False)], "substitute"),
        ([finding("type", holds=True), finding("part", holds=False), finding("colour", holds=False)], "irrelevant"),
        ([finding("type", holds=False)], "irrelevant"),
        ([finding("type", holds=False), finding("use", holds=True, relation="similar")], "substitute"),
        ([finding("type", holds=False), finding("use", holds=False, relation="accessory")], "complement"),
        ([finding("type", holds=False), finding("use", holds=False, relation="other")], "irrelevant"),
    ],
)
def test_the_label_follows_from_what_is_stated(findings: list[Finding], label: str) -> None:
    assert verdict(findings) == label


def test_a_rationale_that_states_everything_is_right_and_one_of_its_own_view_is_not_always() -> None:
    listings = make_listings(1, 200)
    everything, own_view = Rates(stated=1.0, strayed=1.0, noise=0.0), Rates(stated=1.0, strayed=0.0, noise=0.0)
    for perspective in LOOKS_AT:
        assert share_right(listings, perspective, everything) == 1.0
        assert 0.4 < share_right(listings, perspective, own_view) < 0.9


def test_every_broken_wish_is_seen_from_some_perspective() -> None:
    rates = Rates(stated=1.0, strayed=0.0, noise=0.0)
    for listing in make_listings(1, 200):
        labels = {write_rationale(random.Random(0), listing.findings, name, rates)[1] for name in LOOKS_AT}
        assert listing.pair.label in labels


def test_queries_are_never_drawn_twice() -> None:
    taken: set[str] = set()
    train = {listing.pair.query for listing in make_listings(0, 100, taken=taken)}
    test = {listing.pair.query for listing in make_listings(0, 100, split="test", taken=taken)}
    assert len(train) == len(test) == 100 and not train & test


def share_right(listings: list[Listing], perspective: str, rates: Rates) -> float:
    rng = random.Random(0)
    right = [write_rationale(rng, each.findings, perspective, rates)[1] == each.pair.label for each in listings]
    return sum(right) / len(right)


@pytest.mark.slow
def test_tuning_teaches_a_teacher_more_than_it_was_taught(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.tiny_teacher.study", str(tmp_path), "--seeds", "1", "--pooled-only"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    names = ("base", "SFT, pooled", "SFT, pooled, then DPO across")
    base, sft, dpo = (found["test, likeliest answers"]["teachers"][name]["accuracy"] for name in names)
    assert base + 0.05 < sft and base + 0.05 < dpo
    # DPO does not beat SFT on every seed, this one included, and docs/evidence.md says so.
    sampled = found["test, sampled answers"]["differences"]["SFT, pooled - base"]
    assert sampled["low"] > 0
