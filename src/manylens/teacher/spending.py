"""Money: what answers cost, and a budget that judging stays within."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from manylens.config import PriceConfig, RecordedTeacher, TeacherConfig
from manylens.errors import ConfigError
from manylens.records import Judgement
from manylens.teacher.backends.protocol import Backend, Request
from manylens.teacher.tokens import CHARACTERS_PER_TOKEN, TokenCounter

#: Most tokens that a chat template puts around two messages, and more than any we know of.
_TEMPLATE_TOKENS = 64
_BUDGET = re.compile(
    r"\s*(?:\$\s*(?P<dollars>[0-9]{1,12}(?:\.[0-9]+)?)"
    r"|(?P<amount>[0-9]{1,12}(?:\.[0-9]+)?)\s*(?P<unit>usd|\$|(?P<scale>[km]?)tok(?:ens?)?))\s*",
    re.IGNORECASE,
)
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000}
_ESTIMATE = TokenCounter()
#: Prices that nobody knows.
UNPRICED = PriceConfig()


@dataclass(frozen=True, slots=True)
class Budget:
    """Most that the answers of a recipe may cost.

    Attributes:
        amount: US dollars, or tokens of prompts and answers together.
        unit: Which of them.
    """

    amount: float
    unit: Literal["usd", "tokens"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget as one writes it, such as ``20usd``, ``$20``, ``5Mtok`` or ``500ktok``.

        Raises:
            ConfigError: If the text has another form, or nothing could be bought.
        """
        match = _BUDGET.fullmatch(text)
        if match:
            dollars = match["dollars"] or (match["amount"] if match["unit"].casefold() in ("usd", "$") else None)
            budget = (
                cls(float(dollars), "usd")
                if dollars is not None
                else cls(math.floor(float(match["amount"]) * _SCALES[match["scale"].casefold()]), "tokens")
            )
            if budget.amount > 0:
                return budget
        raise ConfigError(f"a budget is an amount above 0, such as 20usd, $1.50, 5Mtok or 500ktok; got {text!r}")

    def __str__(self) -> str:
        """Return the budget in words."""
        return dollars(self.amount) if self.unit == "usd" else f"{self.amount:,.0f} tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Tokens of answers.

    Attributes:
        prompt: Of the prompts.
        completion: Of the answers, thinking included.
        uncounted: Answers whose backend did not say; what they took is estimated from characters.
    """

    prompt: int = 0
    completion: int = 0
    uncounted: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        """Return both together."""
        return Tokens(
            prompt=self.prompt + other.prompt,
            completion=self.completion + other.completion,
            uncounted=self.uncounted + other.uncounted,
        )

    @property
    def total(self) -> int:
        """Prompts and answers together."""
        return self.prompt + self.completion

    def cost(self, price: PriceConfig) -> float | None:
        """Return the US dollars, or ``None`` where a price is unknown."""
        if price.input is None or price.output is None:
            return None
        return (self.prompt * price.input + self.completion * price.output) / 1e6


def left_of(budget: Budget, spent: Tokens, price: PriceConfig) -> Budget:
    """Return what is left of a budget, at least nothing; one in US dollars needs known prices."""
    value = spent.total if budget.unit == "tokens" else spent.cost(price)
    assert value is not None  # `Spending` refuses such a budget before anything is asked.
    return Budget(max(0.0, budget.amount - value), budget.unit)


def tokens_of(request: Request, judgement: Judgement) -> Tokens:
    """Return what an answer took; estimated from characters where the backend did not say."""
    prompt, completion = judgement.prompt_tokens, judgement.completion_tokens
    return Tokens(
        prompt=_ESTIMATE.count(request.messages) if prompt is None else prompt,
        completion=math.ceil(len(judgement.raw) / CHARACTERS_PER_TOKEN) if completion is None else completion,
        uncounted=int(prompt is None or completion is None),
    )


def dollars(amount: float | None) -> str:
    """Return an amount of US dollars as text; small ones with more digits, and ``unknown`` for ``None``."""
    if amount is None:
        return "unknown"
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.2g}"


def price_of(teacher: TeacherConfig) -> PriceConfig:
    """Return the prices of a teacher; recorded judgements are read for nothing."""
    return PriceConfig(input=0.0, output=0.0) if isinstance(teacher, RecordedTeacher) else teacher.price


class Spending:
    """What has been spent, what is in flight, and whether there is room for more.

    The promise: what was spent never exceeds the budget, because a request is only let through where there is
    room for all that is in flight at its upper bound: a token for every byte of the prompt (no tokenizer makes
    more), the chat template's, and ``max_tokens`` for the answer. It holds as far as the backend's counts do, and
    for teachers whose sampling settings name ``max_tokens``; of others, the answers in flight may exceed it.

    Attributes:
        budget: The budget.
        tokens: What has been spent.
        held: The request that there was no room for.
    """

    def __init__(self, budget: Budget | None, price: PriceConfig, backend: Backend) -> None:
        """Start with nothing spent.

        Args:
            budget: The budget; ``None`` has room for everything.
            price: The teacher's prices.
            backend: The teacher.

        Raises:
            ConfigError: If the budget is in US dollars and a price is unknown.
        """
        if budget is not None and budget.unit == "usd" and Tokens().cost(price) is None:
            raise ConfigError(
                f"a budget of {budget} needs the teacher's prices; set teacher.price.input and teacher.price.output "
                "(US dollars for a million tokens), or give a budget in tokens, such as 5Mtok"
            )
        self.budget, self._price = budget, price
        self._max_tokens = _most_tokens(json.loads(backend.sampling))
        self._reserved = Tokens()
        self.tokens = Tokens()
        self.held: Request | None = None

    def admitted(self, requests: Iterator[Request]) -> Iterator[Request]:
        """Let requests through while there is room for them; the first that does not fit is held, and comes first next.

        Args:
            requests: The requests; the same iterator may be passed again once all in flight are settled.

        Yields:
            Those that fit; each is to be settled.
        """
        while (request := self.held or next(requests, None)) is not None:
            self.held = None
            if self.budget is not None:
                reserved = self._reserved + self._bound(request)
                if self._value(self.tokens + reserved) > self.budget.amount:
                    self.held = request
                    return
                self._reserved = reserved
            yield request

    def settle(self, request: Request, tokens: Tokens) -> None:
        """Count what the answer to a request took; nothing where there was no answer."""
        self.tokens += tokens
        if self.budget is not None:
            bound = self._bound(request)
            self._reserved += Tokens(prompt=-bound.prompt, completion=-bound.completion)

    def __str__(self) -> str:
        """Return what has been spent, in the budget's unit."""
        if self.budget is not None and self.budget.unit == "usd":
            return dollars(self._value(self.tokens))
        return f"{self.tokens.total:,} tokens"

    def _value(self, tokens: Tokens) -> float:
        assert self.budget is not None
        if self.budget.unit == "tokens":
            return tokens.total
        cost = tokens.cost(self._price)
        assert cost is not None  # Checked at the start.
        return cost

    def _bound(self, request: Request) -> Tokens:
        size = sum(len(message["content"].encode()) for message in request.messages)
        return Tokens(prompt=size + _TEMPLATE_TOKENS, completion=self._max_tokens)


def _most_tokens(sampling: Mapping[str, Any]) -> int:
    """Return the most tokens of an answer; 0 where the settings do not say."""
    body = {**sampling, **sampling.get("extra_body", {})}  # Which has the last word in the request.
    limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
    return max((limit for limit in limits if isinstance(limit, int)), default=0)
