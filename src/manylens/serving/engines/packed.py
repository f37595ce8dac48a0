"""Encoding without padding: the tokens of all pairs in one row, each of which attends to its own pair's alone."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from manylens.student.model import LatentReasoningForSequenceClassification

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # An older PyTorch.
    varlen_attn = None  # type: ignore[assignment]

#: The attention's name in transformers' `AttentionInterface`.
ATTENTION = "manylens_packed"
#: Types of backbones whose positions count from 0 and whose layers hand keyword arguments to their attention.
BACKBONES = ("bert", "electra")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    bounds: Tensor,
    longest: int,
    **kwargs: Any,  # noqa: ANN401 - transformers passes more than is needed
) -> tuple[Tensor, None]:
    """Return the attention of each pair within itself: by FlashAttention on a GPU, one pair after the other on a CPU.

    Args:
        module: The attention layer.
        query: (1, heads, tokens, dim), the pairs one behind the other; fp16 or bf16 on a GPU.
        key: As `query`.
        value: As `query`.
        attention_mask: Ignored: there is no padding.
        scaling: Of the scores; ``None`` means one over the square root of dim.
        bounds: (pairs + 1,) int32, where each pair begins, and the end of the last one.
        longest: At least the tokens of the longest pair.
        **kwargs: Ignored.

    Returns:
        (1, tokens, heads, dim), and no weights.
    """
    if query.is_cuda:
        q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
        found = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling)
        return cast("Tensor", found)[None], None
    sizes = bounds.diff().tolist()
    pairs = zip(*(each.split(sizes, dim=2) for each in (query, key, value)), strict=True)
    heard = [scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in pairs]
    return torch.cat(heard, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)


def can_pack(student: LatentReasoningForSequenceClassification, device: torch.device) -> bool:
    """Return whether a student's encoder runs without padding, and is faster so: on a GPU with FlashAttention.

    Args:
        student: The student.
        device: Where it runs.
    """
    return (
        student.config.backbone_config.model_type in BACKBONES
        and not student.config.split_layers
        and device.type == "cuda"
        and varlen_attn is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def packed_states(backbone: PreTrainedModel, input_ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
    """Return the last states of a padded batch, whose padding the encoder never sees.

    Args:
        backbone: The encoder, of one of `BACKBONES`, with the attention `ATTENTION`.
        input_ids: (pairs, tokens), padded on the right.
        mask: (pairs, tokens), true or 1 for real tokens.
        types: (pairs, tokens) token types, for backbones that have them.

    Returns:
        (pairs, tokens, hidden) states, 0 where there is padding.
    """
    real = mask.bool()
    places = torch.arange(real.shape[1], device=real.device).expand_as(input_ids)
    outputs = backbone(
        input_ids=input_ids[real][None],
        position_ids=places[real][None],
        **({} if types is None else {"token_type_ids": types[real][None]}),
        bounds=pad(real.sum(dim=1).cumsum(dim=0), (1, 0)).int(),
        longest=real.shape[1],
    )
    packed: Tensor = outputs.last_hidden_state[0]
    states = packed.new_zeros(*real.shape, packed.shape[-1])
    states[real] = packed
    return states
