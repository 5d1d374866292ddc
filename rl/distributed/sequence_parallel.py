"""Sequence parallelism over heads (DeepSpeed-Ulysses, arXiv:2309.14509) around the packed attention of one model.

The ranks of a group work on one packed row. Each holds a slice of its tokens; in attention an all-to-all exchanges
slices of tokens for slices of heads, so every rank sees the whole row for its heads, and our packed kernel runs as it
is. Outside the text model every rank has the whole row and computes the same. Two functions lead from one to the other:

- `join`: slices to whole. Whole gradients are alike on every rank, so each takes its slice of its own.
- `split`: whole to slices. The slices' gradients are gathered.

A row enters the text model by plain slicing: each rank then has the gradient of its slice alone, and the sum over all
ranks that FSDP makes is the embedding's and the tower's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.nn import functional
from transformers import AttentionInterface

from configs.errors import UserError
from rl.learner.packed_attention import PackedLayout, packed_attention

SPLIT = "packed_split"  # the name of this attention for `set_attn_implementation`


@dataclass(frozen=True, kw_only=True)
class SplitLayout:
    """A row's layout, with the group whose ranks have a slice each."""

    whole: PackedLayout
    tokens: int  # of the row; slices are equal, so the last is padded
    group: Any


def use_sequence_parallel(text_model: Any, group: dist.ProcessGroup) -> None:
    """Make `text_model` run each row on the ranks of `group` together. Call it like the model without.

    Raises UserError where the heads cannot be shared out evenly.
    """
    ranks, heads = dist.get_world_size(group), text_model.config.num_attention_heads
    if heads % ranks:
        raise UserError(f"ranks.sequence = {ranks}: must divide the model's {heads} attention heads")
    AttentionInterface.register(SPLIT, _split_attention)
    text_model.config._attn_implementation = SPLIT
    forward = text_model.forward

    def on_slices(
        *, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, layout: PackedLayout, routing: Any, **options: Any
    ) -> Any:
        tokens = inputs_embeds.shape[1]
        own = None
        if routing is not None:
            replay = None if routing.replay is None else _own_slice(_padded(routing.replay, ranks, fill=-1), group)
            own = replace(routing, replay=replay, seen={})
        output = forward(
            inputs_embeds=_own_slice(_padded(inputs_embeds[0], ranks), group)[None],
            position_ids=_own_slice(_padded(position_ids[0], ranks), group)[None],
            layout=SplitLayout(whole=layout, tokens=tokens, group=group),
            routing=own,
            **options,
        )
        if routing is not None and own is not None:
            for layer, routes in own.seen.items():
                parts = {name: getattr(routes, name) for name in ("own", "taken", "scores")}
                whole = {name: None if part is None else join(part, group)[:tokens] for name, part in parts.items()}
                routing.seen[layer] = replace(routes, **whole)
        output.last_hidden_state = join(output.last_hidden_state[0], group)[:tokens][None]
        return output

    text_model.forward = on_slices


def join(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The slices `[n, ...]` of all ranks, one after the other."""
    return _Join.apply(part, group)  # pyright: ignore[reportReturnType]


def split(whole: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """This rank's slice of a tensor that every rank has. The last slices are padded with the last row."""
    padding = -len(whole) % dist.get_world_size(group)
    padded = torch.cat([whole, whole[-1:].expand(padding, *whole.shape[1:])]) if padding else whole
    return _Split.apply(padded, group)  # pyright: ignore[reportReturnType]


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _gathered(part, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _own_slice(gradients[0], ctx.group), None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _own_slice(whole, group).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _gathered(gradients[0], ctx.group), None


def _split_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: SplitLayout,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """(1, h, n, d) queries, keys and values of this rank's slice -> (1, n, h, d_v)."""
    query, key, value = (_heads_for_tokens(x[0], layout)[None] for x in (query, key, value))
    mixed, _ = packed_attention(module, query, key, value, attention_mask, layout=layout.whole, **options)
    return _tokens_for_heads(mixed[0], layout)[None], None


def _heads_for_tokens(x: torch.Tensor, layout: SplitLayout) -> torch.Tensor:
    """[h, n, d], all heads of a slice of tokens -> [h / ranks, N, d], a slice of heads of all tokens."""
    ranks = dist.get_world_size(layout.group)
    parts = _exchanged(x.unflatten(0, (ranks, -1)), layout.group)  # [rank, h / ranks, n, d]
    return parts.transpose(0, 1).flatten(1, 2)[:, : layout.tokens]


def _tokens_for_heads(x: torch.Tensor, layout: SplitLayout) -> torch.Tensor:
    """[N, h / ranks, d] -> [n, h, d]."""
    ranks = dist.get_world_size(layout.group)
    parts = _exchanged(_padded(x, ranks).unflatten(0, (ranks, -1)), layout.group)  # [rank, n, h / ranks, d]
    return parts.transpose(0, 1).flatten(1, 2)


def _exchanged(parts: torch.Tensor, group: Any) -> torch.Tensor:
    """Send `parts[i]` to rank i; what each rank sent here, by rank."""
    ones = [1] * len(parts)
    return all_to_all_single_autograd(parts.contiguous(), ones, ones, group)


def _padded(x: torch.Tensor, ranks: int, *, fill: int = 0) -> torch.Tensor:
    """`x` `[N, ...]` with rows of `fill` at its end, so that ranks divide it."""
    return functional.pad(x, (0, 0) * (x.ndim - 1) + (0, -len(x) % ranks), value=fill)


def _own_slice(x: torch.Tensor, group: Any) -> torch.Tensor:
    return x.chunk(dist.get_world_size(group))[dist.get_rank(group)]


def _gathered(part: torch.Tensor, group: Any) -> torch.Tensor:
    every = part.new_empty(dist.get_world_size(group) * len(part), *part.shape[1:])
    dist.all_gather_into_tensor(every, part.contiguous(), group=group)
    return every
