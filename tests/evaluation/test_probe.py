import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from manylens.errors import DataError
from manylens.evaluation.probe import _fit_and_predict, _Reader, _ridge, _thresholds, probe
from manylens.evaluation.resampling import paired_difference

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(60, 12)) * RANDOM.uniform(0.1, 9.0, size=12)
WORDS = (VECTORS @ RANDOM.normal(size=(12, 7)) + RANDOM.normal(size=(60, 7))) > 1.0
QUERIES = [index // 4 for index in range(60)]


def test_leave_one_out_is_what_leaving_each_pair_out_gives() -> None:
    reader = _Reader(VECTORS[:40], None)
    scaled = StandardScaler().fit(VECTORS[:40])
    train, unseen = scaled.transform(VECTORS[:40]), scaled.transform(VECTORS[40:])
    wanted = WORDS[:40].astype(float)
    left_out, at_unseen = _ridge(reader, wanted, 3.0, reader.read(VECTORS[40:]))
    np.testing.assert_allclose(at_unseen, Ridge(alpha=3.0).fit(train, wanted).predict(unseen), atol=1e-8)
    for index in range(40):
        others = np.arange(40) != index
        model = Ridge(alpha=3.0).fit(train[others], wanted[others])
        np.testing.assert_allclose(left_out[index], model.predict(train[[index]])[0], atol=1e-8)


def test_the_threshold_has_the_best_f1() -> None:
    scores, wanted = RANDOM.normal(size=(30, 5)), (RANDOM.uniform(size=(30, 5)) > 0.7).astype(float)
    wanted[:, 4] = 0.0
    thresholds = _thresholds(scores, wanted)
    assert thresholds[4] == np.inf
    for word in range(4):
        best = max(f1_score(wanted[:, word], scores[:, word] >= score) for score in scores[:, word])
        assert f1_score(wanted[:, word], scores[:, word] >= thresholds[word]) == pytest.approx(best)


def test_f1_is_that_of_the_pairs_of_unseen_queries() -> None:
    result = probe(VECTORS, WORDS, QUERIES, folds=3)
    found = np.zeros_like(WORDS)
    for train, test in GroupKFold(3).split(VECTORS, groups=QUERIES):
        found[test] = _fit_and_predict(_Reader(VECTORS[train], None), WORDS[train].astype(float), VECTORS[test])
    expected = f1_score(WORDS, found, average=None, zero_division=0.0)
    np.testing.assert_allclose(result.f1, expected)
    assert result.macro_f1.value == pytest.approx(expected.mean())
    assert result.macro_f1.interval[0] < result.macro_f1.value < result.macro_f1.interval[1]
    assert result.prior == pytest.approx(f1_score(WORDS, np.ones_like(WORDS), average="macro"))


def test_what_a_vector_knows_is_found_and_what_it_does_not_is_not() -> None:
    queries = [f"q{index // 5}" for index in range(400)]
    words = RANDOM.uniform(size=(400, 10)) < 0.2
    knows = np.hstack([words + 0.1 * RANDOM.normal(size=words.shape), 3.0 * RANDOM.normal(size=(400, 30))])
    knowing, ignorant = (probe(vectors, words, queries) for vectors in (knows, RANDOM.normal(size=(400, 40))))
    assert knowing.macro_f1.value > 0.95
    assert ignorant.macro_f1.value < ignorant.prior + 0.05
    assert paired_difference(knowing.macro_f1, ignorant.macro_f1).interval[0] > 0.5


def test_no_query_tells_about_itself() -> None:
    """A word that is the query's own, told by a vector that is the query's own: nothing to learn for others."""
    queries = np.repeat(np.arange(40), 5)
    words = (RANDOM.uniform(size=40) < 0.3)[queries][:, None]
    result = probe(RANDOM.normal(size=(40, 60))[queries], words, queries.tolist())
    assert result.macro_f1.value < result.prior + 0.1


def test_components_are_the_principal_ones_of_the_training_pairs() -> None:
    reader = _Reader(VECTORS[:40], 4)
    scaled = StandardScaler().fit(VECTORS[:40])
    pca = PCA(4).fit(scaled.transform(VECTORS[:40]))
    expected = pca.transform(scaled.transform(VECTORS[40:])) / pca.singular_values_
    np.testing.assert_allclose(np.abs(reader.read(VECTORS[40:])), np.abs(expected), atol=1e-8)
    assert (probe(VECTORS, WORDS, QUERIES, components=4).dim, probe(VECTORS, WORDS, QUERIES).dim) == (4, 12)


def test_lengths_and_folds_are_checked() -> None:
    with pytest.raises(DataError, match="got 60, 60 and 59"):
        probe(VECTORS, WORDS, QUERIES[1:])
    with pytest.raises(DataError, match="at least 16 queries, one a fold, got 15; lower folds"):
        probe(VECTORS, WORDS, QUERIES, folds=16)
