"""The models that a server has loaded, and how they are loaded anew while it serves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from manylens.errors import ManylensError
from manylens.records import Pair
from manylens.serving.http.batcher import Batcher
from manylens.serving.http.errors import RequestError
from manylens.serving.http.logs import event
from manylens.serving.http.metrics import Metrics
from manylens.serving.http.settings import Settings
from manylens.serving.scorer import Scorer

_LOG = logging.getLogger(__name__)
#: What is scored once before a model serves, because engines do some of their work at first use.
_WARM_UP = Pair(pair_id="", query_id="", product_id="", query="a", title="a")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A model that is loaded.

    Attributes:
        name: The name that answers and metrics give it.
        aliases: Its other names.
        scorer: What scores.
        batcher: The way to it.
        created: When it was loaded, in seconds since 1970.
    """

    name: str
    aliases: tuple[str, ...]
    scorer: Scorer
    batcher: Batcher
    created: int = field(default_factory=lambda: int(time.time()))


class Models:
    """The loaded models by their names.

    Attributes:
        settings: The server's settings.
        metrics: The server's metrics.
    """

    def __init__(self, settings: Settings, metrics: Metrics, load: Callable[..., Scorer] | None = None) -> None:
        """Load every model.

        Args:
            settings: Names the folders, and how to load them.
            metrics: Take the batches.
            load: Loads a folder, with ``states`` where it has a store; ``None`` means `Scorer.load` with the settings.

        Raises:
            ManylensError: If a folder or its store cannot be loaded.
        """
        self.settings, self.metrics = settings, metrics
        self._load = load or partial(
            Scorer.load,
            variant=settings.variant,
            threads=settings.threads,
            token_budget=settings.batch_tokens,
            cache_products=settings.cache_products,
        )
        self._names: dict[Path, tuple[str, ...]] = {}
        for name, path in settings.models.items():
            place = path.absolute()
            self._names[place] = (*self._names.get(place, ()), name)
        self._stores = {settings.models[name].absolute(): store.absolute() for name, store in settings.states.items()}
        self._loaded = {path: self._open(path) for path in self._names}
        self._reloading = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Loaded]:
        """Yield the models, the default one first."""
        return iter(self._loaded.values())

    @property
    def default(self) -> Loaded:
        """The model of a request that names none."""
        return next(iter(self))

    @property
    def any_model(self) -> bool:
        """Whether a request that names an unknown model gets the default one."""
        asked = self.settings.any_model
        return len(self._loaded) == 1 if asked is None else asked

    def get(self, name: str | None) -> Loaded:
        """Return the model of a name.

        Raises:
            RequestError: If there is none: 404.
        """
        if not name:
            return self.default
        for model in self:
            if name == model.name or name in model.aliases:
                return model
        if self.any_model:
            return self.default
        known = ", ".join(known for model in self for known in (model.name, *model.aliases))
        raise RequestError(404, f"there is no such model; known: {known}")

    async def reload(self) -> Mapping[str, bool]:
        """Load every folder and its store anew, one after the other.

        Requests go on meanwhile, and end on the model that they began with.

        Returns:
            Whether each model was loaded; one that was not goes on as it was.
        """
        async with self._reloading:
            return {names[0]: await self._replace(path) for path, names in self._names.items()}

    async def close(self) -> None:
        """End every thread."""
        for model in self:
            model.batcher.close()
        for task in tuple(self._retired):
            task.cancel()

    async def _replace(self, path: Path) -> bool:
        old = self._loaded[path]
        try:
            new = await asyncio.to_thread(self._open, path)
        except Exception as error:  # a damaged folder must never end a server that works
            reason = str(error) if isinstance(error, ManylensError) else repr(error)
            event(_LOG, logging.ERROR, "reload failed; the model that was loaded stays", model=old.name, reason=reason)
            self.metrics.reloads.labels(old.name, "failed").inc()
            return False
        self._loaded[path] = new
        task = asyncio.create_task(self._retire(old))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        event(_LOG, logging.INFO, "reloaded", model=new.name)
        self.metrics.reloads.labels(new.name, "loaded").inc()
        return True

    async def _retire(self, old: Loaded) -> None:
        await old.batcher.drained()
        old.batcher.close()

    def _open(self, path: Path) -> Loaded:
        # Resolved first, so that a symlink that is switched meanwhile never mixes two models.
        store = self._stores.get(path)
        scorer = self._load(path.resolve(), **({} if store is None else {"states": store.resolve()}))
        scorer.probabilities([_WARM_UP])
        name, *aliases = self._names[path]
        fields = {"variant": scorer.variant, "streams": scorer.engine.streams}
        if scorer.states is not None:
            fields["states"] = scorer.states.precision
            scorer.states.misses = 0  # That of the warm-up.
        event(_LOG, logging.INFO, "loaded", model=name, **fields)
        batcher = Batcher(
            scorer=scorer,
            max_pairs=self.settings.max_queue_pairs,
            on_batch=partial(self.metrics.batch, name),
        )
        return Loaded(name=name, aliases=tuple(aliases), scorer=scorer, batcher=batcher)
