from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scripted_teacher import ScriptedTeacher as Teacher

from manylens.config import OpenAITeacher, PriceConfig, RecordedTeacher
from manylens.errors import BudgetError, ConfigError
from manylens.recipe import load_config
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.backends import Request, canonical_json
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.questions import requests_of
from manylens.teacher.spending import Budget, Spending, Tokens, dollars, left_of, price_of, tokens_of
from manylens.teacher.store import JudgementStore

PANEL = [load_perspective(name) for name in PERSPECTIVES]


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    return [make_pair(number) for number in range(5)]


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20usd", 20.0, "usd"),
        ("$20", 20.0, "usd"),
        (" $ 1.50 ", 1.5, "usd"),
        ("1.5 USD", 1.5, "usd"),
        ("0.05$", 0.05, "usd"),
        ("5Mtok", 5_000_000, "tokens"),
        ("500ktok", 500_000, "tokens"),
        ("2.5 mtokens", 2_500_000, "tokens"),
        ("300 tok", 300, "tokens"),
        ("1token", 1, "tokens"),
    ],
)
def test_a_budget_is_read(text: str, amount: float, unit: str) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)


@given(st.text() | st.from_regex(r"[$]?[-0-9.,eE ]{0,6} ?(usd|[kMG]?tok|EUR|[$])?", fullmatch=True))
def test_any_text_is_a_budget_above_nought_or_an_error_with_examples(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except ConfigError as error:
        assert "such as 20usd, $1.50, 5Mtok or 500ktok; got" in str(error)
    else:
        assert budget.amount > 0
        assert any(character in "0123456789" for character in text) and "-" not in text


@given(st.integers(1, 10**9), st.sampled_from(["usd", "tok"]))
def test_whole_budgets_are_exact(amount: int, unit: str) -> None:
    assert Budget.parse(f"{amount}{unit}").amount == amount


@pytest.mark.parametrize(
    "text", ["", "20", "usd", "0usd", "0.4tok", "-5usd", "1,000usd", "5Gtok", "1e3tok", "20eur", "inf usd"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a budget is an amount above 0"):
        Budget.parse(text)


def test_budgets_and_money_in_words() -> None:
    assert [str(Budget.parse(text)) for text in ("20usd", "5Mtok", "$0.5")] == ["$20.00", "5,000,000 tokens", "$0.5"]
    assert [dollars(amount) for amount in (None, 0.0, 1234.5, 0.004321)] == ["unknown", "$0.00", "$1,234.50", "$0.0043"]


def test_cost_is_by_the_million_and_unknown_without_both_prices() -> None:
    tokens = Tokens(prompt=1_500_000, completion=200_000) + Tokens(prompt=500_000, uncounted=1)
    assert tokens == Tokens(prompt=2_000_000, completion=200_000, uncounted=1)
    assert tokens.total == 2_200_000
    assert tokens.cost(PriceConfig(input=0.4, output=1.6)) == pytest.approx(0.8 + 0.32)
    for price in (PriceConfig(), PriceConfig(input=1.0), PriceConfig(output=1.0)):
        assert tokens.cost(price) is None
    assert price_of(RecordedTeacher()) == PriceConfig(input=0.0, output=0.0)
    assert price_of(OpenAITeacher(backend="openai", model="m")) == PriceConfig()


def test_the_example_in_the_docs_runs(
    store: JudgementStore, pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/cost.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (section,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = load_config(
        {"name": "a", "data": {"loader": "demo"}, "labels": {"scale": "esci"}, **yaml.safe_load(section)}
    )
    names = {"pairs": pairs, "panel": PANEL, "scale": ESCI, "backend": Teacher(), "store": store, "config": config}
    exec(code, names)
    tokens, cost = capsys.readouterr().out.split()
    # 75 tokens of answers at 1.6 dollars for a million, the rest of prompts at 0.4.
    assert float(cost) == pytest.approx(((int(tokens) - 75) * 0.4 + 75 * 1.6) / 1e6)


def test_what_the_backend_does_not_say_is_estimated(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    messages = [{"role": "system", "content": "x" * 41}, {"role": "user", "content": "y" * 8}]
    request = Request(pair_id="q1:p1", perspective="a", messages=messages, prompt_hash="0")
    told = make_judgement(make_pair(1), "a", "exact", prompt_tokens=9, completion_tokens=3)
    silent = make_judgement(make_pair(1), "a", "exact", raw="z" * 9)
    assert tokens_of(request, told) == Tokens(prompt=9, completion=3)
    # Four characters a token: 41 -> 11, 8 -> 2, 9 -> 3.
    assert tokens_of(request, silent) == Tokens(prompt=13, completion=3, uncounted=1)


def spent(store: JudgementStore, pairs: list[Pair], teacher: Teacher) -> list[int]:
    judgements = list(judgements_of(pairs, PANEL, ESCI, teacher, store))
    return [(j.prompt_tokens or 0) + (j.completion_tokens or 0) for j in judgements if j.reason != "unanswered"]


@pytest.mark.parametrize("at_a_time", [1, 3, 1000])
@pytest.mark.parametrize("amount", [3_000, 5_000, 8_000])
def test_a_budget_is_never_exceeded(store: JudgementStore, pairs: list[Pair], at_a_time: int, amount: int) -> None:
    teacher, budget = Teacher(at_a_time=at_a_time), Budget(amount, "tokens")
    whole = sum(spent_on(pairs, at_a_time, store.path.with_name("whole.sqlite")))
    assert amount < whole
    with pytest.raises(BudgetError, match=rf"the budget of {amount:,} tokens has no room .* without an answer: [1-9]"):
        judge(pairs, PANEL, ESCI, teacher, store, budget=budget)
    counts = spent(store, pairs, teacher)
    # The largest bound of a request: a token for each byte of its prompt, 64 for the template, 20 for the answer.
    bound = 4 * max(counts) + 64 + 20
    assert amount - bound <= sum(counts) <= amount
    assert len(counts) == len(teacher.asked) == len(set(teacher.asked)) == len(store)
    # What is in the store counts: the same budget buys nothing more, a larger one the rest.
    same, more = Teacher(), Teacher(at_a_time=at_a_time)
    with pytest.raises(BudgetError):
        judge(pairs, PANEL, ESCI, same, store, budget=budget)
    assert same.asked == []
    report = judge(pairs, PANEL, ESCI, more, store, budget=Budget(whole + bound, "tokens"))
    assert (report.reused, report.asked) == (len(counts), 15 - len(counts))
    assert sum(spent(store, pairs, teacher)) == whole


def spent_on(pairs: list[Pair], at_a_time: int, path: Path) -> list[int]:
    with JudgementStore(path) as store:
        teacher = Teacher(at_a_time=at_a_time)
        judge(pairs, PANEL, ESCI, teacher, store)
        return spent(store, pairs, teacher)


def test_a_budget_in_dollars(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher, price = Teacher(), PriceConfig(input=2.0, output=100.0)
    with pytest.raises(ConfigError, match=r"a budget of \$0.02 needs the teacher's prices; set teacher.price.input"):
        judge(pairs, PANEL, ESCI, teacher, store, budget=Budget(0.02, "usd"), price=PriceConfig(input=1.0))
    assert teacher.asked == []
    with pytest.raises(BudgetError, match=r"the budget of \$0.02 .* raise the budget"):
        judge(pairs, PANEL, ESCI, teacher, store, budget=Budget(0.02, "usd"), price=price)
    judgements = [j for j in judgements_of(pairs, PANEL, ESCI, teacher, store) if j.raw]
    cost = sum(((j.prompt_tokens or 0) * 2.0 + (j.completion_tokens or 0) * 100.0) / 1e6 for j in judgements)
    assert judgements and 0.01 < cost <= 0.02
    report = judge(pairs, PANEL, ESCI, Teacher(name="other"), store, price=price)
    assert report.cost == pytest.approx((report.tokens.prompt * 2.0 + 15 * 5 * 100.0) / 1e6)


def test_further_attempts_count_towards_the_budget(store: JudgementStore, pairs: list[Pair]) -> None:
    unsure = Teacher(lambda _: "Hm.")
    judge(pairs, PANEL[:1], ESCI, unsure, store)
    used = sum(spent(store, pairs, unsure))
    with pytest.raises(BudgetError, match=r"judgements without an answer: 0\."):
        judge(pairs, PANEL[:1], ESCI, unsure, store, retry_unparsed=2, budget=Budget(2 * used + 10, "tokens"))
    assert 5 < len(store) < 10


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_tokens": 50, "extra_body": {"max_tokens": 70}}, 70),
        ({"max_tokens": 50, "extra_body": {"max_tokens": None, "max_completion_tokens": 60}}, 60),
        ({"temperature": 1.0}, 0),
    ],
)
def test_the_bound_of_an_answer_is_what_the_request_says(
    make_pair: Callable[..., Pair], sampling: dict[str, object], tokens: int
) -> None:
    teacher = Teacher()
    teacher.sampling = canonical_json(sampling)
    (request,) = requests_of([make_pair(1)], PANEL[:1], ESCI)
    size = sum(len(message["content"].encode()) for message in request.messages)
    for spare, admitted in ((0, 1), (-1, 0)):
        spending = Spending(Budget(size + 64 + tokens + spare, "tokens"), PriceConfig(), teacher)
        assert len(list(spending.admitted(iter([request])))) == admitted
        assert (spending.held is None) == bool(admitted)


def test_what_is_left_of_a_budget_is_never_less_than_nothing() -> None:
    spent, price = Tokens(prompt=600_000, completion=100_000), PriceConfig(input=1.0, output=4.0)
    assert left_of(Budget(1_000_000, "tokens"), spent, price) == Budget(300_000, "tokens")
    assert left_of(Budget(1.5, "usd"), spent, price) == Budget(0.5, "usd")
    assert left_of(Budget(0.5, "usd"), spent, price) == Budget(0.0, "usd")
