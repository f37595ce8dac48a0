"""Words of rationales that a probe asks for: those that a student cannot read off the pair itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.errors import DataError
from manylens.evaluation._optional import optional
from manylens.evaluation.predictions import IntArray
from manylens.records import Pair

BoolArray = NDArray[np.bool_]

_WORD = re.compile(r"[^\W\d_]{3,}")
_SHORTEST_STEM = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Keywords:
    """The words that were chosen, and where they stand.

    Attributes:
        words: The words, the most frequent first.
        counts: In how many pairs each stands.
        matrix: (pairs, words), true where a pair's rationale has the word and its query and product do not.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    matrix: BoolArray


def choose_keywords(
    pairs: Sequence[Pair],
    rationales: Sequence[str],
    *,
    number: int = 80,
    least: float = 0.02,
    most: float = 0.5,
    exclude: Collection[str] = (),
) -> Keywords:
    """Choose the words of rationales that say what query and product do not.

    A word is a run of at least three letters, without scikit-learn's English stop words. In a pair whose query or
    product has the word, or one that starts with all of it but its last two letters (at least four), it is trivial
    and counts as absent.

    Args:
        pairs: The pairs.
        rationales: The text of each pair's rationales.
        number: Most words; the most frequent are taken, ties by alphabet.
        least: Smallest share of the pairs that a word may stand in.
        most: Largest share.
        exclude: Words that are not wanted, in lower case, such as the labels' names.

    Returns:
        The words and where they stand.

    Raises:
        DataError: If there is not one rationale a pair, or no word lies within the bounds.
        MissingExtraError: If scikit-learn is not installed.
    """
    return _keywords(_said(pairs, rationales), number, least, most, exclude)


def verdict_words(
    pairs: Sequence[Pair],
    rationales: Sequence[str],
    others: Sequence[str],
    argued: IntArray,
    *,
    number: int = 20,
    least: float = 0.02,
    most: float = 0.5,
    specific: float = 2.0,
) -> Keywords:
    """Choose the words in which one perspective words its verdicts.

    Of the words that `choose_keywords` would take, those stand in this perspective's rationales at least `specific`
    times as often as in the others'; of them, the ones with the most mutual information with the label that the
    rationale argues for.

    Args:
        pairs: The pairs.
        rationales: One perspective's rationale of each pair.
        others: The joined rationales of the other perspectives of each pair.
        argued: (pairs,) index of the label that the perspective's rationale argues for.
        number: Most words.
        least: Smallest share of the pairs that a word may stand in.
        most: Largest share.
        specific: Least ratio of the two frequencies.

    Returns:
        The words and where they stand.

    Raises:
        DataError: If there is not one text of each kind a pair, or no word is left.
        MissingExtraError: If scikit-learn is not installed.
    """
    said = _said(pairs, rationales)
    elsewhere = Counter(word for words in _said(pairs, others) for word in words)
    here = Counter(word for words in said for word in words)
    shared = {word for word, count in here.items() if count < specific * elsewhere[word]}
    found = _keywords(said, len(here), least, most, shared)
    selection = optional("sklearn.feature_selection")
    information = selection.mutual_info_classif(found.matrix, argued, discrete_features=True)
    chosen = np.sort(np.argsort(-information, kind="stable")[:number])
    return Keywords(
        words=tuple(found.words[index] for index in chosen),
        counts=tuple(found.counts[index] for index in chosen),
        matrix=found.matrix[:, chosen],
    )


def _said(pairs: Sequence[Pair], rationales: Sequence[str]) -> list[set[str]]:
    """Return the words of each rationale that are not trivial."""
    if len(pairs) != len(rationales):
        raise DataError(f"expected one rationale text a pair, got {len(rationales)} for {len(pairs)} pairs")
    stop_words = optional("sklearn.feature_extraction.text").ENGLISH_STOP_WORDS
    said = []
    for pair, rationale in zip(pairs, rationales, strict=True):
        own = _words(" ".join([pair.query, pair.title, pair.brand, pair.description, *_flat(pair)]))
        starts = {word[:end] for word in own for end in range(_SHORTEST_STEM, len(word) + 1)} | own
        said.append({word for word in _words(rationale) - stop_words if _stem(word) not in starts})
    return said


def _flat(pair: Pair) -> list[str]:
    return [text for item in pair.attributes.items() for text in item]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _stem(word: str) -> str:
    return word[: max(_SHORTEST_STEM, len(word) - 2)]


def _keywords(said: Sequence[set[str]], number: int, least: float, most: float, exclude: Collection[str]) -> Keywords:
    counts = Counter(word for words in said for word in words)
    bounds = least * len(said), most * len(said)
    fitting = [word for word, count in counts.items() if bounds[0] <= count <= bounds[1] and word not in exclude]
    chosen = sorted(fitting, key=lambda word: (-counts[word], word))[:number]
    if not chosen:
        raise DataError(f"no word stands in {least:.0%} to {most:.0%} of the {len(said)} pairs; widen least and most")
    return Keywords(
        words=tuple(chosen),
        counts=tuple(counts[word] for word in chosen),
        matrix=np.array([[word in words for word in chosen] for words in said]),
    )
