"""Judging: ask the teacher what the store does not know yet, and keep every answer at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import length_hint

from manylens.config import JudgeConfig, PriceConfig, RecordedTeacher, TeacherConfig
from manylens.errors import BudgetError, ConfigError, TeacherError
from manylens.progress import meter
from manylens.records import Judgement, LabelScale, Pair, Perspective
from manylens.teacher.backends import Answer, Backend, Request
from manylens.teacher.questions import attempts_of, judgement_of, requests_of
from manylens.teacher.spending import UNPRICED, Budget, Spending, Tokens, tokens_of
from manylens.teacher.store import JudgementStore
from manylens.teacher.tally import JudgeReport, Tally


def judge(
    pairs: Iterable[Pair],
    perspectives: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    samples: int = 1,
    retry_unparsed: int = 0,
    budget: Budget | None = None,
    price: PriceConfig = UNPRICED,
    commit_every: int = 1,
) -> JudgeReport:
    """Have a teacher judge pairs from several perspectives, and keep the answers in a store.

    Only what the store does not know is asked, so a run that was stopped, more pairs, one more perspective
    or more samples pay for the difference alone. An answer without a label is kept, and asked again as a further
    attempt where `retry_unparsed` allows; a request without an answer is not kept, and another run asks it again.

    Args:
        pairs: The pairs; any number, they are streamed. With `retry_unparsed` or a budget they are gone through
            several times.
        perspectives: The panel.
        scale: The labels to choose from.
        backend: The teacher.
        store: Where answers are looked up and kept.
        samples: Judgements per pair and perspective.
        retry_unparsed: Further attempts at an answer that holds no label.
        budget: Most that these judgements may cost, what the store already has of them included; see `Spending`.
        price: The teacher's prices.
        commit_every: Answers in one transaction. With 1, killing the process loses only answers in flight.

    Returns:
        What was asked and what came of it.

    Raises:
        BudgetError: If the budget has no room for the next request; all that was answered is kept.
        ConfigError: If two perspectives have the same name, or the budget is in US dollars and the price unknown.
        PromptError: If a prompt cannot be rendered.
        TeacherError: If the store cannot be written, or the pairs can be gone through only once and that is too few.
    """
    if (retry_unparsed or budget) and iter(pairs) is pairs:
        raise TeacherError(
            f"retry_unparsed and budget need pairs that can be gone through several times, got a {type(pairs).__name__}"
            "; give a list or Pairs"
        )
    names = [perspective.name for perspective in perspectives]
    work = _Judging(
        questions=lambda: requests_of(pairs, perspectives, scale, samples, answer_format=backend.answer_format),
        total=length_hint(pairs) * len(perspectives) * samples or None,
        scale=scale,
        backend=backend,
        store=store,
        tally=Tally(names, price),
        spending=Spending(budget, price, backend),
        commit_every=commit_every,
    )
    if budget is not None:
        work.look_back(retry_unparsed)
    for attempt in range(1 + retry_unparsed):
        if not work.ask(attempt):
            break
    return work.tally.report()


@dataclass(kw_only=True)
class _Judging:
    """What one run of `judge` works with."""

    questions: Callable[[], Iterator[Request]]
    total: int | None
    scale: LabelScale
    backend: Backend
    store: JudgementStore
    tally: Tally
    spending: Spending
    commit_every: int
    #: Questions that have no answer yet, where a budget had them counted.
    unanswered: int = 0

    def look_back(self, retry_unparsed: int) -> None:
        """Count what these questions have cost so far, and how many are left."""
        for request in self.questions():
            attempts = attempts_of(request, self.backend, self.scale, self.store, retry_unparsed)
            self.unanswered += not attempts
            for judgement in attempts:
                self.spending.tokens += tokens_of(request, judgement)

    def ask(self, attempt: int) -> int:
        """Ask for one attempt at every question that needs it; return how many answers still hold no label."""
        unlabelled, answered = 0, list[Judgement]()

        def due() -> Iterator[Request]:
            nonlocal unlabelled
            for question in self.questions():
                known = attempts_of(question, self.backend, self.scale, self.store, attempt)
                needed = len(known) == attempt and not (known and known[-1].label)
                if attempt == 0:
                    self.tally.requested(question.perspective, reused=not needed)
                if needed:
                    self.tally.asked(question.perspective, attempt=attempt)
                    yield replace(question, attempt=attempt) if attempt else question
                else:
                    unlabelled += len(known) > attempt and known[-1].label is None
                    bar.advance()

        with meter("judge" if attempt == 0 else f"judge, attempt {attempt + 1}", self.total) as bar:
            try:
                for request, answer in self._within_budget(due()):
                    bar.advance()
                    if answer is None:
                        self.spending.settle(request, Tokens())
                        continue
                    judgement = judgement_of(request, answer, self.backend, self.scale)
                    tokens = tokens_of(request, judgement)
                    self.spending.settle(request, tokens)
                    self.tally.answered(request.perspective, tokens, judgement.reason)
                    self.unanswered -= attempt == 0
                    unlabelled += judgement.label is None
                    answered.append(judgement)
                    if len(answered) >= self.commit_every:
                        self.store.add(answered)
                        answered.clear()
                    if note := self.tally.note():
                        bar.note(note)
            finally:
                # Also when the backend fails: these answers are paid for.
                self.store.add(answered)
        return unlabelled

    def _within_budget(self, due: Iterator[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Ask as much at a time as the budget has room for, until all is asked."""
        while True:
            asked = 0
            for request, answer in self.backend.ask(self.spending.admitted(due)):
                asked += 1
                yield request, answer
            if self.spending.held is None:
                return
            if not asked:
                raise BudgetError(
                    f"the budget of {self.spending.budget} has no room for another request; "
                    f"spent so far: {self.spending}; judgements without an answer: {self.unanswered:,}. "
                    f"Every answer is kept in {self.store.path}; "
                    "raise the budget and run the same command again to go on"
                )


def judgements_of(
    pairs: Iterable[Pair],
    perspectives: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    samples: int = 1,
    retry_unparsed: int = 0,
) -> Iterator[Judgement]:
    """Yield the judgements that these arguments ask for, and no others that the store may hold.

    Args:
        pairs: The pairs.
        perspectives: The panel.
        scale: The labels to choose from.
        backend: The teacher; it is not asked anything.
        store: Where the judgements are.
        samples: Judgements per pair and perspective.
        retry_unparsed: Further attempts that were allowed.

    Yields:
        One judgement per pair, perspective and sample, in this order: the first attempt that holds a label, else the
        last. Where the store has none, one without a label whose reason is ``"unanswered"``.
    """
    for request in requests_of(pairs, perspectives, scale, samples, answer_format=backend.answer_format):
        attempts = attempts_of(request, backend, scale, store, retry_unparsed)
        yield attempts[-1] if attempts else judgement_of(request, None, backend, scale)


def check_sampling(teacher: TeacherConfig, config: JudgeConfig) -> None:
    """Check that several answers to one question can differ.

    Raises:
        ConfigError: If samples or further attempts are asked of a teacher that always takes the likeliest token.
    """
    if isinstance(teacher, RecordedTeacher) or teacher.sampling.temperature > 0:
        return
    for key, value, least in (("samples", config.samples, 1), ("retry_unparsed", config.retry_unparsed, 0)):
        if value > least:
            raise ConfigError(
                f"judge.{key} is {value}, but at teacher.sampling.temperature 0 every answer is the same; "
                f"set a temperature, such as 0.7, or judge.{key} to {least}"
            )
