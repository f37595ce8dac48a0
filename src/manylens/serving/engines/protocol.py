"""What an engine is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

#: Arrays by the name of a graph's input or output.
Arrays = Mapping[str, NDArray[Any]]


class Engine(Protocol):
    """Computes batches of padded pairs; safe to call from several threads.

    Attributes:
        inputs: The arrays that it reads, such as ``input_ids`` and ``attention_mask``.
        outputs: The arrays that it returns; ``probabilities`` (rows, classes) is among them.
        streams: Batches that run best at the same time, each called from a thread of its own.
        token_budget: Tokens of a batch, padding included, that run best.
        call_tokens: What a call costs beside its tokens, in tokens.
        few_shapes: Whether every shape of batch that it has not met costs it a compilation.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """See the class."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """See the class."""
        ...

    @property
    def streams(self) -> int:
        """See the class."""
        ...

    @property
    def token_budget(self) -> int:
        """See the class."""
        ...

    @property
    def call_tokens(self) -> int:
        """See the class."""
        ...

    @property
    def few_shapes(self) -> bool:
        """See the class."""
        ...

    def run(self, batch: Mapping[str, NDArray[np.int64]], *, alone: bool = False) -> Arrays:
        """Compute one batch.

        Args:
            batch: From the names of `inputs` to arrays of shape (rows, tokens).
            alone: No other batch runs at the same time, so this one may use every core.

        Returns:
            From the names of `outputs` to arrays, a row for each row of the batch.
        """
        ...


def physical_cores() -> int:
    """Return the physical cores that this process may use; a core's second thread adds nothing to matrix products."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
