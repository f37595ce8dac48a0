from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from manylens.student.targets.transform import Transform, mean_squared_norm, transform_targets


def never() -> NoReturn:
    raise AssertionError("only residual needs the pairs' own vectors")


def single(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return targets of one latent, all there."""
    return rows[:, None].astype(np.float32), np.ones((len(rows), 1), dtype=bool)


def test_centring_takes_the_mean_of_the_training_pairs_alone() -> None:
    vectors, mask = single(np.array([[1.0, 0.0], [3.0, 5.0], [0.0, 1.0]]))
    centred = transform_targets(vectors, mask, np.array([True, True, False]), "centre", never)
    # The mean of (1, 0) and (3, 5) is (2, 2.5).
    assert centred[:, 0].tolist() == [[-1.0, -2.5], [1.0, 2.5], [-2.0, -1.5]]
    assert centred.dtype == np.float32


def test_centring_goes_by_latent_and_leaves_what_is_masked_at_zero() -> None:
    vectors = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.5, 3.0]]], dtype=np.float32)
    mask = np.array([[True, True], [False, True]])
    centred = transform_targets(vectors, mask, np.array([True, True]), "centre", never)
    # The first latent: only one pair, so its mean is itself. The second: the mean of (0, 1) and (1.5, 3) is (0.75, 2).
    assert centred.tolist() == [[[0.0, 0.0], [-0.75, -1.0]], [[0.0, 0.0], [0.75, 1.0]]]


def test_whitened_targets_have_unit_mean_squared_norm_and_the_geometry_of_the_precision_matrix() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 6)) * np.array([5.0, 3.0, 1.0, 1.0, 0.5, 0.1]) + 2.0
    vectors, mask = single(rows)
    train = np.arange(200) < 150
    white = transform_targets(vectors, mask, train, "whiten", never)[:, 0]
    fitted = LedoitWolf().fit(vectors[train, 0])
    centred = vectors[:, 0] - fitted.location_
    expected = centred @ fitted.precision_ @ centred.T
    expected /= np.diag(expected)[train].mean()
    np.testing.assert_allclose(white @ white.T, expected, rtol=1e-3, atol=1e-4)
    assert mean_squared_norm(white[:, None], mask, train) == pytest.approx(1.0, abs=1e-5)


def test_whitening_gives_equal_variance_in_every_direction() -> None:
    random = np.random.default_rng(0)
    vectors, mask = single(random.normal(size=(5000, 3)) * np.array([10.0, 3.0, 1.0]))
    white = transform_targets(vectors, mask, np.ones(5000, dtype=bool), "whiten", never)[:, 0]
    np.testing.assert_allclose(np.cov(white.T), np.eye(3) / 3, atol=0.01)


def test_the_residual_is_what_the_pairs_own_text_does_not_tell() -> None:
    random = np.random.default_rng(0)
    texts = random.normal(size=(300, 4)).astype(np.float32)
    unexplained = random.normal(size=(300, 2))
    vectors, mask = single(3.0 * texts @ random.normal(size=(4, 2)) + unexplained + 7.0)
    train = np.arange(300) < 200
    residual = transform_targets(vectors, mask, train, "residual", lambda: texts)[:, 0]
    plain = LinearRegression().fit(texts[train], vectors[train, 0])
    np.testing.assert_allclose(residual, vectors[:, 0] - plain.predict(texts), atol=0.02)
    assert abs(np.corrcoef(residual[~train].ravel(), unexplained[~train].ravel())[0, 1]) > 0.99


@pytest.mark.parametrize("how", ["none", "centre", "whiten", "residual"])
def test_equal_targets_and_a_latent_without_training_pairs_do_not_break(how: Transform) -> None:
    vectors = np.ones((4, 2, 3), dtype=np.float32)
    mask = np.array([[True, False], [True, False], [True, True], [False, True]])
    vectors[~mask] = 0.0
    train = np.array([True, True, False, False])
    texts = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    transformed = transform_targets(vectors, mask, train, how, lambda: texts)
    expected = 1.0 if how == "none" else 0.0
    np.testing.assert_allclose(transformed[:3, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(transformed[2:, 1], 1.0)
    assert not transformed[~mask].any()


def test_a_single_training_target_is_not_whitened_but_centred() -> None:
    vectors, mask = single(np.array([[1.0, 0.0], [3.0, 5.0]]))
    white = transform_targets(vectors, mask, np.array([True, False]), "whiten", never)
    assert white[:, 0].tolist() == [[0.0, 0.0], [2.0, 5.0]]


def test_the_mean_squared_norm_is_that_of_the_training_targets() -> None:
    vectors = np.array([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [2.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]], dtype=np.float32)
    mask = np.array([[True, True], [False, True], [True, True]])
    assert mean_squared_norm(vectors, mask, np.array([True, True, False])) == pytest.approx((25 + 1 + 4) / 3)
    assert mean_squared_norm(vectors, mask, np.zeros(3, dtype=bool)) == 0.0
