from __future__ import annotations

import numpy as np
import pytest

from manylens.errors import StudentError
from manylens.records import ESCI
from manylens.student.targets import Targets, build_targets, mean_squared_norm
from manylens.student.targets.sources import Source
from manylens.student.targets.transform import Transform

from .build import PERSPECTIVES, TableEncoder, hashed, pairs_of, rationale

VECTORS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [3.0, 5.0], "a\nb": [7.0, 7.0], "c\nb": [8.0, 0.0]}
#: p1 has one rationale of each perspective, p2 two samples of rules, the first of which p1 has too.
RATIONALES = [
    rationale("p1", "rules", "b"),
    rationale("p1", "intent", "a"),
    rationale("p2", "rules", "b"),
    rationale("p2", "rules", "c"),
]
#: Five train pairs and three dev pairs, most of which have both perspectives.
MANY = [
    rationale(pair_id, perspective, f"{pair_id} by {perspective}", ESCI.names[number % 4])
    for number, pair_id in enumerate(("t0", "t1", "t2", "t3", "t4", "d0", "d1", "d2"))
    for perspective in PERSPECTIVES
    if (pair_id, perspective) != ("t2", "rules")
]
MANY_PAIRS = {
    pair.pair_id: pair
    for one in MANY
    for pair in pairs_of(one.pair_id, label=one.label, query=f"q {one.pair_id}").values()
}


def build(rationales: list, **options: object) -> Targets:
    pairs = pairs_of(*{one.pair_id for one in rationales})
    return build_targets(rationales, pairs, TableEncoder(**VECTORS), ESCI, perspectives=PERSPECTIVES, **options)


def build_many(**options: object) -> Targets:
    return build_targets(MANY, MANY_PAIRS, hashed, ESCI, perspectives=PERSPECTIVES, **options)


def test_mean_of_all_rationales_of_a_pair() -> None:
    targets = build(RATIONALES)
    assert (targets.pair_ids, targets.names, targets.dim) == (("p1", "p2"), ("rationale",), 2)
    assert targets.vectors.tolist() == [[[0.5, 0.5]], [[1.5, 3.0]]]
    assert targets.mask.tolist() == [[True], [True]]
    assert targets.texts == ("a\nb", "b\nc")


def test_one_target_per_perspective_is_the_mean_over_its_samples() -> None:
    targets = build(RATIONALES, combine="per_perspective")
    assert targets.names == PERSPECTIVES
    assert targets.vectors.tolist() == [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.5, 3.0]]]
    assert targets.mask.tolist() == [[True, True], [False, True]]


def test_concatenated_text_goes_in_the_order_of_the_perspectives() -> None:
    targets = build([*RATIONALES[:2], *RATIONALES[:1:-1]], combine="concat_text")
    assert targets.vectors.tolist() == [[[7.0, 7.0]], [[8.0, 0.0]]]
    assert targets.texts == ("a\nb", "c\nb")


def test_the_order_of_the_rationales_of_a_pair_does_not_matter() -> None:
    forwards, backwards = (build(order, combine="concat_text") for order in (RATIONALES[:2], RATIONALES[1::-1]))
    np.testing.assert_array_equal(forwards.vectors, backwards.vectors)


def test_every_judgement_of_the_teachers_own_votes_and_only_what_is_kept_guides() -> None:
    targets = build(
        [
            rationale("p1", "intent", "a", "exact"),
            rationale("p1", "rules", "b", "substitute", kept=False),
            rationale("p1", "rules", "c", "irrelevant", kept=False),
            rationale("p1", "intent", "b", "exact"),
            rationale("p2", "rules", "b", "irrelevant", kept=False),
            rationale("p3", "intent", "a", "complement", votes=False),
        ]
    )
    assert targets.pair_ids == ("p1", "p2", "p3")
    assert targets.votes.tolist() == [[0.5, 0.25, 0.0, 0.25], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert targets.votes.dtype == np.float32
    assert targets.mask[:, 0].tolist() == [True, False, True]
    assert targets.vectors[:, 0].tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]
    assert targets.texts == ("a\nb", "", "a")


def test_nothing_to_distil_is_an_error() -> None:
    for nothing in ([], [rationale("p1", "intent", "a", kept=False)]):
        with pytest.raises(StudentError, match=r"no rationale passed the filter"):
            build(nothing)


def test_the_label_stands_in_front_of_a_labelled_rationale() -> None:
    rationales = [rationale("t1", "intent", "x", "substitute"), rationale("t2", "intent", "x", "irrelevant")]
    pairs = pairs_of("t1") | pairs_of("t2", label=None)
    targets = build_targets(
        rationales, pairs, hashed, ESCI, perspectives=PERSPECTIVES, source="labelled_rationale", combine="concat_text"
    )
    # The gold label of t1 is exact, whatever the teacher says; t2 has only the teacher's word.
    assert targets.texts == ("exact. x", "irrelevant. x")
    np.testing.assert_array_equal(targets.vectors[:, 0], hashed(targets.texts))


@pytest.mark.parametrize("combine", ["mean", "per_perspective", "concat_text"])
@pytest.mark.parametrize("transform", ["none", "centre", "whiten", "residual"])
@pytest.mark.parametrize("source", ["shuffled", "label", "pair", "random"])
def test_a_control_has_the_mask_the_shape_and_the_scale_of_the_rationales(
    source: Source, transform: Transform, combine: str
) -> None:
    real = build_many(combine=combine, transform=transform)
    control = build_many(combine=combine, transform=transform, source=source)
    train = np.array([pair_id.startswith("t") for pair_id in real.pair_ids])
    assert (control.pair_ids, control.names) == (real.pair_ids, real.names)
    np.testing.assert_array_equal(control.mask, real.mask)
    np.testing.assert_array_equal(control.votes, real.votes)
    assert not control.vectors[~control.mask].any()
    assert not np.allclose(control.vectors, real.vectors)
    norms = [mean_squared_norm(targets.vectors, targets.mask, train) for targets in (control, real)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


@pytest.mark.parametrize("combine", ["mean", "per_perspective", "concat_text"])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_rationales_are_those_of_another_pair_of_the_split(combine: str, seed: int) -> None:
    real = build_many(combine=combine)
    shuffled = build_many(combine=combine, source="shuffled", seed=seed)
    for split in "td":
        rows = [row for row, pair_id in enumerate(real.pair_ids) if pair_id.startswith(split)]
        for latent in range(len(real.names)):
            there = [row for row in rows if real.mask[row, latent]]
            before, after = real.vectors[there, latent], shuffled.vectors[there, latent]
            np.testing.assert_allclose(before[np.lexsort(before.T)], after[np.lexsort(after.T)], rtol=1e-6)
            assert not np.isclose(before, after).all(axis=1).any()
    if combine != "per_perspective":  # There the texts of a pair may come from several.
        assert sorted(shuffled.texts) == sorted(real.texts)


def test_two_seeds_shuffle_differently_and_one_seed_alike() -> None:
    first, again, other = (build_many(source="shuffled", seed=seed).texts for seed in (1, 1, 2))
    assert first == again != other


def test_a_single_pair_cannot_be_shuffled() -> None:
    with pytest.raises(StudentError, match=r"at least two pairs with a rationale in split 'train', got one"):
        build([rationale("t1", "intent", "a")], source="shuffled")


def test_the_label_and_the_pair_say_what_they_should() -> None:
    label, pair = build_many(source="label"), build_many(source="pair")
    assert label.texts[0] == "exact: the product satisfies every specification of the query"
    assert (
        label.texts[1] == "substitute: the product misses some specification of the query but could serve in place "
        "of what was asked"
    )
    assert pair.texts[:2] == ("q t0\ntitle t0", "q t1\ntitle t1")
    # One text a pair, so its vector is the text's own, times what gives all the scale of the rationales.
    ratio = pair.vectors[:, 0] / hashed(pair.texts)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_a_control_that_says_nothing_stays_zero() -> None:
    pairs = {pair_id: pair for one in MANY for pair_id, pair in pairs_of(one.pair_id).items()}
    options = {"perspectives": PERSPECTIVES, "source": "label", "transform": "centre"}
    targets = build_targets(MANY, pairs, hashed, ESCI, **options)  # All are exact, and centred on their mean.
    np.testing.assert_allclose(targets.vectors, 0.0, atol=1e-5)


def test_a_random_target_belongs_to_the_pair_and_not_to_its_place() -> None:
    options = {"perspectives": PERSPECTIVES, "source": "random", "seed": 4}
    forwards, backwards = (
        build_targets(rationales, MANY_PAIRS, hashed, ESCI, **options) for rationales in (MANY, MANY[::-1])
    )
    np.testing.assert_allclose(forwards.vectors, backwards.vectors[::-1], rtol=1e-6)
    assert set(forwards.texts) == {""}
    assert not np.allclose(build_many(source="random", seed=5).vectors, forwards.vectors)


def test_a_text_is_embedded_once() -> None:
    encoder = TableEncoder(**VECTORS)
    build_targets(RATIONALES, pairs_of("p1", "p2"), encoder, ESCI, perspectives=PERSPECTIVES)
    assert sorted(encoder.asked) == ["a", "b", "c"]
