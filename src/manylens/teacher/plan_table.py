"""A plan for the terminal."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from manylens.config import Config, PriceConfig
from manylens.data import Pairs
from manylens.teacher.plan import PerspectivePlan, Plan
from manylens.teacher.spending import dollars
from manylens.teacher.tokens import CHARACTERS_PER_TOKEN


def plan_table(plan: Plan) -> Table:
    """Lay out what judging would ask and cost.

    Args:
        plan: The plan.

    Returns:
        The table, a row for each perspective; ``≤`` marks what is an upper bound.
    """
    table = Table(title=f"to ask of {escape(plan.teacher)}", box=box.SIMPLE_HEAD, pad_edge=False, min_width=64)
    table.add_column("perspective", overflow="fold")
    for heading in ("judged", "to ask", "prompt\ntokens", "answer\ntokens", "US$"):
        table.add_column(heading, justify="right")
    for each in plan.perspectives:
        table.add_row(escape(each.perspective), *_cells(each, each.known, plan.price))
    if len(plan.perspectives) > 1:
        table.add_section()
        table.add_row("all", *_cells(plan, sum(each.known for each in plan.perspectives), plan.price))
    remarks = ["Recorded judgements cost nothing"] if plan.recorded else _remarks(plan)
    table.caption = escape(" ".join(f"{remark}." for remark in remarks))
    return table


def further_work(config: Config, pairs: Pairs) -> list[str]:
    """Say roughly what later stages ask: of the tuned teacher, which runs here, or of the teacher once more.

    Args:
        config: The recipe.
        pairs: Its pairs, of all splits.

    Returns:
        A sentence for each kind of request; none where there are no such.
    """
    said, tune, annotate = [], config.tune, config.annotate
    if tune is not None:
        teachers = 1 if tune.teachers == "unified" else len(config.curate.sft_perspectives or config.judge.perspectives)
        phases = 1 + (tune.sft is not None) + (tune.dpo is not None)
        measured = min(tune.measure_pairs or len(pairs), len(pairs.split("dev"))) * phases * teachers
        annotated = len(pairs.split(*annotate.splits)) * annotate.samples * teachers
        said.append(
            f"tune measures its teacher by about {measured:,} answers and annotate asks it {annotated:,} times, "
            "both with the model that was tuned here"
        )
    if annotate.rationalize:
        said.append("annotate asks once more for each train pair whose gold label no judgement reached")
    return said


def _cells(counts: PerspectivePlan | Plan, known: int, price: PriceConfig) -> list[str]:
    tokens, bound = counts.tokens, "≤ " if counts.is_bound else ""
    cost = tokens.cost(price)
    return [
        f"{known:,}",
        f"{counts.requests:,}",
        f"{tokens.prompt:,}",
        f"{bound}{tokens.completion:,}",
        "unknown" if cost is None else bound + dollars(cost).removeprefix("$"),
    ]


def _remarks(plan: Plan) -> list[str]:
    prompts = "the teacher's tokenizer" if plan.exact else f"{CHARACTERS_PER_TOKEN} characters a token"
    said = [f"Prompts: by {prompts}"]
    if plan.counted_pairs < plan.pairs:
        said[0] += f", on {plan.counted_pairs:,} of {plan.pairs:,} pairs and scaled up"
    if plan.is_bound:
        said.append("Answers: at most max_tokens each; manylens preview RECIPE gets some to go by")
    elif plan.requests:
        answers = sum(each.answers for each in plan.perspectives)
        said.append(f"Answers: as long as the {answers:,} in the store, by perspective")
    if plan.price.input is None or plan.price.output is None:
        said.append("US$: set teacher.price.input and teacher.price.output, for a million tokens each")
    if plan.spent.total:
        cost = plan.spent.cost(plan.price)
        said.append(f"Spent so far: {plan.spent.total:,} tokens" + (f", {dollars(cost)}" if cost is not None else ""))
    return said
