"""Judging: ask the teacher what the store does not know yet, and keep every answer at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint

from manylens.errors import ConfigError
from manylens.progress import meter
from manylens.records import Judgement, LabelScale, Pair, Perspective
from manylens.teacher.answers import parse_answer
from manylens.teacher.backends import Answer, Backend, Request
from manylens.teacher.perspectives import Prompt, prompt_hash
from manylens.teacher.store import JudgementStore, Key


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeCounts:
    """How many judgements a run of `judge` was about.

    Attributes:
        requested: Pairs x perspectives x samples.
        reused: Those that the store knew.
        asked: Those that went to the teacher.
        unanswered: Those of `asked` that got no answer; they will be asked again.
        unparsed: Those of `asked` whose answer has no label, by `answers.Reason`; they will not be.
    """

    requested: int
    reused: int
    asked: int
    unanswered: int
    unparsed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeReport(JudgeCounts):
    """The counts of all perspectives together, and of each.

    Attributes:
        by_perspective: The counts by the perspective's name.
    """

    by_perspective: Mapping[str, JudgeCounts]


class _Tally:
    """Counts while judging."""

    def __init__(self) -> None:
        self.requested = self.reused = self.asked = self.answered = 0
        self.unparsed: Counter[str] = Counter()


def requests_of(
    pairs: Iterable[Pair], perspectives: Sequence[Perspective], scale: LabelScale, samples: int = 1
) -> Iterator[Request]:
    """Yield the questions that a panel is asked: by pair, then by perspective, then by sample.

    Args:
        pairs: The pairs to judge.
        perspectives: The panel.
        scale: The labels to choose from.
        samples: Judgements per pair and perspective.

    Yields:
        The requests.

    Raises:
        ConfigError: If two perspectives have the same name.
        PromptError: If a prompt cannot be rendered.
    """
    names = [perspective.name for perspective in perspectives]
    if len(set(names)) != len(names):
        raise ConfigError(f"judge.perspectives: each needs a name of its own, got {names}; rename a file")
    prompts = [(perspective.name, Prompt(perspective, scale)) for perspective in perspectives]
    for pair in pairs:
        for name, prompt in prompts:
            messages = prompt.messages(pair)
            digest = prompt_hash(messages)
            for sample in range(samples):
                yield Request(
                    pair_id=pair.pair_id, perspective=name, sample=sample, messages=messages, prompt_hash=digest
                )


def judge(
    pairs: Iterable[Pair],
    perspectives: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    samples: int = 1,
    commit_every: int = 1,
) -> JudgeReport:
    """Have a teacher judge pairs from several perspectives, and keep the answers in a store.

    Only what the store does not know is asked, so a run that was stopped, more pairs, one more perspective
    or more samples pay for the difference alone. An answer without a label is kept, a request without an
    answer is not and will be asked again.

    Args:
        pairs: The pairs; any number, they are streamed.
        perspectives: The panel.
        scale: The labels to choose from.
        backend: The teacher.
        store: Where answers are looked up and kept.
        samples: Judgements per pair and perspective.
        commit_every: Answers in one transaction. With 1, killing the process loses only answers in flight.

    Returns:
        What was asked and what came of it.

    Raises:
        ConfigError: If two perspectives have the same name.
        PromptError: If a prompt cannot be rendered.
        TeacherError: If the store cannot be written.
    """
    tallies = {perspective.name: _Tally() for perspective in perspectives}
    total = length_hint(pairs) * len(perspectives) * samples or None
    with meter("judge", total) as bar:

        def unknown() -> Iterator[Request]:
            for request in requests_of(pairs, perspectives, scale, samples):
                tally = tallies[request.perspective]
                tally.requested += 1
                if _key(request, backend) in store:
                    tally.reused += 1
                    bar.advance()
                else:
                    tally.asked += 1
                    yield request

        answered: list[Judgement] = []
        try:
            for request, answer in backend.ask(unknown()):
                bar.advance()
                if answer is None:
                    continue
                judgement = _judgement(request, answer, backend, scale)
                tally = tallies[request.perspective]
                tally.answered += 1
                tally.unparsed.update([judgement.reason] if judgement.reason else [])
                answered.append(judgement)
                if len(answered) >= commit_every:
                    store.add(answered)
                    answered.clear()
        finally:
            # Also when the backend fails: these answers are paid for.
            store.add(answered)
    return _report(tallies)


def judgements_of(
    pairs: Iterable[Pair],
    perspectives: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    samples: int = 1,
) -> Iterator[Judgement]:
    """Yield the judgements that these arguments ask for, and no others that the store may hold.

    Args:
        pairs: The pairs.
        perspectives: The panel.
        scale: The labels to choose from.
        backend: The teacher; it is not asked anything.
        store: Where the judgements are.
        samples: Judgements per pair and perspective.

    Yields:
        One judgement per request, by pair, perspective and sample; where the store has none, one without a
        label whose reason is ``"unanswered"``.
    """
    for request in requests_of(pairs, perspectives, scale, samples):
        yield store.get(_key(request, backend)) or _judgement(request, None, backend, scale)


def _key(request: Request, backend: Backend) -> Key:
    return Key(
        pair_id=request.pair_id,
        perspective=request.perspective,
        sample=request.sample,
        attempt=request.attempt,
        teacher=backend.name,
        sampling=backend.sampling,
        prompt_hash=request.prompt_hash,
    )


def _judgement(request: Request, answer: Answer | None, backend: Backend, scale: LabelScale) -> Judgement:
    key = _key(request, backend)._asdict()
    if answer is None:
        return Judgement(**key, label=None, reason="unanswered", rationale="", raw="")
    parsed = parse_answer(answer.text, scale)
    return Judgement(
        **key,
        label=parsed.label,
        reason=parsed.reason,
        rationale=parsed.rationale,
        raw=answer.text,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        finish_reason=answer.finish_reason,
    )


def _report(tallies: Mapping[str, _Tally]) -> JudgeReport:
    by_perspective = {
        name: JudgeCounts(
            requested=tally.requested,
            reused=tally.reused,
            asked=tally.asked,
            unanswered=tally.asked - tally.answered,
            unparsed=dict(tally.unparsed),
        )
        for name, tally in tallies.items()
    }
    counts = by_perspective.values()
    return JudgeReport(
        requested=sum(count.requested for count in counts),
        reused=sum(count.reused for count in counts),
        asked=sum(count.asked for count in counts),
        unanswered=sum(count.unanswered for count in counts),
        unparsed=dict(sum((Counter(count.unparsed) for count in counts), Counter())),
        by_perspective=by_perspective,
    )
