"""Curating: from judgements to rationales worth distilling and rows worth tuning on.

The consistency filter keeps a judgement where its label equals the gold label; where there is none, the label of more
than half of the pair's panel takes its place, to distil from and never to tune on. What is kept of the labelled pairs
becomes rows for supervised fine-tuning, pooled over the perspectives under one prompt. Where perspectives
disagree and one of them is right, a right rationale is preferred to a wrong one of a *different*
perspective (Thinking Broad, Acting Fast, arXiv 2601.21611), or, for perspective-aligned preferences, of
another sample of the same one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, product, zip_longest
from typing import Literal

import pyarrow as pa

from manylens.config import CurateConfig, PreferenceConfig
from manylens.errors import ConfigError
from manylens.records import Judgement, LabelScale, Pair, PreferencePair
from manylens.teacher.answers import format_thought
from manylens.teacher.judgements import by_pair
from manylens.teacher.perspectives import Messages, Prompt, load_perspective
from manylens.teacher.rows import PREFERENCE_SCHEMA, RATIONALE_SCHEMA, SFT_SCHEMA, Rows, accepted_label, rationale_row

#: What becomes of a judgement: it is kept, or the reason why it is dropped.
Outcome = Literal["kept", "unanswered", "no_label", "no_gold", "wrong_label"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeCount:
    """How many judgements of one perspective on pairs of one gold label had one outcome.

    Attributes:
        perspective: The perspective's name.
        label: The pair's gold label, or ``None`` where it has none.
        outcome: What became of the judgements.
        count: How many there are.
    """

    perspective: str
    label: str | None
    outcome: Outcome
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CombinationCount:
    """How many preference pairs prefer one perspective to another.

    Attributes:
        chosen: The perspective of the right rationale.
        rejected: The perspective of the wrong one.
        count: How many there are.
    """

    chosen: str
    rejected: str
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateReport:
    """What was kept and dropped, and how the panels stood.

    Attributes:
        outcomes: Judgements of all splits, by perspective, gold label and outcome.
        all_right: Pairs (any split, with a gold label) all of whose labelled judgements are right.
        all_wrong: Pairs all of whose labelled judgements are wrong.
        mixed: Pairs with a right and a wrong judgement.
        conflicts: Pairs of the train split with a right and a wrong judgement that `PreferenceConfig` lets
            stand against each other.
        sft_rows: Rows for supervised fine-tuning.
        preference_rows: Rows for preference tuning.
        combinations: The preference rows by chosen and rejected perspective.
    """

    outcomes: tuple[OutcomeCount, ...]
    all_right: int
    all_wrong: int
    mixed: int
    conflicts: int
    sft_rows: int
    preference_rows: int
    combinations: tuple[CombinationCount, ...]


@dataclass(frozen=True, kw_only=True)
class Curated:
    """The tables and the report of `curate`.

    Attributes:
        rationales: Of all splits, by `RATIONALE_SCHEMA`.
        sft: Of the train split, by `SFT_SCHEMA`.
        preferences: Of the train split, by `PREFERENCE_SCHEMA`.
        report: The counts.
    """

    rationales: pa.Table
    sft: pa.Table
    preferences: pa.Table
    report: CurateReport


def curate(
    pairs: Iterable[Pair], judgements: Iterable[Judgement], scale: LabelScale, config: CurateConfig, seed: int
) -> Curated:
    """Filter judgements by the gold labels and make tuning rows of them.

    Args:
        pairs: The pairs; only the train split makes tuning rows.
        judgements: Judgements in the order of `pairs`.
        scale: The labels; the prompt prints them.
        config: The prompt, and what is kept.
        seed: Chooses among the preference pairs of a pair; other pairs have no influence on the choice.

    Returns:
        The tables and the counts.

    Raises:
        ConfigError: If the configuration names a perspective that judged nothing.
        PromptError: If the prompt's template cannot be read or rendered.
        TeacherError: If a judgement's pair is not among the pairs, or comes too late.
    """
    rationales, sft, preferences = Rows(RATIONALE_SCHEMA), Rows(SFT_SCHEMA), Rows(PREFERENCE_SCHEMA)
    outcomes: Counter[tuple[str, str | None, Outcome]] = Counter()
    verdicts: Counter[str] = Counter()
    combinations: Counter[tuple[str, str]] = Counter()
    unified = Prompt(load_perspective(config.prompt), scale)
    conflicts = 0
    for pair, panel in by_pair(pairs, judgements):
        prompt = unified.messages(pair) if pair.split == "train" and pair.label is not None else None
        accepted = accepted_label(pair, panel)
        for judgement in panel:
            outcome = _outcome(pair, judgement, accepted, config)
            outcomes[judgement.perspective, pair.label, outcome] += 1
            if judgement.label is not None:
                rationales.add(**rationale_row(judgement, accepted))
            if prompt is not None and outcome == "kept" and _named(judgement, config.sft_perspectives):
                sft.add(
                    prompt=prompt,
                    completion=_completion(judgement),
                    pair_id=pair.pair_id,
                    perspective=judgement.perspective,
                )
        verdicts[_verdict(pair, panel)] += 1
        if prompt is not None:
            chosen_pairs = preference_pairs(pair, panel, config.preferences, seed)
            conflicts += bool(chosen_pairs)
            for preference in chosen_pairs:
                names = (preference.chosen.perspective, preference.rejected.perspective)
                combinations[names] += 1
                preferences.add(
                    prompt=prompt,
                    chosen=_completion(preference.chosen),
                    rejected=_completion(preference.rejected),
                    pair_id=pair.pair_id,
                    chosen_perspective=names[0],
                    rejected_perspective=names[1],
                )
    judged = {perspective for perspective, _, _ in outcomes}
    _check_names("curate.sft_perspectives", config.sft_perspectives, judged)
    _check_names("curate.preferences.perspectives", config.preferences.perspectives, judged)
    tables = {"rationales": rationales.table(), "sft": sft.table(), "preferences": preferences.table()}
    report = CurateReport(
        outcomes=tuple(
            OutcomeCount(perspective=perspective, label=label, outcome=outcome, count=count)
            for (perspective, label, outcome), count in sorted(outcomes.items(), key=str)
        ),
        all_right=verdicts["all_right"],
        all_wrong=verdicts["all_wrong"],
        mixed=verdicts["mixed"],
        conflicts=conflicts,
        sft_rows=tables["sft"].num_rows,
        preference_rows=tables["preferences"].num_rows,
        combinations=tuple(
            CombinationCount(chosen=chosen, rejected=rejected, count=count)
            for (chosen, rejected), count in sorted(combinations.items())
        ),
    )
    return Curated(**tables, report=report)


def preference_pairs(
    pair: Pair, judgements: Sequence[Judgement], config: PreferenceConfig, seed: int
) -> list[PreferencePair]:
    """Pair right rationales with wrong ones of a different perspective, or of the same one.

    Args:
        pair: The pair; without a gold label nothing is right or wrong.
        judgements: Its judgements.
        config: Which perspectives, what may stand against what, and how many. The combinations of perspectives
            take turns, so that none is left out while another comes twice.
        seed: Orders combinations and rationales.

    Returns:
        The preference pairs; none where the judgements do not conflict.
    """
    if pair.label is None:
        return []
    used = [judgement for judgement in judgements if _named(judgement, config.perspectives)]
    right = [judgement for judgement in used if judgement.label == pair.label]
    wrong = [judgement for judgement in used if judgement.label not in (None, pair.label)]
    by_combination: dict[tuple[str, str], list[PreferencePair]] = {}
    for chosen, rejected in product(right, wrong):
        if (chosen.perspective == rejected.perspective) == (config.between == "same_perspective"):
            preference = PreferencePair(pair_id=pair.pair_id, chosen=chosen, rejected=rejected)
            by_combination.setdefault((chosen.perspective, rejected.perspective), []).append(preference)
    generator = random.Random(f"{seed}:{pair.pair_id}")
    turns = list(by_combination.values())
    generator.shuffle(turns)
    for candidates in turns:
        generator.shuffle(candidates)
    in_turn = (preference for turn in zip_longest(*turns) for preference in turn if preference is not None)
    return list(islice(in_turn, config.max_per_pair))


def _named(judgement: Judgement, perspectives: tuple[str, ...] | None) -> bool:
    return perspectives is None or judgement.perspective in perspectives


def _check_names(key: str, names: tuple[str, ...] | None, judged: Collection[str]) -> None:
    unknown = [name for name in names or () if name not in judged]
    if unknown and judged:
        raise ConfigError(
            f"{key}: expected names of judged perspectives, got {unknown}; judged are {', '.join(sorted(judged))}"
        )


def _outcome(pair: Pair, judgement: Judgement, accepted: str | None, config: CurateConfig) -> Outcome:
    if judgement.reason == "unanswered":
        return "unanswered"
    if judgement.label is None:
        return "no_label"
    if config.filter == "none":
        return "kept"
    if judgement.label == accepted:
        return "kept"
    return "no_gold" if pair.label is None else "wrong_label"


def _verdict(pair: Pair, panel: Sequence[Judgement]) -> str:
    right = {judgement.label == pair.label for judgement in panel if judgement.label is not None}
    if pair.label is None or not right:
        return "undecided"
    return "mixed" if len(right) == 2 else "all_right" if True in right else "all_wrong"


def _completion(judgement: Judgement) -> Messages:
    assert judgement.label is not None
    return [{"role": "assistant", "content": format_thought(judgement.rationale, judgement.label)}]
