"""The command that serves exported students over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from manylens.cli.app import app, errors


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="An export, a run or a student's folder, as PATH or NAME=PATH; the first one is the default.",
            envvar="MANYLENS_MODELS",
        ),
    ],
    states: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE",
            help="What precompute stored for a split student, as PATH or, with several models, NAME=PATH.",
            envvar="MANYLENS_STATES",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.", envvar="MANYLENS_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", envvar="MANYLENS_PORT", min=0)] = 8080,
    variant: Annotated[
        str | None,
        typer.Option(help="Such as onnx_int8 or torch; the fastest one by default.", envvar="MANYLENS_VARIANT"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Cores of a model; all by default.", envvar="MANYLENS_THREADS", min=1),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of a batch; the engine's choice by default.", envvar="MANYLENS_BATCH_TOKENS", min=1
        ),
    ] = None,
    cache_products: Annotated[
        int,
        typer.Option(help="Products of each model whose tokens are kept.", envvar="MANYLENS_CACHE_PRODUCTS", min=0),
    ] = 50_000,
    any_model: Annotated[
        bool | None,
        typer.Option(
            "--any-model/--no-any-model",
            help="Whether an unknown model's name means the default model; by default only where one is loaded.",
            envvar="MANYLENS_ANY_MODEL",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="The key that a request must bring.", envvar="MANYLENS_API_KEY"),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page", help="Whether there is a page at / to try the models.", envvar="MANYLENS_PAGE"
        ),
    ] = True,
    max_requests: Annotated[
        int, typer.Option(help="Most requests at a time.", envvar="MANYLENS_MAX_REQUESTS", min=1)
    ] = 512,
    max_queue_pairs: Annotated[
        int,
        typer.Option(help="Most pairs of a model that wait or are scored.", envvar="MANYLENS_MAX_QUEUE_PAIRS", min=1),
    ] = 4096,
    max_body_bytes: Annotated[
        int, typer.Option(help="Most bytes of a body.", envvar="MANYLENS_MAX_BODY_BYTES", min=1)
    ] = 8_388_608,
    max_texts: Annotated[int, typer.Option(help="Most texts of a request.", envvar="MANYLENS_MAX_TEXTS", min=1)] = 1000,
    max_text_chars: Annotated[
        int, typer.Option(help="Most characters of a query or a product.", envvar="MANYLENS_MAX_TEXT_CHARS", min=1)
    ] = 100_000,
    timeout_ms: Annotated[
        int, typer.Option(help="Until a request's scores must be there.", envvar="MANYLENS_TIMEOUT_MS", min=1)
    ] = 10_000,
    body_timeout_ms: Annotated[
        int, typer.Option(help="Until a request's body must be there.", envvar="MANYLENS_BODY_TIMEOUT_MS", min=1)
    ] = 10_000,
    header_timeout_ms: Annotated[
        int, typer.Option(help="Until a request's headers must be there.", envvar="MANYLENS_HEADER_TIMEOUT_MS", min=1)
    ] = 10_000,
    keep_alive_s: Annotated[
        int, typer.Option(help="How long an idle connection is kept.", envvar="MANYLENS_KEEP_ALIVE_S", min=1)
    ] = 60,
    drain_delay_s: Annotated[
        float,
        typer.Option(
            help="How long to serve on after SIGTERM, with /ready saying no.", envvar="MANYLENS_DRAIN_DELAY_S", min=0
        ),
    ] = 0.0,
    drain_s: Annotated[
        int, typer.Option(help="How long accepted requests may take after that.", envvar="MANYLENS_DRAIN_S", min=0)
    ] = 30,
    otel: Annotated[
        bool,
        typer.Option(
            "--otel/--no-otel", help="Whether OpenTelemetry traces requests, as OTEL_* say.", envvar="MANYLENS_OTEL"
        ),
    ] = False,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.", envvar="MANYLENS_LOG_LEVEL")
    ] = "info",
) -> None:
    """Serve models over HTTP: /rerank as text-embeddings-inference, Cohere and Jina have it, and /predict."""
    with errors():
        try:
            from manylens.serving.http.server import serve as run
            from manylens.serving.http.settings import Settings, parse_models, parse_states
        except ModuleNotFoundError as error:
            from manylens.errors import MissingExtraError

            raise MissingExtraError(error.name or "fastapi", "serve") from None
        from manylens.errors import UnknownNameError

        levels = ("debug", "info", "warning", "error")
        if log_level not in levels:
            raise UnknownNameError("log level", log_level, levels)
        folders = parse_models(models)
        settings = Settings(
            models=folders,
            states=parse_states(states or [], folders),
            host=host,
            port=port,
            variant=variant,
            threads=threads,
            batch_tokens=batch_tokens,
            cache_products=cache_products,
            any_model=any_model,
            api_key=api_key,
            page=page,
            max_requests=max_requests,
            max_queue_pairs=max_queue_pairs,
            max_body_bytes=max_body_bytes,
            max_texts=max_texts,
            max_text_chars=max_text_chars,
            timeout=timeout_ms / 1000,
            body_timeout=body_timeout_ms / 1000,
            header_timeout=header_timeout_ms / 1000,
            keep_alive=keep_alive_s,
            drain_delay=drain_delay_s,
            drain=drain_s,
            otel=otel,
        )
        run(settings, log_level=log_level)
