from __future__ import annotations

import numpy as np

from manylens.student.targets.sources import pair_text, random_vectors

from .build import pairs_of


def test_random_vectors_are_the_same_on_every_machine() -> None:
    (vector,) = random_vectors(["q1:p1:rationale"], 4, 13)
    np.testing.assert_allclose(vector, [0.5706389, 0.72394913, -0.32223815, -0.21547964], rtol=1e-6)


def test_random_vectors_have_unit_length_and_no_common_direction() -> None:
    vectors = random_vectors([str(number) for number in range(500)], 64, 1)
    assert (vectors.shape, vectors.dtype) == ((500, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    # The mean of n independent unit vectors has a norm of about n^(-1/2) = 0.045.
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.1
    assert len(np.unique(vectors, axis=0)) == 500


def test_the_text_of_a_pair_is_query_and_title() -> None:
    assert pair_text(pairs_of("p1", query="red shoe", title="Shoe, red", brand="Acme")["p1"]) == "red shoe\nShoe, red"
