"""Planning: what judging would ask and cost, before anything is asked."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from manylens.config import Config, PriceConfig, RecordedTeacher
from manylens.data import Pairs
from manylens.data.spill import gather
from manylens.progress import meter
from manylens.teacher.backends import Backend
from manylens.teacher.perspectives import Messages, load_perspective
from manylens.teacher.questions import attempts_of, requests_of
from manylens.teacher.spending import Tokens, price_of, tokens_of
from manylens.teacher.store import AnswerStatistics, JudgementStore
from manylens.teacher.tokens import TokenCounter, token_counter


@dataclass(frozen=True, kw_only=True, slots=True)
class PerspectivePlan:
    """What one perspective would ask.

    Attributes:
        perspective: The perspective's name.
        judgements: Pairs x samples.
        known: Those that the store has an answer to.
        requests: Requests to come, with the further attempts that are to be expected.
        prompt_tokens: Tokens of their prompts.
        completion_tokens: Tokens of their answers, if these are as long as the stored ones; ``None`` where none is.
        most_completion_tokens: Tokens of their answers at most, by ``max_tokens``.
        answers: Stored answers whose mean length was taken.
        spent: What the stored answers to these questions took.
    """

    perspective: str
    judgements: int
    known: int
    requests: int
    prompt_tokens: int
    completion_tokens: int | None
    most_completion_tokens: int
    answers: int
    spent: Tokens

    @property
    def is_bound(self) -> bool:
        """Whether nothing but an upper bound is known of the answers."""
        return self.completion_tokens is None

    @property
    def tokens(self) -> Tokens:
        """What is to come, expected or at most."""
        completion = self.most_completion_tokens if self.completion_tokens is None else self.completion_tokens
        return Tokens(prompt=self.prompt_tokens, completion=completion)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What judging would ask and cost.

    Attributes:
        teacher: The teacher's name.
        perspectives: The figures of each perspective.
        pairs: Pairs to judge.
        counted_pairs: Those whose prompts were counted; fewer than `pairs` where the figures are scaled up.
        recorded: Whether the teacher's judgements are recorded, so that nothing is paid.
        exact: Whether prompt tokens are the teacher's own, not estimates from characters.
        price: The teacher's prices.
    """

    teacher: str
    perspectives: tuple[PerspectivePlan, ...]
    pairs: int
    counted_pairs: int
    recorded: bool
    exact: bool
    price: PriceConfig

    @property
    def requests(self) -> int:
        """Requests to come."""
        return sum(each.requests for each in self.perspectives)

    @property
    def spent(self) -> Tokens:
        """What the answers in the store took."""
        return sum((each.spent for each in self.perspectives), Tokens())

    @property
    def is_bound(self) -> bool:
        """Whether `tokens` is an upper bound, because some perspective has no answer to go by."""
        return any(each.is_bound for each in self.perspectives)

    @property
    def tokens(self) -> Tokens:
        """What is to come, expected or at most."""
        return sum((each.tokens for each in self.perspectives), Tokens())


class _Questions:
    """What is known of one perspective's questions, and what is still to be asked."""

    def __init__(self) -> None:
        self.judgements = self.known = self.open = self.prompt_tokens = 0
        self.spent = Tokens()


def plan(
    config: Config, pairs: Pairs, backend: Backend, store: JudgementStore | None, *, most_pairs: int = 5_000
) -> Plan:
    """Count what judging the pairs of a recipe would ask, by perspective; nothing is asked.

    Prompts are rendered and counted with the teacher's tokenizer where it is at hand. The length of answers is the
    mean of the teacher's stored ones from the same perspective, so a preview of some pairs makes a better plan.

    Args:
        config: The recipe.
        pairs: Its pairs, of all splits.
        backend: Its teacher.
        store: Its judgement store, or ``None`` where there is none yet.
        most_pairs: Pairs whose prompts are rendered and counted; of more, so many are drawn by the recipe's seed and
            the figures scaled up.

    Returns:
        The plan.

    Raises:
        PromptError: If a prompt cannot be rendered.
        TeacherError: If the teacher's tokenizer cannot be loaded.
    """
    judged = pairs.split(*config.judge.splits)
    counted = draw(judged, most_pairs, config.seed)
    # Reading recorded judgements takes no tokens.
    counter = None if isinstance(config.teacher, RecordedTeacher) else token_counter(config.teacher)
    found = _look(config, counted, backend, store, counter)
    statistics = {} if store is None else store.statistics(backend.name, backend.sampling)
    scaled_by = len(judged) / max(len(counted), 1)
    return Plan(
        teacher=backend.name,
        perspectives=tuple(
            _perspective_plan(name, questions, statistics.get(name), scaled_by, config)
            for name, questions in found.items()
        ),
        pairs=len(judged),
        counted_pairs=len(counted),
        recorded=counter is None,
        exact=counter is None or counter.exact,
        price=price_of(config.teacher),
    )


def draw(pairs: Pairs, most: int, seed: int) -> Pairs:
    """Draw pairs without replacement, in their order; all, where there are no more than `most`."""
    if len(pairs) <= most:
        return pairs
    rows = sorted(random.Random(seed).sample(range(len(pairs)), most))
    return Pairs(gather(pairs.table, np.array(rows)))


def _look(
    config: Config, pairs: Pairs, backend: Backend, store: JudgementStore | None, counter: TokenCounter | None
) -> dict[str, _Questions]:
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    scale, samples, retries = config.labels.build(), config.judge.samples, config.judge.retry_unparsed
    found = {perspective.name: _Questions() for perspective in perspectives}
    #: Whose prompts are being counted, and how often each is to be asked.
    counting: deque[tuple[_Questions, int]] = deque()

    def prompts() -> Iterator[Messages]:
        requests = requests_of(pairs, perspectives, scale, samples, answer_format=backend.answer_format)
        for (_, name), group in groupby(requests, key=lambda request: (request.pair_id, request.perspective)):
            questions, times = found[name], 0
            for request in group:
                attempts = attempts_of(request, backend, scale, store, retries) if store is not None else []
                questions.judgements += 1
                questions.known += bool(attempts)
                questions.spent = sum((tokens_of(request, attempt) for attempt in attempts), questions.spent)
                times += not attempts or (attempts[-1].label is None and len(attempts) <= retries)
                messages = request.messages
                bar.advance()
            questions.open += times
            if times:
                counting.append((questions, times))
                yield messages

    with meter("plan", len(pairs) * len(perspectives) * samples) as bar:
        for tokens in counter.count_all(prompts()) if counter else (0 for _ in prompts()):
            questions, times = counting.popleft()
            questions.prompt_tokens += tokens * times
    return found


def _perspective_plan(
    name: str,
    questions: _Questions,
    answers: AnswerStatistics | None,
    scaled_by: float,
    config: Config,
) -> PerspectivePlan:
    # Of every answer the share u has no label and is asked again, and of those again u: 1 + u + u^2 + ...
    share = answers.unlabelled if answers is not None else 0.0
    times = scaled_by * sum(share**attempt for attempt in range(1 + config.judge.retry_unparsed))
    requests = round(questions.open * times)
    most = 0 if isinstance(config.teacher, RecordedTeacher) else config.teacher.sampling.max_tokens * requests
    mean = answers.completion_tokens if answers is not None else None
    return PerspectivePlan(
        perspective=name,
        judgements=round(questions.judgements * scaled_by),
        known=round(questions.known * scaled_by),
        requests=requests,
        prompt_tokens=round(questions.prompt_tokens * times),
        completion_tokens=0 if not most else None if mean is None else round(mean * requests),
        most_completion_tokens=most,
        answers=0 if answers is None else answers.counted,
        spent=Tokens(
            prompt=round(questions.spent.prompt * scaled_by),
            completion=round(questions.spent.completion * scaled_by),
            uncounted=round(questions.spent.uncounted * scaled_by),
        ),
    )
