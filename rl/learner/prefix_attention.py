"""Packed attention on a CPU: what all responses of a prompt see of it is one call, and each sees itself causally.

Both parts are calls of torch's flash attention, which returns the log-sum-exp of each query's scores beside its output.
With it two parts are mixed exactly, and the backward pass of each part takes the log-sum-exp of the whole, as ring
attention does (arXiv:2310.01889). No prompt is copied for its responses, and no mask exists.

Shapes: `N` packed tokens, `S` segments of a block, `Q` the longest of them, `h` heads, `d` width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalBlock:
    """Segments of similar length, which see themselves; padded to the longest."""

    shape: tuple[int, int]  # (S, Q)
    rows: torch.Tensor  # [S Q] packed positions, N on padding
    reads: torch.Tensor  # [S Q] the same, but any position on padding

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int]], tokens: int) -> CausalBlock:
        """A block of spans `(start, length)` of `tokens` packed ones."""
        starts, lengths = (torch.tensor(column)[:, None] for column in zip(*spans, strict=True))
        own = torch.arange(int(lengths.max()))
        rows = torch.where(own < lengths, starts + own, tokens)
        return cls(
            shape=(rows.shape[0], rows.shape[1]), rows=rows.flatten(), reads=rows.flatten().clamp(max=tokens - 1)
        )

    def take(self, packed: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[N, h, ...] -> [S, h, Q, ...]."""
        return packed.index_select(0, rows).unflatten(0, self.shape).transpose(1, 2)

    def put(self, packed: torch.Tensor, padded: torch.Tensor) -> None:
        """[S, h, Q, ...] into [N + 1, h, ...], whose last row takes the padding."""
        packed.index_copy_(0, self.rows, padded.transpose(1, 2).flatten(0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixPlan:
    """The calls of a packed row."""

    blocks: tuple[CausalBlock, ...]
    prefixes: tuple[tuple[slice, slice], ...]  # packed positions of a prompt, and of the responses after it


def takes_prefix_attention(query: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """True where the kernels run: on a CPU, with values as wide as keys."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and dropout == 0.0


def prefix_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: PrefixPlan, scaling: float
) -> torch.Tensor:
    """`[N, h, d]` queries, keys and values -> `[N, h, d]`."""
    return _PrefixAttention.apply(q, k, v, plan, scaling)  # pyright: ignore[reportReturnType]


class _PrefixAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: PrefixPlan, scaling: float
    ) -> torch.Tensor:
        """See `prefix_attention`."""
        q, k, v = (x.contiguous() for x in (q, k, v))
        tokens, heads, width = q.shape
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        mixed, lse = q.new_empty(tokens + 1, heads, width), q.new_empty(tokens + 1, heads, dtype=wide)
        for block in plan.blocks:
            output, total = _forward(*(block.take(x, block.reads) for x in (q, k, v)), 0.0, True, scale=scaling)
            block.put(mixed, output)
            block.put(lse, total)
        for keys, queries in plan.prefixes:
            part = _forward(_heads(q[queries]), _heads(k[keys]), _heads(v[keys]), 0.0, False, scale=scaling)
            _mix(mixed[queries], lse[queries], part[0][0].transpose(0, 1), part[1][0].transpose(0, 1))
        ctx.save_for_backward(q, k, v, mixed[:tokens], lse[:tokens])
        ctx.plan, ctx.scaling = plan, scaling
        return mixed[:tokens]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the parts, added up."""
        q, k, v, mixed, lse = ctx.saved_tensors
        padded = functional.pad(gradient, (0, 0, 0, 0, 0, 1))  # padding passes no gradient on
        found = [torch.empty_like(padded) for _ in range(3)]
        for block in ctx.plan.blocks:
            taken = (block.take(x, block.reads) for x in (q, k, v, mixed, lse))
            parts = _backward(block.take(padded, block.rows), *taken, 0.0, True, scale=ctx.scaling)
            for total, part in zip(found, parts, strict=True):
                block.put(total, part)
        for keys, queries in ctx.plan.prefixes:
            sides = (padded[queries], q[queries], k[keys], v[keys], mixed[queries], lse[queries])
            parts = _backward(*map(_heads, sides), 0.0, False, scale=ctx.scaling)
            for total, part, rows in zip(found, parts, (queries, keys, keys), strict=True):
                total[rows] += part[0].transpose(0, 1)
        return *(x[: len(q)] for x in found), None, None


def _heads(packed: torch.Tensor) -> torch.Tensor:
    """[n, h, ...] -> [1, h, n, ...]."""
    return packed.transpose(0, 1)[None]


def _mix(own: torch.Tensor, own_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor) -> None:
    """Attention over further keys into `own` [n, h, d] and its log-sum-exp `own_lse` [n, h], in place."""
    whole = torch.logaddexp(own_lse, other_lse)
    own.mul_((own_lse - whole).exp_()[..., None].to(own.dtype))
    own.add_(other.mul_((other_lse - whole).exp_()[..., None].to(other.dtype)))
    own_lse.copy_(whole)
