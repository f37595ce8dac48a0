"""The records that travel through the pipeline: frozen, keyword-only, typed.

Names are the field's own: a *pair* is a query and a product, a *judgement* is what a teacher says of
a pair from one *perspective*, and a *label scale* orders the relevance labels and gives their gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from manylens.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A query and a product, with the gold label where there is one.

    Attributes:
        pair_id: Unique; ``"query_id:product_id"`` unless the source has an id of its own.
        query_id: Pairs of one query share it; splits and bootstraps go by it.
        product_id: The product's id, unique within its locale.
        query: The query as typed.
        title: The product's title.
        brand: The brand, or an empty string.
        attributes: Further product fields by name, such as ``{"Size": "1.7 fl oz"}``.
        description: Free text, or an empty string.
        locale: Language or market, such as ``"us"``.
        query_kind: What sort of query it is, where the source says so; evaluation slices by it.
        label: The gold label's name on the scale, or ``None`` where nobody judged the pair.
        split: ``train``, ``dev`` or ``test``.
    """

    pair_id: str
    query_id: str
    product_id: str
    query: str
    title: str
    brand: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    locale: str = ""
    query_kind: str = ""
    label: str | None = None
    split: Split = "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScale:
    """An ordered set of relevance labels, best first, with gains.

    Attributes:
        names: The labels, best first.
        gains: Gain of each label in [0, 1]; nDCG and the served score use it.
        definitions: What each label means; prompts print it.
        aliases: Other spellings in data and answers, lower case, such as ``{"e": "exact"}``.

    Raises:
        ConfigError: If a gain or a definition is missing, a gain is outside [0, 1], or an alias
            points nowhere.
    """

    names: tuple[str, ...]
    gains: Mapping[str, float]
    definitions: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if len(self.names) < 2 or len({_normalise(name) for name in self.names}) != len(self.names):
            raise ConfigError(f"a label scale needs at least two distinct labels, got {list(self.names)}")
        for part, values in (("gains", self.gains), ("definitions", self.definitions)):
            if set(values) != set(self.names):
                raise ConfigError(
                    f"label scale: {part} must have exactly the keys {list(self.names)}, got {list(values)}"
                )
        for name, gain in self.gains.items():
            if not 0.0 <= gain <= 1.0:
                raise ConfigError(f"label scale: the gain of {name!r} must lie in [0, 1], got {gain}")
        for alias, name in self.aliases.items():
            if name not in self.names:
                raise ConfigError(
                    f"label scale: alias {alias!r} points to {name!r}, which is not one of {list(self.names)}"
                )

    def parse(self, text: str) -> str | None:
        """Return the label that `text` spells (case, spaces and aliases aside), or ``None``."""
        wanted = _normalise(text)
        for name in self.names:
            if _normalise(name) == wanted:
                return name
        return next((name for alias, name in self.aliases.items() if _normalise(alias) == wanted), None)

    def index(self, label: str) -> int:
        """Return the class index of a label's name.

        Raises:
            ConfigError: If the scale has no such label.
        """
        try:
            return self.names.index(label)
        except ValueError:
            raise ConfigError(f"label {label!r} is not on the scale {list(self.names)}") from None

    def gain_vector(self) -> tuple[float, ...]:
        """Return the gains in the order of `names`."""
        return tuple(self.gains[name] for name in self.names)


def _normalise(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


#: Labels and gains of the Shopping Queries Dataset (Reddy et al., 2022, arXiv 2206.06588, section 4.1).
ESCI = LabelScale(
    names=("exact", "substitute", "complement", "irrelevant"),
    gains={"exact": 1.0, "substitute": 0.1, "complement": 0.01, "irrelevant": 0.0},
    definitions={
        "exact": "the product satisfies every specification of the query",
        "substitute": "the product misses some specification of the query but could serve in place of what was asked",
        "complement": "the product does not fulfil the query but could be used together with what was asked for",
        "irrelevant": "the product is none of these: it misses a central aspect of the query",
    },
    aliases={"e": "exact", "s": "substitute", "c": "complement", "i": "irrelevant"},
)

#: Labels of the Wayfair Annotation Dataset (Chen et al., ECIR 2022); gains as in its own evaluation.
WANDS = LabelScale(
    names=("exact", "partial", "irrelevant"),
    gains={"exact": 1.0, "partial": 0.5, "irrelevant": 0.0},
    definitions={
        "exact": "the product fully matches the query",
        "partial": "the product matches part of the query but misses some of its specifications",
        "irrelevant": "the product does not match the query",
    },
)

SCALES: dict[str, LabelScale] = {"esci": ESCI, "wands": WANDS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Perspective:
    """A way to look at relevance: an instruction to the teacher.

    Attributes:
        name: Short name; judgements carry it.
        description: One line for tables and ``--help``.
        template: The Jinja source of the prompt.
    """

    name: str
    description: str
    template: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a teacher said of a pair from one perspective.

    Attributes:
        pair_id: The pair.
        perspective: The perspective's name.
        sample: Which of several samples, from 0.
        attempt: Which try at an answer that holds a label, from 0.
        label: A label's name, or ``None`` where the answer held none; such rows are kept and counted.
        reason: Why `label` is ``None``, such as ``"unanswered"``; ``None`` where there is a label.
        rationale: The chain of thought, without the label.
        raw: The teacher's answer, untouched.
        prompt_tokens: Tokens of the prompt, or ``None`` where the backend does not say.
        completion_tokens: Tokens of the answer, or ``None``.
        finish_reason: The backend's word for why the answer ended, or ``None``.
        teacher: Which teacher answered: backend and model.
        sampling: The sampling settings as canonical JSON.
        prompt_hash: SHA-256 of the prompt that was sent.
    """

    pair_id: str
    perspective: str
    sample: int = 0
    attempt: int = 0
    label: str | None
    reason: str | None = None
    rationale: str
    raw: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    teacher: str
    sampling: str = "{}"
    prompt_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """A right rationale against a wrong one, of different perspectives or of two samples of the same.

    Attributes:
        pair_id: The pair.
        chosen: The judgement whose label is the gold label.
        rejected: The judgement whose label is not.
    """

    pair_id: str
    chosen: Judgement
    rejected: Judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a student says of a pair.

    Attributes:
        label: The most probable class.
        probabilities: Of every class, best class first.
        score: The expected gain, ``sum_c p(c) gain(c)``, for ranking.
    """

    label: str
    probabilities: Mapping[str, float]
    score: float

    @classmethod
    def of(cls, labels: Sequence[str], row: NDArray[Any], score: float) -> Self:
        """Return the prediction of a pair.

        Args:
            labels: The classes, best first.
            row: (classes,) their probabilities.
            score: The expected gain.
        """
        return cls(
            label=labels[int(row.argmax())],
            probabilities=dict(zip(labels, row.tolist(), strict=True)),
            score=float(score),
        )
