from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from manylens.errors import ConfigError, UnknownNameError
from manylens.student.extractors import EXTRACTORS, Edges, Extractor, build_extractor, token_graph

HIDDEN, LATENTS, DIM = 4, 2, 3
#: Five tokens [CLS] q [SEP] p [SEP], of which the second row has four and one of padding.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]])
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {}),
    ("mlp", {"pooling": "cls", "width": 6}),
    ("poly", {"codes": 3}),
    ("gat", {"heads": 2, "layers": 2}),
    ("gat", {"heads": 2, "edges": "full"}),
    ("gat", {"heads": 1, "edges": "window", "window": 1}),
]

Array = NDArray[np.float64]


def make(name: str, **options: object) -> Extractor:
    torch.manual_seed(1)
    return build_extractor(name, HIDDEN, LATENTS, DIM, options).double()


def states() -> Tensor:
    return torch.randn(2, 5, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def weights(extractor: Extractor) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in extractor.named_parameters()}


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def project(pooled: Array, w: dict[str, Array]) -> Array:
    return (w["to_latents.weight"] @ pooled + w["to_latents.bias"]).reshape(LATENTS, DIM)


def check(extractor: Extractor, by_hand: Callable[[Array, int], Array]) -> None:
    """Compare each row's latents with those of its real tokens, worked out by the equations."""
    h = states()
    latents = extractor(h, MASK, SEGMENTS).detach().numpy()
    assert latents.shape == (2, LATENTS, DIM)
    for row, real in enumerate((5, 4)):
        np.testing.assert_allclose(latents[row], by_hand(h[row, :real].numpy(), row), rtol=1e-10)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_mlp_by_hand(pooling: str) -> None:
    extractor = make("mlp", pooling=pooling, width=6)
    w = weights(extractor)

    def by_hand(h: Array, row: int) -> Array:
        pooled = h[0] if pooling == "cls" else h.mean(axis=0)
        z = w["dense.weight"] @ pooled + w["dense.bias"]
        return project(np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in z]), w)

    check(extractor, by_hand)


def test_poly_by_hand() -> None:
    extractor = make("poly", codes=3)
    w = weights(extractor)

    def by_hand(h: Array, row: int) -> Array:
        contexts = []
        for code in w["codes"]:
            attention = softmax(np.array([code @ token / math.sqrt(HIDDEN) for token in h]))
            contexts.append(sum(a * token for a, token in zip(attention, h, strict=True)))
        attention = softmax(np.array([h[0] @ context / math.sqrt(HIDDEN) for context in contexts]))
        return project(sum(a * context for a, context in zip(attention, contexts, strict=True)), w)

    check(extractor, by_hand)


@pytest.mark.parametrize("layers", [1, 2])
def test_gat_by_hand(layers: int) -> None:
    extractor = make("gat", heads=2, layers=layers, edges="query_product")
    w = weights(extractor)

    def hears(i: int, j: int, row: int) -> bool:
        return i == j or j == 0 or bool(SEGMENTS[row, i] != SEGMENTS[row, j])

    def by_hand(h: Array, row: int) -> Array:
        for layer in range(layers):
            part = {name: w[f"layers.{layer}.{name}"] for name in ("project.weight", "source", "target")}
            values = [part["project.weight"] @ node for node in h]
            updated = []
            for i in range(len(h)):
                heads = []
                for k in range(2):
                    own = slice(2 * k, 2 * k + 2)
                    neighbours = [j for j in range(len(h)) if hears(i, j, row)]
                    raw = [part["source"][k] @ values[i][own] + part["target"][k] @ values[j][own] for j in neighbours]
                    alpha = softmax(np.array([e if e > 0 else 0.2 * e for e in raw]))
                    mixed = sum(a * values[j][own] for a, j in zip(alpha, neighbours, strict=True))
                    heads.append(np.where(mixed > 0, mixed, np.expm1(mixed)))
                node = h[i] + np.concatenate(heads)
                updated.append((node - node.mean()) / np.sqrt(node.var() + 1e-5))
            h = np.stack(updated)
        return project(h.mean(axis=0), w)

    check(extractor, by_hand)


FULL = [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
QUERY_PRODUCT = [[1, 0, 0, 1, 0], [1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
WINDOW = [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize(("edges", "expected"), [("full", FULL), ("query_product", QUERY_PRODUCT), ("window", WINDOW)])
def test_token_graphs_by_hand(edges: Edges, expected: list[list[int]]) -> None:
    graph = token_graph(MASK[1:], SEGMENTS[1:], edges, window=1)
    assert graph.int().tolist() == [expected]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_padding_changes_nothing(name: str, options: dict[str, Any]) -> None:
    extractor, h = make(name, **options), states()
    noise = 100 * torch.randn(2, 3, HIDDEN, dtype=torch.float64)
    padded = extractor(
        torch.cat([h, noise], dim=1),
        torch.cat([MASK, torch.zeros(2, 3, dtype=torch.bool)], dim=1),
        torch.cat([SEGMENTS, torch.ones(2, 3, dtype=torch.long)], dim=1),
    )
    torch.testing.assert_close(padded, extractor(h, MASK, SEGMENTS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_parameter_is_trained(name: str, options: dict[str, Any]) -> None:
    extractor = make(name, **options)
    extractor(states(), MASK, SEGMENTS).square().sum().backward()
    unused = [key for key, value in extractor.named_parameters() if value.grad is None or not value.grad.any()]
    assert unused == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gat", {"heads": 3}, r"gat: heads must divide the hidden size 4, got 3"),
        ("gat", {"heads": 0}, r"gat: heads must divide the hidden size 4, got 0"),
        ("gat", {"edges": "ful"}, r"unknown token graph 'ful' \(did you mean 'full'\?\)"),
        ("poly", {"codes": 0}, r"poly: codes must be at least 1, got 0"),
        ("mlp", {"width": 0}, r"mlp: width must be at least 1, got 0"),
        ("mlp", {"pooling": "max"}, r"unknown pooling 'max'; known: cls, mean"),
        ("mlp", {"codes": 3}, r"student.extractor_options do not fit extractor 'mlp': .*'codes'"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_extractor(name, HIDDEN, LATENTS, DIM, options)


def test_unknown_extractor_names_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown extractor 'pol' \(did you mean 'poly'\?\); known: mlp, poly, gat"
    ):
        build_extractor("pol", HIDDEN, LATENTS, DIM)


def test_parameter_counts_of_bert_base_and_a_1024_dimensional_encoder() -> None:
    """The table of docs/student.md: one latent, default options."""
    projection = 768 * 1024 + 1024
    expected = {
        "mlp": (768 * 768 + 768) + projection,
        "poly": 16 * 768 + projection,
        "gat": (768 * 768 + 2 * 768 + 2 * 768) + projection,
    }
    built = {name: build_extractor(name, 768, 1, 1024) for name in EXTRACTORS}
    assert {name: sum(p.numel() for p in module.parameters()) for name, module in built.items()} == expected
