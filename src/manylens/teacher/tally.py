"""Counting while judging: the report, and the line behind the progress bar."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manylens.config import PriceConfig
from manylens.teacher.spending import Tokens, dollars

#: Seconds between two notes behind the bar, which are dear to draw.
_NOTE_EVERY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeCounts:
    """How many judgements a run of `judge` was about.

    Attributes:
        requested: Pairs x perspectives x samples.
        reused: Those that the store knew.
        asked: Requests that went to the teacher.
        retried: Those of `asked` that were further attempts at an answer with a label.
        unanswered: Those of `asked` that got no answer; they will be asked again in another run.
        unparsed: Those of `asked` whose answer has no label, by `answers.Reason`.
        tokens: What the answers took.
        cost: The same in US dollars, or ``None`` where a price is unknown.
    """

    requested: int
    reused: int
    asked: int
    retried: int
    unanswered: int
    unparsed: Mapping[str, int]
    tokens: Tokens
    cost: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeReport(JudgeCounts):
    """The counts of all perspectives together, and of each.

    Attributes:
        by_perspective: The counts by the perspective's name.
    """

    by_perspective: Mapping[str, JudgeCounts]


class _Counts:
    """Counts of one perspective."""

    def __init__(self) -> None:
        self.requested = self.reused = self.asked = self.retried = self.answered = 0
        self.unparsed: Counter[str] = Counter()
        self.tokens = Tokens()


class Tally:
    """Counts what happens, by perspective."""

    def __init__(self, perspectives: Sequence[str], price: PriceConfig) -> None:
        """Start at nought.

        Args:
            perspectives: The perspectives' names.
            price: The teacher's prices.
        """
        self._counts = {name: _Counts() for name in perspectives}
        self._price = price
        self._started = self._noted = 0.0

    def requested(self, perspective: str, *, reused: bool) -> None:
        """Count a judgement that is wanted, and whether the store knew it."""
        counts = self._counts[perspective]
        counts.requested += 1
        counts.reused += reused

    def asked(self, perspective: str, *, attempt: int) -> None:
        """Count a request that went to the teacher."""
        self._started = self._started or time.monotonic()
        counts = self._counts[perspective]
        counts.asked += 1
        counts.retried += attempt > 0

    def answered(self, perspective: str, tokens: Tokens, reason: str | None) -> None:
        """Count an answer, and why it has no label, if it has none."""
        counts = self._counts[perspective]
        counts.answered += 1
        counts.tokens += tokens
        if reason is not None:
            counts.unparsed[reason] += 1

    def report(self) -> JudgeReport:
        """Return the counts."""
        by_perspective = {name: JudgeCounts(**self._fields([counts])) for name, counts in self._counts.items()}
        return JudgeReport(**self._fields(list(self._counts.values())), by_perspective=by_perspective)

    def note(self) -> str | None:
        """Return tokens a second, cost so far and failures by reason, or ``None`` if that was said just now."""
        now = time.monotonic()
        if now - self._noted < _NOTE_EVERY:
            return None
        self._noted = now
        report = self.report()
        parts = [f"{report.tokens.total / (now - self._started):,.0f} tok/s"]
        if report.cost is not None:
            parts.append(dollars(report.cost))
        return " · ".join(parts + [f"{reason} {count:,}" for reason, count in sorted(report.unparsed.items())])

    def _fields(self, counts: Sequence[_Counts]) -> dict[str, Any]:
        tokens = sum((each.tokens for each in counts), Tokens())
        asked = sum(each.asked for each in counts)
        return {
            "requested": sum(each.requested for each in counts),
            "reused": sum(each.reused for each in counts),
            "asked": asked,
            "retried": sum(each.retried for each in counts),
            "unanswered": asked - sum(each.answered for each in counts),
            "unparsed": dict(sum((each.unparsed for each in counts), Counter())),
            "tokens": tokens,
            "cost": tokens.cost(self._price),
        }
