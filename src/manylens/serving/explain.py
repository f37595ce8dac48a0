"""Explaining a score: the teacher's rationales nearest to the latents, how far the pair is from them, and the words.

`manylens.serving.rationales` has the index. A word's weight is by occlusion (Zeiler and Fergus, arXiv 1311.2901,
section 4.2, there of image patches): the word is left out, and the weight is how far the latents move. It needs no
gradient, so any engine will do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.products import ProductTemplate
from manylens.records import Pair
from manylens.serving.rationales import Neighbour, RationaleIndex, by_perspective, unit
from manylens.serving.split import Reader
from manylens.serving.tokens import PairTokenizer
from manylens.text import well_formed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Words that are left out in turn: the first ones of the query, and of the product.
QUERY_WORDS, PRODUCT_WORDS = 16, 48
#: The share of dev pairs below which a pair is out of the domain.
IN_DOMAIN = 0.05
#: A smaller shift of the latents is rounding.
_ROUNDING = 1e-6
#: Takes a text as it is.
_VERBATIM = ProductTemplate("{{ title }}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidence:
    """How near a pair is to what the student was trained towards.

    Attributes:
        similarity: Cosine to the nearest rationale of any latent.
        percentile: Share of the dev pairs that are at most as near to theirs.
        in_domain: Whether that is at least 0.05.
    """

    similarity: float
    percentile: float
    in_domain: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word and how much the latents depend on it.

    Attributes:
        text: The word.
        start: Its first character in its text.
        end: The character behind it.
        weight: How far the latents move without it, over the largest such shift of the pair; between 0 and 1.
    """

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The weights of a pair's words.

    Attributes:
        query: The query's words.
        product: The product's.
        product_text: What the template made of the product, as far as the student may read it.
        largest: The largest shift, the mean over latents of 1 - cosine; 0 where no word matters.
        skipped: Words behind the first ones, which were not left out.
    """

    query: tuple[Word, ...]
    product: tuple[Word, ...]
    product_text: str
    largest: float
    skipped: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """A pair's score and what it rests on.

    Attributes:
        label: The most probable class.
        score: The expected gain.
        probabilities: Of every class, best class first.
        confidence: How near the pair is to the training rationales.
        rationales: By perspective the rationales of the nearest training pairs, nearest first.
        tokens: The words' weights.
    """

    label: str
    score: float
    probabilities: Mapping[str, float]
    confidence: Confidence
    rationales: Mapping[str, tuple[Neighbour, ...]]
    tokens: Tokens


class Variants(tuple[Pair, ...]):
    """A pair and what becomes of it without one word each; every title is the text that the student reads."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What has to be scored to explain a pair.

    Attributes:
        pairs: The pair, then one without each of the query's words, then one without each of the product's.
        query_words: First character, and the one behind the last, of the words that are left out.
        product_words: The same of the product's.
        skipped: Words that are not.
    """

    pairs: Variants
    query_words: Sequence[tuple[int, int]]
    product_words: Sequence[tuple[int, int]]
    skipped: int


class Explainer:
    """Explains the scores of one exported student.

    Attributes:
        index: The training rationales.
        latents: Latents of a pair, and the dimension of each.
    """

    def __init__(self, index: RationaleIndex, splitter: Tokenizer) -> None:
        """Put the parts together; see `beside` for a folder.

        Args:
            index: The training rationales.
            splitter: Makes one token of each word.
        """
        self.index, self._splitter = index, splitter
        self.latents = (len(index.card.names), index.card.dim)

    @classmethod
    def beside(cls, classes: Path) -> Self | None:
        """Return the explainer of an exported class head; ``None`` where no rationales were exported with it.

        Args:
            classes: ``classes`` of an export.

        Raises:
            MissingExtraError: If `tokenizers` is not installed.
            StudentError: If the index is damaged.
        """
        index = RationaleIndex.beside(classes)
        return None if index is None else cls(index, _splitter(classes / "tokenizer.json"))

    def ask(self, pair: Pair, reader: Reader) -> Question:
        """Return what has to be scored to explain a pair.

        Args:
            pair: The pair.
            reader: The scorer's.

        Raises:
            ConfigError: If the product template asks for what the product does not have.
            StudentError: If the reader takes its products from a store.
        """
        reader = _tokenizer(reader)
        # Of the words behind these, the student reads none, even without one of those before.
        query, queries = self._cut(well_formed(pair.query), reader.max_length)
        text, products = self._cut(well_formed(reader.template.render(pair)), reader.max_length)
        whole = replace(pair, query=query, title=text)
        pairs = [whole]
        # A space, lest two words become one.
        pairs += [replace(whole, query=f"{query[:a]} {query[b:]}") for a, b in queries[:QUERY_WORDS]]
        pairs += [replace(whole, title=f"{text[:a]} {text[b:]}") for a, b in products[:PRODUCT_WORDS]]
        return Question(
            pairs=Variants(pairs),
            query_words=queries[:QUERY_WORDS],
            product_words=products[:PRODUCT_WORDS],
            skipped=len(queries) + len(products) + 1 - len(pairs),
        )

    def answer(
        self,
        question: Question,
        probabilities: NDArray[np.float32],
        latents: NDArray[np.float32],
        *,
        labels: Sequence[str],
        gains: NDArray[np.float64],
        top_k: int,
    ) -> Explanation:
        """Explain a pair.

        Args:
            question: What was scored.
            probabilities: (pairs, classes) of the question's pairs.
            latents: (pairs, latents, dim) of them.
            labels: The classes.
            gains: (classes,) their gains.
            top_k: Nearest training pairs for each latent.
        """
        row = probabilities[0]
        found: list[tuple[str, Neighbour]] = []
        nearest = -1.0
        for latent, vector in enumerate(latents[0]):
            for place, similarity in zip(*self.index.nearest(latent, vector, top_k), strict=True):
                nearest = max(nearest, float(similarity))
                found += self.index.texts(latent, int(place), float(similarity))
        percentile = self.index.percentile(nearest)
        return Explanation(
            label=labels[int(row.argmax())],
            score=float(row @ gains),
            probabilities=dict(zip(labels, row.tolist(), strict=True)),
            confidence=Confidence(similarity=nearest, percentile=percentile, in_domain=percentile >= IN_DOMAIN),
            rationales=by_perspective(found),
            tokens=_weights(question, latents),
        )

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def _cut(self, text: str, most: int) -> tuple[str, list[tuple[int, int]]]:
        """Return a text without the words behind the first `most` and one, and the places of those that are left."""
        words = []
        for start, end in self._splitter.encode(text, add_special_tokens=False).offsets:
            word = text[start:end]
            start += len(word) - len(word.lstrip())
            if word.strip():
                words.append((start, start + len(word.strip())))
        if len(words) > most + 1:
            text = text[: words[most][1]]
        return text, words[: most + 1]


def verbatim(reader: Reader) -> PairTokenizer:
    """Return the reader of `Variants`, whose titles are texts and need no template.

    Raises:
        StudentError: If the reader takes its products from a store.
    """
    plain = copy(_tokenizer(reader))  # It shares the tokenizer and the cache.
    plain.template = _VERBATIM
    return plain


def why_not(outputs: Sequence[str]) -> str:
    """Return why a model without an index cannot explain.

    Args:
        outputs: What its engine returns.
    """
    if "latents" not in outputs:
        return "this model has no latents, so that no rationale is near to it; explain a student with an extractor"
    return (
        "no rationales were exported beside this model: it was exported before there were explanations, or is no "
        "export, or its latents were not trained towards its pairs' rationales; train with the method lrkd and "
        "embed.source rationale, and export the run again: manylens export RUN"
    )


def _tokenizer(reader: Reader) -> PairTokenizer:
    if not isinstance(reader, PairTokenizer):
        raise StudentError("explaining runs the whole graph; load the scorer without stored states")
    return reader


def _splitter(file: Path) -> Tokenizer:
    """Return a tokenizer's way to words, with a model that knows none: each word is one token."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise MissingExtraError("tokenizers", "serve") from None
    spec: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: spec.get(name) for name in ("version", "normalizer", "pre_tokenizer")}
    unknown = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
    return Tokenizer.from_str(json.dumps({**kept, "added_tokens": [], "model": unknown}))


def _weights(question: Question, latents: NDArray[np.float32]) -> Tokens:
    directions = unit(latents.reshape(-1, latents.shape[2])).reshape(latents.shape).astype(np.float64)
    shifts = 1.0 - (directions[1:] * directions[0]).sum(axis=2).mean(axis=1)
    shifts[shifts < _ROUNDING] = 0.0
    largest = float(shifts.max(initial=0.0))
    weights = (shifts / largest if largest else shifts).tolist()
    whole, first = question.pairs[0], len(question.query_words)
    return Tokens(
        query=_words(whole.query, question.query_words, weights[:first]),
        product=_words(whole.title, question.product_words, weights[first:]),
        product_text=whole.title,
        largest=largest,
        skipped=question.skipped,
    )


def _words(text: str, places: Sequence[tuple[int, int]], weights: Sequence[float]) -> tuple[Word, ...]:
    return tuple(
        Word(text=text[start:end], start=start, end=end, weight=weight)
        for (start, end), weight in zip(places, weights, strict=True)
    )
