import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import DataError
from manylens.evaluation.keywords import choose_keywords, verdict_words
from manylens.records import Pair


def pair(query: str = "red mug", title: str = "blue mug", **fields: object) -> Pair:
    return Pair(pair_id="", query_id="", product_id="", query=query, title=title, **fields)


def test_words_of_query_and_product_are_trivial_inflected_too() -> None:
    product = pair(
        "running shoes", "trail runner", brand="Acme", attributes={"Colour": "navy"}, description="soft sole"
    )
    rationale = "The shoe of ACME is navy-coloured, soft-soled; runners want it for marathons. It is an upgrade."
    found = choose_keywords([product], [rationale], least=0.0, most=1.0)
    # "shoe" is the beginning of "shoes", "runners" of "runner" with two letters more; "the", "for" are stop words.
    assert found.words == ("marathons", "upgrade", "want")
    assert found.counts == (1, 1, 1) and found.matrix.tolist() == [[True, True, True]]


def test_a_word_is_absent_where_it_is_trivial() -> None:
    pairs = [pair("mug"), pair("durable mug"), pair("mug")]
    found = choose_keywords(pairs, ["durable", "durable", "durable or durable"], least=0.0, most=1.0)
    assert found.words == ("durable",) and found.counts == (2,)
    assert found.matrix[:, 0].tolist() == [True, False, True]


def test_bounds_number_and_exclusions_choose_the_most_frequent() -> None:
    texts = ["alpha beta gamma", "alpha beta", "alpha beta", "alpha delta"]
    chosen = {"least": 0.25, "most": 0.75}
    pairs = [pair()] * 4
    assert choose_keywords(pairs, texts, **chosen).words == ("beta", "delta", "gamma")
    assert choose_keywords(pairs, texts, number=2, **chosen).words == ("beta", "delta")
    assert choose_keywords(pairs, texts, exclude={"beta"}, **chosen).words == ("delta", "gamma")
    with pytest.raises(DataError, match="no word stands in 90% to 95% of the 4 pairs"):
        choose_keywords(pairs, texts, least=0.9, most=0.95)


def test_every_pair_needs_a_rationale() -> None:
    with pytest.raises(DataError, match="got 1 for 2 pairs"):
        choose_keywords([pair(), pair()], ["durable"])


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=8))
def test_counts_are_those_of_the_matrix_whatever_is_written(texts: list[tuple[str, str]]) -> None:
    pairs = [pair(title=title) for title, _ in texts] + [pair()]
    found = choose_keywords(pairs, [*(rationale for _, rationale in texts), "durable"], least=0.0, most=1.0)
    assert found.matrix.sum(axis=0).tolist() == list(found.counts)
    assert "durable" in found.words and list(found.counts) == sorted(found.counts, reverse=True)


def test_verdict_words_belong_to_the_perspective_and_tell_the_label() -> None:
    argued = np.array([0, 1] * 10)
    mine = ["passes screening" if label == 0 else "violates screening" for label in argued]
    mine = [text + (" shopper" if number % 4 < 2 else "") for number, text in enumerate(mine)]
    others = ["violates nothing shopper" if label else "shopper" for label in argued]
    # "screening" stands everywhere, "shopper" and "violates" in the others as often; without them "passes" is left.
    assert verdict_words([pair()] * 20, mine, others, argued).words == ("passes",)
    free = verdict_words([pair()] * 20, mine, [""] * 20, argued, number=2)
    assert free.words == ("passes", "violates")
    np.testing.assert_array_equal(free.matrix[:, 0], argued == 0)
