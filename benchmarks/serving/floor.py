"""What an encoder must compute, and how many pairs a second that leaves a machine at its peak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedConfig


def pair_flops(config: PreTrainedConfig, lengths: Sequence[int]) -> float:
    """Return the operations of a pair, in the mean, padding and the head left out.

    A multiplication with its addition counts as two. In a layer, with h the hidden size, i the feed-forward size and
    L the tokens, the products with weights take 2 (4 h^2 + 2 h i) L and those of attention 4 h L^2. For MiniLM of
    6 layers that is 21.2 million a token and 9,216 L^2 a pair.

    Args:
        config: Of a BERT-like encoder.
        lengths: Tokens of each pair.
    """
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens = np.asarray(lengths, dtype=np.float64)
    weights = 2 * (4 * hidden**2 + 2 * hidden * inner) * tokens
    return float(layers * (weights + 4 * hidden * tokens**2).mean())
