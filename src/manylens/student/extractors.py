"""Latent reasoning extractors: from the encoder's token states to the latent reasoning vector r.

Every extractor maps token states H of shape (batch, tokens, hidden) to latents of shape
(batch, latents, dim), where dim is the rationale encoder's dimension (section 3.3 of arXiv
2601.21611). They are plain torch, so that they export inside the student's graph.

A further extractor is one class here, or anywhere, and one entry in `EXTRACTORS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from manylens.errors import ConfigError, UnknownNameError

Edges = Literal["full", "query_product", "window"]


class Extractor(nn.Module):
    """Base of the extractors; a subclass implements `pool`.

    Args:
        hidden_size: Width of the token states.
        pooled_size: Width of what `pool` returns.
        num_latents: Latents per pair: one, or one for each perspective.
        latent_dim: Dimension of a latent.
    """

    def __init__(self, hidden_size: int, pooled_size: int, num_latents: int, latent_dim: int) -> None:
        """Create the projection from the pooled state to the latents."""
        super().__init__()
        self.hidden_size, self.num_latents, self.latent_dim = hidden_size, num_latents, latent_dim
        self.to_latents = nn.Linear(pooled_size, num_latents * latent_dim)

    def pool(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Summarise the token states.

        Args:
            states: (batch, tokens, hidden) token states, [CLS] first.
            mask: (batch, tokens) bool, true for real tokens.
            segments: (batch, tokens) int, 0 up to and including the first [SEP], 1 behind it.

        Returns:
            (batch, pooled).
        """
        raise NotImplementedError

    def forward(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return the latents, of shape (batch, num_latents, latent_dim); arguments as for `pool`."""
        latents = self.to_latents(self.pool(states, mask, segments))
        return torch.unflatten(latents, -1, (self.num_latents, self.latent_dim))


class MLPExtractor(Extractor):
    """A two-layer perceptron on one pooled state: ``r = W2 gelu(W1 h + b1) + b2``.

    Args:
        hidden_size: Width of the token states.
        num_latents: Latents per pair.
        latent_dim: Dimension of a latent.
        width: Units of the hidden layer; ``None`` means `hidden_size`.
        pooling: h is the state of [CLS] (``cls``), or the mean over the real tokens (``mean``), which
            keeps [CLS] free for the classifier.
    """

    def __init__(
        self,
        hidden_size: int,
        num_latents: int,
        latent_dim: int,
        *,
        width: int | None = None,
        pooling: Literal["cls", "mean"] = "mean",
    ) -> None:
        """Create the layers."""
        width = hidden_size if width is None else width
        if width < 1:
            raise ConfigError(f"mlp: width must be at least 1, got {width}")
        super().__init__(hidden_size, width, num_latents, latent_dim)
        if pooling not in ("cls", "mean"):
            raise UnknownNameError("pooling", pooling, ("cls", "mean"))
        self.pooling = pooling
        self.dense = nn.Linear(hidden_size, width)

    def pool(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return the hidden layer's activation, of shape (batch, width)."""
        pooled = states[:, 0] if self.pooling == "cls" else masked_mean(states, mask)
        return nn.functional.gelu(self.dense(pooled))


class PolyExtractor(Extractor):
    """Learned codes attend to the tokens, and [CLS] attends to the codes (Poly-Encoder).

    After Humeau et al., 2020 (arXiv 1905.01969, section 4.4), with [CLS] in the candidate's place::

        a_i = sum_t softmax_t(c_i . h_t / sqrt(d)) h_t          for each of the m codes c_i
        z   = sum_i softmax_i(h_CLS . a_i / sqrt(d)) a_i
        r   = W z + b

    Args:
        hidden_size: Width d of the token states.
        num_latents: Latents per pair.
        latent_dim: Dimension of a latent.
        codes: How many codes, m.
    """

    def __init__(self, hidden_size: int, num_latents: int, latent_dim: int, *, codes: int = 16) -> None:
        """Create the codes."""
        super().__init__(hidden_size, hidden_size, num_latents, latent_dim)
        if codes < 1:
            raise ConfigError(f"poly: codes must be at least 1, got {codes}")
        self.codes = nn.Parameter(torch.randn(codes, hidden_size))
        self.scale = hidden_size**-0.5

    def pool(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return z, of shape (batch, hidden)."""
        scores = (states @ (self.codes * self.scale).T).transpose(1, 2)
        contexts = _masked_softmax(scores, mask[:, None, :]) @ states
        weights = (contexts @ (states[:, 0] * self.scale).unsqueeze(2)).transpose(1, 2).softmax(dim=-1)
        pooled: Tensor = (weights @ contexts).squeeze(1)
        return pooled


class GraphAttention(nn.Module):
    """One layer of multi-head graph attention (Velickovic et al., 2018, arXiv 1710.10903, eqs. 1 to 5).

    With nodes h, edges N and heads k::

        e_ij = leaky_relu(s_k . W_k h_i + t_k . W_k h_j)        (the paper's a = [s; t])
        h'_i = concat_k elu(sum_{j in N(i)} softmax_j(e_ij) W_k h_j)

    followed by a residual connection and layer normalisation.

    Args:
        hidden_size: Width of the nodes.
        heads: Attention heads; must divide `hidden_size`.
        negative_slope: Slope of the leaky ReLU.
    """

    def __init__(self, hidden_size: int, heads: int, negative_slope: float = 0.2) -> None:
        """Create the layer."""
        super().__init__()
        if heads < 1 or hidden_size % heads:
            raise ConfigError(f"gat: heads must divide the hidden size {hidden_size}, got {heads}")
        self.heads, self.negative_slope = heads, negative_slope
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)
        self.source = nn.Parameter(torch.empty(heads, hidden_size // heads))
        self.target = nn.Parameter(torch.empty(heads, hidden_size // heads))
        self.norm = nn.LayerNorm(hidden_size)
        nn.init.xavier_uniform_(self.source)
        nn.init.xavier_uniform_(self.target)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Return the nodes after one round.

        Args:
            nodes: (batch, nodes, hidden).
            edges: (batch, nodes, nodes) bool; ``edges[b, i, j]``: node i hears node j. Every node
                needs at least one edge.

        Returns:
            (batch, nodes, hidden).
        """
        values = self.project(nodes).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        heard = values @ self.source.unsqueeze(2) + (values @ self.target.unsqueeze(2)).transpose(2, 3)
        scores = nn.functional.leaky_relu(heard, self.negative_slope)
        mixed = (_masked_softmax(scores, edges[:, None]) @ values).transpose(1, 2).flatten(2)
        updated: Tensor = self.norm(nodes + nn.functional.elu(mixed))
        return updated


class GATExtractor(Extractor):
    """Graph attention over token nodes, then the mean over the nodes (the paper's best extractor).

    The paper does not publish its token graph; these are the choices:

    - ``full``: every token hears every token.
    - ``query_product``: a query token hears the product's tokens and a product token the query's, so
      that an edge is a comparison; [CLS] and each token itself are always heard.
    - ``window``: a token hears those at most `window` positions away, and [CLS].

    Args:
        hidden_size: Width of the token states.
        num_latents: Latents per pair.
        latent_dim: Dimension of a latent.
        layers: Rounds of attention.
        heads: Heads of each round.
        edges: The token graph.
        window: Reach of the ``window`` graph, in tokens.
    """

    def __init__(
        self,
        hidden_size: int,
        num_latents: int,
        latent_dim: int,
        *,
        layers: int = 1,
        heads: int = 4,
        edges: Edges = "query_product",
        window: int = 8,
    ) -> None:
        """Create the layers."""
        super().__init__(hidden_size, hidden_size, num_latents, latent_dim)
        if edges not in ("full", "query_product", "window"):
            raise UnknownNameError("token graph", edges, ("full", "query_product", "window"))
        self.edges, self.window = edges, window
        self.layers = nn.ModuleList(GraphAttention(hidden_size, heads) for _ in range(layers))

    def pool(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return the mean node, of shape (batch, hidden)."""
        graph = token_graph(mask, segments, self.edges, self.window)
        for layer in self.layers:
            states = layer(states, graph)
        return masked_mean(states, mask)


def token_graph(mask: Tensor, segments: Tensor, edges: Edges, window: int) -> Tensor:
    """Return the adjacency of the token graph.

    Args:
        mask: (batch, tokens) bool, true for real tokens.
        segments: (batch, tokens) int, 0 for the query and 1 for the product.
        edges: Which graph.
        window: Reach of the ``window`` graph.

    Returns:
        (batch, tokens, tokens) bool; ``[b, i, j]``: token i hears token j. Padding hears only itself,
        and nothing hears it.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    itself = (positions[:, None] == positions[None, :])[None]
    to_first = (positions == 0)[None, None, :]
    if edges == "full":
        heard = torch.ones_like(itself)
    elif edges == "query_product":
        heard = (segments[:, :, None] != segments[:, None, :]) | to_first
    else:
        heard = ((positions[:, None] - positions[None, :]).abs() <= window)[None] | to_first
    real = mask[:, :, None] & mask[:, None, :]
    return (heard & real) | itself


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens, (batch, hidden), of (batch, tokens, hidden) under a mask (batch, tokens)."""
    weights = mask.to(states.dtype)
    return (weights.unsqueeze(1) @ states).squeeze(1) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)


EXTRACTORS: dict[str, type[Extractor]] = {"mlp": MLPExtractor, "poly": PolyExtractor, "gat": GATExtractor}


def build_extractor(
    name: str, hidden_size: int, num_latents: int, latent_dim: int, options: Mapping[str, Any] | None = None
) -> Extractor:
    """Return the extractor called `name`.

    Args:
        name: A key of `EXTRACTORS`.
        hidden_size: Width of the backbone's token states.
        num_latents: Latents per pair.
        latent_dim: Dimension of a latent: the rationale encoder's.
        options: Keyword arguments of the extractor's own.

    Raises:
        UnknownNameError: If there is no such extractor.
        ConfigError: If it does not take one of the options.
    """
    if name not in EXTRACTORS:
        raise UnknownNameError("extractor", name, EXTRACTORS)
    try:
        return EXTRACTORS[name](hidden_size, num_latents, latent_dim, **(options or {}))
    except TypeError as error:
        raise ConfigError(f"student.extractor_options do not fit extractor {name!r}: {error}") from None
