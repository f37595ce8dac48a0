"""Attention and dropout that train faster on a CPU than PyTorch's, and compute the same.

On a CPU the backward pass of PyTorch's fused attention is slow, transformers' eager one takes the softmax in fp32
under autocast, and dropout draws a number of its own for every element. Nothing of this is saved with a model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

#: The attention's name in transformers' `AttentionInterface`.
ATTENTION = "manylens_cpu"
_LEVELS = 1 << 16


def drop(values: Tensor, probability: float) -> Tensor:
    """Zero elements at random and scale up the others, as `torch.nn.functional.dropout` in training.

    One 64-bit number of PyTorch's generator serves four elements, so the probability is rounded to 1/65536.

    Args:
        values: Any shape.
        probability: Of an element's being zeroed, in [0, 1).
    """
    dropped, count = round(_LEVELS * probability), values.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    mask = (numbers >= dropped - _LEVELS // 2).view(values.shape).to(values.dtype)
    return values * mask.mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `drop`."""

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements in training."""
        return drop(values, self.p) if self.training and 0.0 < self.p < 1.0 else super().forward(values)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,  # noqa: ANN401 - transformers passes more than is needed
) -> tuple[Tensor, None]:
    """Return scaled dot-product attention, in the precision of `value` throughout.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: (batch, key heads, tokens, dim); the query's heads are a multiple of the key's.
        value: As `key`.
        attention_mask: (batch, 1, tokens or 1, tokens) bool, true where a token may be looked at; all if ``None``.
        scaling: Of the scores; ``None`` means one over the square root of dim.
        dropout: Probability of an attention weight's being zeroed, in training.
        **kwargs: Ignored.

    Returns:
        (batch, tokens, heads, dim), and no weights.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    # Rotary embeddings leave query and key in fp32, which autocast would mend, were it on.
    query, key = query.to(value.dtype), key.to(value.dtype)
    # Autocast would take the softmax in fp32 and carry the weights to and fro; a bf16 softmax sums in fp32 inside.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        if module.training and dropout > 0.0:
            weights = drop(weights, dropout)
        return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def train_on_cpu(backbone: PreTrainedModel, *, choose_attention: bool = True) -> None:
    """Give an encoder what trains faster on a CPU; one that brings its own attention keeps it.

    Args:
        backbone: The encoder.
        choose_attention: Whether its attention may be chosen too.
    """
    if choose_attention and type(backbone)._can_set_attn_implementation():
        backbone.set_attn_implementation(ATTENTION)
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
