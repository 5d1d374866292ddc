"""Attention over packed tokens: many sequences in one row without padding, and a prompt once for all its responses.

A packed row is `[prompt][response][response]...[prompt][response]...`: the projections, the experts and the norms run
on real tokens alone, and only attention has to know which tokens belong together. A response sees its prompt and
itself; what it computes is what it computes alone, to rounding.

Shapes: `N` packed tokens, `S` segments, `h` heads, `d` width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

PACKED = "packed"  # the name of this attention for `set_attn_implementation`
_CELLS = 1 << 22  # of one attention call: rows x queries x keys, padded


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of packed tokens `[start, start + length)` that sees itself causally, and all of its prefix before it."""

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Segments of similar length that share one attention call; rows are padded here and nowhere else."""

    queries: torch.Tensor  # [S, Q] packed positions; those past a segment's end are any
    keys: torch.Tensor  # [S, K] packed positions of the prefix, then of the segment
    mask: torch.Tensor | None  # [S, 1, Q, K], True where a query sees a key; None for plain causal attention
    real: torch.Tensor  # [S, Q], False on padding


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayout:
    """Which packed tokens see which: made once for a row, read by every layer."""

    blocks: tuple[_Block, ...]
    order: torch.Tensor  # [N] where each packed token's output stands among the blocks' outputs

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device | str = "cpu") -> "PackedLayout":
        """Plan the attention of `segments`. Raises ValueError unless they cover `[0, N)` one after the other."""
        ends = [0, *(s.start + s.length for s in segments)]
        if [s.start for s in segments] != ends[:-1]:
            raise ValueError("segments must follow each other without gaps, from token 0 on")
        blocks = [_block(part) for part in _alike(segments)]
        order = torch.cat([b.queries[b.real] for b in blocks]).argsort()
        moved = [
            _Block(
                queries=b.queries.to(device),
                keys=b.keys.to(device),
                mask=None if b.mask is None else b.mask.to(device),
                real=b.real.to(device),
            )
            for b in blocks
        ]
        return cls(blocks=tuple(moved), order=order.to(device))


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: PackedLayout,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(1, h, N, d) queries, keys and values -> (1, N, h, d_v); an attention function in transformers' sense."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, h, d]
    outputs = []
    for block in layout.blocks:
        mixed = functional.scaled_dot_product_attention(
            q[block.queries].transpose(1, 2),
            k[block.keys].transpose(1, 2),
            v[block.keys].transpose(1, 2),
            attn_mask=block.mask,
            is_causal=block.mask is None,
            dropout_p=dropout,
            scale=scaling,
        )
        outputs.append(mixed.transpose(1, 2)[block.real])
    return torch.cat(outputs)[layout.order][None], None


def use_packed_attention(text_model: nn.Module) -> None:
    """Make `text_model` take packed rows only: call it with `position_ids` and `layout=PackedLayout.of(...)`."""
    AttentionInterface.register(PACKED, packed_attention)
    text_model.config._attn_implementation = PACKED  # pyright: ignore[reportAttributeAccessIssue,reportArgumentType]


def _alike(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Cut the segments, longest first, into parts whose padding is small: lengths within a factor of two."""
    parts: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (s.prefix_length > 0, s.length), reverse=True):
        first = parts[-1][0] if parts else None
        if (
            first is not None
            and (segment.prefix_length > 0) == (first.prefix_length > 0)
            and 2 * segment.length >= first.length
            and (len(parts[-1]) + 1) * first.length * (first.length + first.prefix_length) <= _CELLS
        ):
            parts[-1].append(segment)
        else:
            parts.append([segment])
    return parts


def _block(segments: Sequence[Segment]) -> _Block:
    starts, lengths, prefixes, before = (
        torch.tensor([getattr(s, name) for s in segments])[:, None]
        for name in ("start", "length", "prefix_start", "prefix_length")
    )
    own, prefix = torch.arange(int(lengths.max()))[None], torch.arange(int(before.max()))[None]
    real = own < lengths
    queries = torch.where(real, starts + own, starts)
    seen = prefix < before
    keys = torch.cat((torch.where(seen, prefixes + prefix, prefixes), queries), -1)
    mask = None
    if prefix.shape[1]:
        causal = own[:, None, :] <= own[:, :, None]  # [1, Q, Q]
        mask = torch.cat((seen[:, None, :].expand(-1, own.shape[1], -1), causal.expand(len(segments), -1, -1)), -1)[
            :, None
        ]
    return _Block(queries=queries, keys=keys, mask=mask, real=real)
