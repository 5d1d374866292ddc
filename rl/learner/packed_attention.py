"""Attention over packed tokens: many sequences in one row without padding, and a prompt once for all its responses.

A packed row is `[prompt][response][response]...[prompt][response]...`: the projections, the experts and the norms run
on real tokens alone, and only attention has to know which tokens belong together. A response sees its prompt and
itself; what it computes is what it computes alone, to rounding.

Three kernels compute it. On a GPU in half precision it is one call of flash attention over sequences of any lengths:
no mask, no padding, memory linear in the tokens. On a CPU, where values are as wide as keys, it is that of
`rl.learner.prefix_attention`. Elsewhere segments of similar length share a masked call.

Shapes: `N` packed tokens, `S` segments, `h` heads, `d` width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from rl.learner.prefix_attention import CausalBlock, PrefixPlan, prefix_attention, takes_prefix_attention

PACKED = "packed"  # the name of this attention for `set_attn_implementation`
_CELLS = 1 << 22  # of one attention call: rows x queries x keys, padded
_PADDED = 1.25  # the longest segment of a causal call, relative to the shortest


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSegment:
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
class _Ragged:
    """All segments one after the other, as flash attention takes them: borders instead of padding."""

    keys: torch.Tensor  # [K] packed positions: of each segment its prefix, then the segment
    query_starts: torch.Tensor  # [S + 1] int32, where each segment's queries begin
    key_starts: torch.Tensor  # [S + 1] int32, where its keys begin
    longest_queries: int
    longest_keys: int


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """Which packed tokens see which: made once for a row, read by every layer; each kernel's plan when it is needed."""

    segments: tuple[PackedSegment, ...]
    device: torch.device | str

    @classmethod
    def of(cls, segments: Sequence[PackedSegment], device: torch.device | str = "cpu") -> "PackedLayout":
        """Plan the attention of `segments`. Raises ValueError unless they cover `[0, N)` one after the other."""
        ends = [0, *(s.start + s.length for s in segments)]
        if [s.start for s in segments] != ends[:-1]:
            raise ValueError("segments must follow each other without gaps, from token 0 on")
        return cls(segments=tuple(segments), device=device)

    @cached_property
    def blocks(self) -> tuple[_Block, ...]:
        """The masked calls."""
        return tuple(_block(part, self.device) for part in _alike(self.segments))

    @cached_property
    def order(self) -> torch.Tensor:
        """`[N]` where each packed token's output stands among the blocks' outputs."""
        return torch.cat([b.queries[b.real] for b in self.blocks]).argsort()

    @cached_property
    def prefix_plan(self) -> PrefixPlan:
        """The calls of `prefix_attention`."""
        tokens = self.segments[-1].start + self.segments[-1].length
        spans: list[list[tuple[int, int]]] = []
        for segment in sorted(self.segments, key=lambda s: s.length, reverse=True):
            if not spans or spans[-1][0][1] > _PADDED * segment.length:
                spans.append([])
            spans[-1].append((segment.start, segment.length))
        return PrefixPlan(
            blocks=tuple(CausalBlock.of(part, tokens) for part in spans), prefixes=_prefixes(self.segments)
        )

    @cached_property
    def ragged(self) -> _Ragged:
        """The one call of flash attention."""
        keys = [
            torch.arange(start, start + length)
            for s in self.segments
            for start, length in ((s.prefix_start, s.prefix_length), (s.start, s.length))
        ]
        queries, seen = [s.length for s in self.segments], [s.prefix_length + s.length for s in self.segments]
        return _Ragged(
            keys=torch.cat(keys).to(self.device),
            query_starts=_starts(queries).to(self.device),
            key_starts=_starts(seen).to(self.device),
            longest_queries=max(queries),
            longest_keys=max(seen),
        )


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
    if _takes_flash(query):
        return _flash_packed(q, k, v, layout.ragged, scaling, dropout)[None], None
    if takes_prefix_attention(q, v, dropout):
        return prefix_attention(q, k, v, layout.prefix_plan, scaling)[None], None
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


def _takes_flash(query: torch.Tensor) -> bool:
    """True where torch's flash attention runs: half precision on a GPU of compute capability 8.0 or newer."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return query.is_cuda and half and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _flash_packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: _Ragged, scaling: float, dropout: float
) -> torch.Tensor:
    """`[N, h, d]` queries and keys and `[N, h, d_v]` values -> `[N, h, d_v]`.

    The kernel wants one width for all three, and MLA's values are narrower (128 to 192): they are padded with zeros.
    """
    padded = functional.pad(v, (0, q.shape[-1] - v.shape[-1]))
    mixed = _flash(q.contiguous(), k[plan.keys], padded[plan.keys], plan, scaling, dropout)
    return mixed[..., : v.shape[-1]]


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: _Ragged, scaling: float, dropout: float
) -> torch.Tensor:
    """Causal attention of each segment's queries, which are the last of its keys."""
    # torch's public function for it (torch.nn.attention.varlen) has changed its arguments from release to release.
    return torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        plan.query_starts,
        plan.key_starts,
        plan.longest_queries,
        plan.longest_keys,
        dropout,
        True,  # causal, aligned to the last key
        False,
        scale=scaling,
    )[0]


def _prefixes(segments: Sequence[PackedSegment]) -> tuple[tuple[slice, slice], ...]:
    """Each prefix with the run of packed tokens that see it."""
    found: list[tuple[slice, slice]] = []
    for segment in segments:
        if segment.prefix_length:
            keys, start = slice(segment.prefix_start, segment.prefix_start + segment.prefix_length), segment.start
            if found and found[-1][0] == keys and found[-1][1].stop == start:
                start = found.pop()[1].start
            found.append((keys, slice(start, segment.start + segment.length)))
    return tuple(found)


def _starts(lengths: Sequence[int]) -> torch.Tensor:
    return functional.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()


def use_packed_attention(text_model: nn.Module) -> None:
    """Make `text_model` take packed rows only: call it with `position_ids` and `layout=PackedLayout.of(...)`."""
    AttentionInterface.register(PACKED, packed_attention)
    text_model.config._attn_implementation = PACKED  # pyright: ignore[reportAttributeAccessIssue,reportArgumentType]


def _alike(segments: Sequence[PackedSegment]) -> list[list[PackedSegment]]:
    """Cut the segments, longest first, into parts whose padding is small: lengths within a factor of two."""
    parts: list[list[PackedSegment]] = []
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


def _block(segments: Sequence[PackedSegment], device: torch.device | str) -> _Block:
    starts, lengths, prefixes, before = (
        torch.tensor([getattr(s, name) for s in segments], device=device)[:, None]
        for name in ("start", "length", "prefix_start", "prefix_length")
    )
    widest, deepest = max(s.length for s in segments), max(s.prefix_length for s in segments)
    own, prefix = torch.arange(widest, device=device)[None], torch.arange(deepest, device=device)[None]
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
