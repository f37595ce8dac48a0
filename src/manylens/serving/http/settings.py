"""What an operator decides of a server; `manylens serve` has the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manylens.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A server's settings; bytes, characters, pairs and tokens are whole numbers, times are in seconds.

    Attributes:
        models: From names to folders, as `Scorer.load` takes them; the first is the default. Two names of one folder
            are one model under two names.
        states: From names of models to the stores of products' states that they read, as `Scorer.load` takes them.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        variant: As `Scorer.load` takes it.
        threads: Cores of each model; ``None`` means the physical ones.
        batch_tokens: Most tokens of a batch; ``None`` means what suits the engine.
        cache_products: Products of each model whose token ids are kept.
        any_model: Whether a request that names an unknown model gets the default one; ``None`` means only where one
            model is loaded.
        api_key: What a request must bring; ``None`` means nothing.
        page: Whether there is a page at ``/``.
        max_requests: Most requests at a time, those that are still sent included.
        max_queue_pairs: Most pairs of a model that wait or are scored at a time; a request that finds none waiting is
            taken whatever its size.
        max_body_bytes: Most bytes of a request's body.
        max_texts: Most texts, products or pairs of a request.
        max_text_chars: Most characters of a query, or of all fields of a product.
        timeout: Until a request's scores must be there.
        body_timeout: Until a request's body must be there.
        header_timeout: Until a request's headers must be there.
        keep_alive: How long a connection without a request is kept.
        drain_delay: How long the server goes on after SIGTERM with ``/ready`` saying no.
        drain: How long accepted requests may take to end after that.
        otel: Whether requests are traced with OpenTelemetry, as its variables ``OTEL_*`` say.
    """

    models: Mapping[str, Path]
    states: Mapping[str, Path] = field(default_factory=dict)
    host: str
    port: int
    variant: str | None
    threads: int | None
    batch_tokens: int | None
    cache_products: int
    any_model: bool | None
    api_key: str | None = field(repr=False)
    page: bool
    max_requests: int
    max_queue_pairs: int
    max_body_bytes: int
    max_texts: int
    max_text_chars: int
    timeout: float
    body_timeout: float
    header_timeout: float
    keep_alive: int
    drain_delay: float
    drain: int
    otel: bool = False


def parse_models(words: list[str]) -> dict[str, Path]:
    """Return the models that a command line names.

    Args:
        words: Each ``PATH``, whose name is its last folder's, or ``NAME=PATH``.

    Raises:
        ConfigError: If a name is empty or comes twice.
    """
    models: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            name, path = Path(word).absolute().name, word
        if not name or not path:
            raise ConfigError(f"a model is PATH or NAME=PATH, got {word!r}")
        if name in models:
            raise ConfigError(f"two models are called {name!r}; name them apart as NAME=PATH")
        models[name] = Path(path)
    return models


def parse_states(words: list[str], models: Mapping[str, Path]) -> dict[str, Path]:
    """Return the stores of states that a command line names, by their models' names.

    Args:
        words: Each ``PATH``, where there is one model alone, or ``NAME=PATH``.
        models: The models, as `parse_models` returns them.

    Raises:
        ConfigError: If a store's model is not said, or a model has two stores.
        UnknownNameError: If there is no model of that name.
    """
    states: dict[str, Path] = {}
    stores: dict[Path, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals and len({folder.absolute() for folder in models.values()}) == 1:
            name, path = next(iter(models)), word
        if not name or not path:
            raise ConfigError(
                "a store of states is PATH where there is one model, and NAME=PATH where there are several, got "
                f"{word!r} for {', '.join(models)}"
            )
        if name not in models:
            raise UnknownNameError("model", name, models)
        states[name] = Path(path)
        other = stores.setdefault(models[name].absolute(), states[name])
        if other != states[name]:
            raise ConfigError(f"the model {name!r} has two stores of states, {other} and {path}; take one of them")
    return states
