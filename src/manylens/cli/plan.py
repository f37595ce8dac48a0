"""Commands that show what judging would ask and cost, before it is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from manylens.cli.app import Overrides, Recipe, Run, app, errors, output
from manylens.progress import console

if TYPE_CHECKING:
    from manylens.config import Config
    from manylens.data import Pairs
    from manylens.teacher import JudgementStore
    from manylens.teacher.backends import Backend


@app.command(rich_help_panel="Teacher")
def plan(recipe: Recipe, overrides: Overrides = None, folder: Run = None) -> None:
    """Show what judging would ask and cost. Nothing is asked, and nothing is written."""
    with errors():
        from manylens.artefacts import judgement_store_path
        from manylens.data import recorded_judgements
        from manylens.pipeline import load_or_read_pairs
        from manylens.recipe import load_config
        from manylens.run_folder import RunFolder
        from manylens.teacher import JudgementStore, build_backend

        config = load_config(recipe, overrides or [])
        run = RunFolder.of(config, folder)
        backend = build_backend(config.teacher, recorded_judgements(config.data))
        pairs = load_or_read_pairs(config, folder)
        path = judgement_store_path(run)
        if path.exists():
            with JudgementStore(path) as store:
                _show_plan(config, pairs, backend, store)
        else:
            _show_plan(config, pairs, backend, None)


@app.command(rich_help_panel="Teacher")
def preview(
    recipe: Recipe,
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to show.")] = 5,
    prompts: Annotated[bool, typer.Option("--prompts", help="Show the prompts only, and ask nothing.")] = False,
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Judge a few pairs from all perspectives and show them side by side. The answers are kept for the run."""
    with errors():
        from manylens.artefacts import judgement_store_path
        from manylens.data import recorded_judgements
        from manylens.pipeline import load_or_read_pairs
        from manylens.recipe import load_config
        from manylens.run_folder import RunFolder
        from manylens.teacher import JudgementStore, build_backend
        from manylens.teacher.preview import preview as judge_some
        from manylens.teacher.preview import preview_view

        config = load_config(recipe, overrides or [])
        run = RunFolder.of(config, folder)
        backend = build_backend(config.teacher, recorded_judgements(config.data))
        pairs = load_or_read_pairs(config, folder)
        if prompts:
            _show_prompts(config, pairs, backend, count)
            return
        with run.locked(), JudgementStore(judgement_store_path(run)) as store:
            output.print(preview_view(judge_some(config, pairs, backend, store, count), output.width))
            console.print(f"answers ─► {store.path}", soft_wrap=True, markup=False)
            _show_plan(config, pairs, backend, store)


def _show_plan(config: Config, pairs: Pairs, backend: Backend, store: JudgementStore | None) -> None:
    from manylens.teacher.plan import plan as count
    from manylens.teacher.plan_table import further_work, plan_table

    output.print(plan_table(count(config, pairs, backend, store)))
    for sentence in further_work(config, pairs):
        output.print(f"{sentence}.", markup=False)


def _show_prompts(config: Config, pairs: Pairs, backend: Backend, count: int) -> None:
    from manylens.teacher import load_perspective
    from manylens.teacher.plan import draw
    from manylens.teacher.questions import requests_of
    from manylens.teacher.tokens import token_counter

    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    counter = token_counter(config.teacher)
    drawn = draw(pairs.split(*config.judge.splits), count, config.seed)
    for request in requests_of(drawn, perspectives, config.labels.build(), answer_format=backend.answer_format):
        about = "" if counter.exact else "about "
        tokens = f"{about}{counter.count(request.messages):,} tokens"
        console.print(f"[bold]━━ {escape(request.pair_id)}, {escape(request.perspective)}, {tokens}[/]")
        for message in request.messages:
            console.print(f"[dim]── {message['role']}[/]")
            typer.echo(message["content"])
