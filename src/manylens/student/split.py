"""The split encoder: in the first layers query and product do not see each other, so a product's states can be stored.

After PreTTR (MacAvaney et al., 2020, arXiv 2004.14255, section 4). With n split layers, a query segment and a product
segment::

    [CLS] query [SEP]   positions 0, 1, ...      types 0
    product [SEP]       positions 1, 2, ...      types 1, where the backbone has two

each token attends to its own segment in layers 1 to n, and to both segments from layer n + 1 on. The product's
positions restart behind the place of a [CLS] of its own, whatever the query's length, so its states after layer n
depend on the product alone. A backbone that counts positions from another number than 0, as XLM-R does, counts both
segments from it.

The same functions serve training, which masks whole pairs, and serving, where `LowerQuery` and `LowerProduct` run
alone and `Upper` joins what they return.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_bidirectional_mask

from manylens.errors import ConfigError
from manylens.student.cpu import ATTENTION

if TYPE_CHECKING:
    from manylens.student.model import LatentReasoningForSequenceClassification

#: Types of backbones whose embeddings take position ids and whose layers take a mask.
BACKBONES = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
#: Attentions that can keep two segments apart.
ATTENTIONS = ("eager", "sdpa", ATTENTION)


def check_split(config: PreTrainedConfig, layers: int) -> None:
    """Check that a backbone can be split.

    Args:
        config: The backbone's configuration.
        layers: In how many first layers query and product are apart; 0 always can.

    Raises:
        ConfigError: If the backbone or its attention is of another kind, or has too few layers.
    """
    if layers == 0:
        return
    if config.model_type not in BACKBONES:
        raise ConfigError(
            f"student.split_layers is for backbones of the types {', '.join(BACKBONES)}, got {config.model_type!r}; "
            "leave it out, or take another backbone"
        )
    if not 0 < layers < config.num_hidden_layers:
        raise ConfigError(
            f"student.split_layers must lie below the backbone's {config.num_hidden_layers} layers, got {layers}; "
            "in the last layers query and product have to meet"
        )
    if config._attn_implementation not in (None, *ATTENTIONS):
        raise ConfigError(
            f"student.split_layers needs one of the attentions {', '.join(ATTENTIONS)}, "
            f"got {config._attn_implementation!r}; set student.backbone_options.attn_implementation"
        )


def split_states(backbone: PreTrainedModel, input_ids: Tensor, mask: Tensor, segments: Tensor, layers: int) -> Tensor:
    """Return the token states of whole pairs, (batch, tokens, hidden).

    Args:
        backbone: The encoder.
        input_ids: (batch, tokens), padded on the right.
        mask: (batch, tokens), true or 1 for real tokens.
        segments: (batch, tokens) int, 0 for the query and 1 for the product and the padding.
        layers: In how many first layers the segments are apart.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    queries = (segments == 0).sum(dim=1, keepdim=True)
    positions = torch.where(segments == 0, places, places - queries + 1)
    states = _embed(backbone, input_ids, segments, positions)

    def together(batch: Tensor, head: Tensor, token: Tensor, heard: Tensor) -> Tensor:
        # Padding looks at the product, because a row that looks at nothing has no softmax.
        return segments[batch, token] == segments[batch, heard]

    # As `create_bidirectional_mask`, without the slow vmap, which `together` does not need.
    apart = ALL_MASK_ATTENTION_FUNCTIONS[backbone.config._attn_implementation](
        batch_size=states.shape[0],
        q_length=states.shape[1],
        kv_length=states.shape[1],
        mask_function=together,
        attention_mask=mask.bool(),
        allow_is_causal_skip=False,
        dtype=states.dtype,
        device=states.device,
        config=backbone.config,
    )
    states = _run(islice(_layers(backbone), layers), states, apart)
    return upper_states(backbone, states, mask, layers)


def upper_states(backbone: PreTrainedModel, states: Tensor, mask: Tensor, layers: int) -> Tensor:
    """Return the token states after the last layer, (batch, tokens, hidden).

    Args:
        backbone: The encoder.
        states: (batch, tokens, hidden) after the first `layers` layers.
        mask: (batch, tokens), true or 1 for real tokens.
        layers: How many layers lie behind.
    """
    return _run(islice(_layers(backbone), layers, None), states, _padding_mask(backbone, states, mask))


def _embed(backbone: PreTrainedModel, input_ids: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
    """Return the states in front of the first layer; `positions` count from 0."""
    embeddings = cast(nn.Module, backbone.embeddings)
    types = segments if backbone.config.type_vocab_size > 1 else torch.zeros_like(segments)
    # XLM-R and its kin keep the positions up to their padding's for the padding.
    first = getattr(embeddings, "padding_idx", -1) + 1
    states = embeddings(input_ids=input_ids, token_type_ids=types, position_ids=positions + first)
    if hasattr(backbone, "embeddings_project"):
        states = cast(nn.Module, backbone.embeddings_project)(states)
    return cast(Tensor, states)


def _layers(backbone: PreTrainedModel) -> nn.ModuleList:
    return cast(nn.ModuleList, cast(nn.Module, backbone.encoder).layer)


def _padding_mask(backbone: PreTrainedModel, states: Tensor, mask: Tensor) -> Tensor | None:
    return cast("Tensor | None", create_bidirectional_mask(backbone.config, states, mask))


def _run(layers: Iterable[nn.Module], states: Tensor, mask: Tensor | None) -> Tensor:
    """Run layers under a mask in the form that the backbone's attention takes."""
    for layer in layers:
        states = layer(states, mask)
    return states


class LowerQuery(nn.Module):
    """The lower layers over queries alone; exports as a graph.

    Args:
        student: A student with `split_layers`; its weights are shared.
    """

    segment, first_position = 0, 0

    def __init__(self, student: LatentReasoningForSequenceClassification) -> None:
        """Share the student's backbone."""
        super().__init__()
        self.backbone, self.layers = student.backbone, student.config.split_layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states after the last split layer, (batch, tokens, hidden); those of padding mean nothing.

        Args:
            input_ids: (batch, tokens) ids of one segment, padded on the right.
            attention_mask: (batch, tokens), 1 for real tokens.
        """
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self.first_position
        states = _embed(self.backbone, input_ids, torch.full_like(input_ids, self.segment), places)
        heard = _padding_mask(self.backbone, states, attention_mask)
        return _run(islice(_layers(self.backbone), self.layers), states, heard)


class LowerProduct(LowerQuery):
    """The lower layers over products alone, whose states can be stored; exports as a graph."""

    segment, first_position = 1, 1


class Upper(nn.Module):
    """The upper layers, extractor and head over the states of queries and products; exports as a graph.

    Args:
        student: A student with `split_layers`; its weights are shared.
        temperature: What the logits are divided by.
    """

    def __init__(self, student: LatentReasoningForSequenceClassification, temperature: float = 1.0) -> None:
        """Share the student's layers."""
        super().__init__()
        self.student, self.temperature = student, temperature

    def forward(
        self, query_states: Tensor, query_mask: Tensor, product_states: Tensor, product_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits and probabilities, (batch, classes), and with an extractor the latents, (batch, latents, dim).

        Args:
            query_states: (batch, query tokens, hidden), padded on the right.
            query_mask: (batch, query tokens), 1 for real tokens.
            product_states: (batch, product tokens, hidden), padded on the right.
            product_mask: (batch, product tokens), 1 for real tokens.
        """
        joined = torch.cat([query_states, product_states], dim=1)
        queries = query_mask.sum(dim=1, keepdim=True)
        both = queries + product_mask.sum(dim=1, keepdim=True)
        # The product moves up to the query's end: a window of tokens, say, shall not see the padding between them.
        places = torch.arange(joined.shape[1], device=joined.device)[None]
        of_query = places < queries
        moved = (places - queries + query_states.shape[1]).clamp(max=joined.shape[1] - 1)
        rows = torch.arange(joined.shape[0], device=joined.device)[:, None]
        states, mask = joined[rows, torch.where(of_query, places, moved)], places < both
        student = self.student
        states = upper_states(student.backbone, states, mask, student.config.split_layers)
        logits, latents, _ = student.classify(states, mask, (~of_query).long())
        logits = logits / self.temperature
        outputs = (logits, logits.softmax(dim=-1))
        return outputs if latents is None else (*outputs, latents)
