from __future__ import annotations

from manylens.config import PriceConfig
from manylens.teacher.spending import Tokens
from manylens.teacher.tally import Tally


def test_counts_are_kept_by_perspective_and_together() -> None:
    tally = Tally(["a", "b"], PriceConfig(input=1.0, output=10.0))
    for perspective, reused in (("a", True), ("a", False), ("b", False)):
        tally.requested(perspective, reused=reused)
    for perspective, attempt in (("a", 0), ("b", 0), ("b", 1)):
        tally.asked(perspective, attempt=attempt)
    tally.answered("b", Tokens(prompt=100, completion=20), "truncated")
    tally.answered("b", Tokens(prompt=100, completion=10, uncounted=1), None)
    report = tally.report()
    assert (report.requested, report.reused, report.asked, report.retried, report.unanswered) == (3, 1, 3, 1, 1)
    assert report.unparsed == {"truncated": 1}
    assert report.tokens == Tokens(prompt=200, completion=30, uncounted=1)
    assert report.cost == (200 + 300) / 1e6
    assert (report.by_perspective["a"].asked, report.by_perspective["a"].unanswered) == (1, 1)
    assert report.by_perspective["b"].tokens == report.tokens


def test_the_note_has_speed_cost_and_failures_and_is_not_drawn_for_every_answer() -> None:
    tally = Tally(["a"], PriceConfig(input=10_000.0, output=10_000.0))
    tally.answered("a", Tokens(prompt=100, completion=25), "truncated")
    tally.answered("a", Tokens(prompt=100, completion=25), "no_label")
    tally.answered("a", Tokens(), "truncated")
    note = tally.note()
    assert note is not None and note.endswith(" tok/s · $2.50 · no_label 1 · truncated 2")
    assert tally.note() is None
    unpriced = Tally(["a"], PriceConfig()).note()
    assert unpriced is not None and "$" not in unpriced
