"""Annotating: the rationales that are distilled, from the tuned teacher, and from one that is given the gold label.

Where no judgement of a train pair reached the gold label, there is nothing consistent to distil. Rationalisation
asks once more with the label given, and keeps the rationale if the answer closes with that label (STaR, Zelikman
et al., arXiv 2203.14465). Such rationales are marked; it is the only prompt that shows a gold label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources

import pyarrow as pa
import pyarrow.compute as pc

from manylens.config import AnnotateConfig, PriceConfig, TuneConfig
from manylens.errors import ConfigError
from manylens.records import LabelScale, Pair, Perspective
from manylens.teacher.backends import Backend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.judgements import by_pair
from manylens.teacher.rows import RATIONALE_SCHEMA, Rows, accepted_label, rationale_row
from manylens.teacher.spending import UNPRICED, Budget
from manylens.teacher.store import JudgementStore
from manylens.teacher.tally import JudgeReport

#: The perspective of answers for which the gold label was given.
RATIONALIZE = "rationalize"
#: The attribute of the product that shows the label; the template speaks of it by this name.
_EXPERT_LABEL = "Label given by an expert"


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """Rationales, and how asking for them went.

    Attributes:
        rationales: By `rows.RATIONALE_SCHEMA`.
        reports: What was asked, by the teacher's name.
    """

    rationales: pa.Table
    reports: Mapping[str, JudgeReport]


def annotate(
    pairs: Iterable[Pair],
    scale: LabelScale,
    prompt: Perspective,
    members: Mapping[str, Backend],
    store: JudgementStore,
    config: AnnotateConfig,
) -> Annotated:
    """Have the tuned teacher, or each of several, judge pairs under the prompt that it was tuned with.

    Args:
        pairs: The pairs; they are gone through several times.
        scale: The labels.
        prompt: The prompt.
        members: The teachers by name, as `tune.tuned_backends` returns them.
        store: Keeps the answers; what it holds already is not asked again.
        config: How many samples.

    Returns:
        Every rationale that has a label, by teacher and then by pair. Its perspective is the prompt's name, or the
        teacher's where there are several.
    """
    rows, reports = Rows(RATIONALE_SCHEMA), dict[str, JudgeReport]()
    for name, backend in members.items():
        reports[name] = judge(pairs, [prompt], scale, backend, store, samples=config.samples)
        judgements = judgements_of(pairs, [prompt], scale, backend, store, samples=config.samples)
        for pair, answers in by_pair(pairs, judgements):
            accepted = accepted_label(pair, answers)
            for judgement in answers:
                if judgement.label is not None:
                    named = replace(judgement, perspective=name) if len(members) > 1 else judgement
                    rows.add(**rationale_row(named, accepted))
    return Annotated(rationales=rows.table(), reports=reports)


def rationalize(
    pairs: Iterable[Pair],
    rationales: pa.Table,
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    budget: Budget | None = None,
    price: PriceConfig = UNPRICED,
) -> Annotated:
    """Ask once more, with the gold label given, where no judgement of a train pair reached it.

    Args:
        pairs: The pairs; only those of the train split that have a gold label count. They are gone through
            several times.
        rationales: The rationales so far, by `rows.RATIONALE_SCHEMA`.
        scale: The labels.
        backend: The teacher that is asked.
        store: Keeps the answers, under the perspective `RATIONALIZE`.
        budget: Most that these answers may cost; see `judge`.
        price: The teacher's prices.

    Returns:
        The new rationales: those whose answer closes with the gold label, marked as rationalised.

    Raises:
        BudgetError: If the budget is spent; every answer is kept.
    """
    reached = rationales.filter(pc.field("consistent"))["pair_id"].unique().to_pylist()
    missed = _Missed(pairs, frozenset(str(pair_id) for pair_id in reached))
    perspective = _perspective()
    report = judge(missed, [perspective], scale, backend, store, budget=budget, price=price)
    rows = Rows(RATIONALE_SCHEMA)
    for pair, answers in by_pair(missed, judgements_of(missed, [perspective], scale, backend, store)):
        for judgement in answers:
            if judgement.label == pair.label:
                rows.add(**rationale_row(judgement, pair.label, rationalized=True))
    return Annotated(rationales=rows.table(), reports={RATIONALIZE: report})


def check_annotating(config: AnnotateConfig, tune: TuneConfig | None) -> None:
    """Check that several answers to one question can differ.

    Raises:
        ConfigError: If samples are asked of a tuned teacher that always takes the likeliest token.
    """
    if tune is not None and config.samples > 1 and tune.generate.sampling.temperature == 0:
        raise ConfigError(
            f"annotate.samples is {config.samples}, but at tune.generate.sampling.temperature 0 every answer is the "
            "same; set a temperature, such as 0.7, or annotate.samples to 1"
        )


class _Missed:
    """The train pairs whose gold label was not reached, with that label among their attributes."""

    def __init__(self, pairs: Iterable[Pair], reached: frozenset[str]) -> None:
        self._pairs, self._reached = pairs, reached

    def __iter__(self) -> Iterator[Pair]:
        for pair in self._pairs:
            if pair.split == "train" and pair.label is not None and pair.pair_id not in self._reached:
                yield replace(pair, attributes={**pair.attributes, _EXPERT_LABEL: pair.label})

    def __length_hint__(self) -> int:
        return sum(1 for _ in self)


def _perspective() -> Perspective:
    file = resources.files("manylens.teacher") / "prompts" / "tools" / "rationalize.jinja"
    return Perspective(
        name=RATIONALIZE, description="The gold label is given.", template=file.read_text(encoding="utf-8")
    )
