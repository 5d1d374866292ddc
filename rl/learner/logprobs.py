"""Log-probabilities and entropies of chosen tokens from hidden states; the table of all logits never exists.

The distribution is the engine's: temperature, then the barred tokens, softmax in fp32. At 163,840 tokens of
vocabulary the logits of one 8k-token sequence would take 5.4 GB in fp32, several times over; here they are made tile
by tile, twice: once forward, where each tile goes into a running log-sum-exp, once backward, where it becomes its
share of the gradient. On a CPU a tile stays in the cache while it is worked on.

Shapes: N tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

TILE = 1 << 24  # logits of one tile, 64 MB in fp32
CPU_TILE = 1 << 20  # 4 MB: a tile stays in the cache
_BARRED = 1 / 1024  # of the most negative number: no share of a sum, and still finite when divided by a temperature


def token_logprobs(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float,
    barred: torch.Tensor,
    tile: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob `[N]` of each target and entropy `[N]` in nats, from hidden states `[N, H]` and the head `[V, H]`.

    Both carry gradients to `hidden` and `head`. `barred` is `[V]` bool; a barred target has log-prob -inf. `tile` is a
    number of logits, by default what suits the device.
    """
    if tile is None:
        tile = CPU_TILE if hidden.device.type == "cpu" else TILE
    return _TokenLogprobs.apply(hidden, head, targets, temperature, barred, tile)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    """Forward keeps the log-sum-exp and the entropy of each token; backward makes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        barred: torch.Tensor,
        tile: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `token_logprobs`."""
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        highest, total, weighted, chosen = hidden.new_zeros(4, len(hidden), dtype=exact)
        highest.fill_(torch.finfo(exact).min)
        bias = _bias(barred, exact)
        for rows, words in _tiles(len(hidden), len(head), tile):
            logits = _logits(hidden[rows], head[words], temperature, bias[words])
            peak = torch.maximum(highest[rows], logits.amax(-1))
            shrink = (highest[rows] - peak).exp_()
            inside, index = _targets(targets[rows], words)
            chosen[rows] = torch.where(inside, logits.gather(-1, index).squeeze(-1), chosen[rows])
            shares = (logits - peak[:, None]).exp_()
            total[rows] = total[rows] * shrink + shares.sum(-1)
            weighted[rows] = weighted[rows] * shrink + shares.mul_(logits).sum(-1)
            highest[rows] = peak
        lse = highest + total.log()
        entropy = lse - weighted / total
        ctx.save_for_backward(hidden, head, targets, bias, lse, entropy)
        ctx.temperature, ctx.tile = temperature, tile
        ctx.set_materialize_grads(False)
        return (chosen - lse).masked_fill_(barred[targets], -torch.inf), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """`d log p(t) / d z_i = [i = t] - p_i` and `d entropy / d z_i = -p_i (log p_i + entropy)`, z = logits / T."""
        hidden, head, targets, bias, lse, entropy = ctx.saved_tensors
        of_logprob, of_entropy = (None if x is None else x / ctx.temperature for x in gradients)
        if of_logprob is None:
            of_logprob = torch.zeros_like(lse)
        # A frozen head, as under LoRA, saves a third of the products and V x H numbers in fp32.
        to_hidden, to_head = (
            torch.zeros_like(x, dtype=lse.dtype) if wanted else None
            for x, wanted in zip((hidden, head), ctx.needs_input_grad, strict=False)
        )
        for rows, words in _tiles(len(hidden), len(head), ctx.tile):
            logprobs = _logits(hidden[rows], head[words], ctx.temperature, bias[words]).sub_(lse[rows, None])
            if of_entropy is None:
                grad = logprobs.exp_().mul_(-of_logprob[rows, None])
            else:
                shares = logprobs.exp()
                inner = logprobs.add_(entropy[rows, None]).mul_(-of_entropy[rows, None])
                grad = inner.sub_(of_logprob[rows, None]).mul_(shares)
            inside, index = _targets(targets[rows], words)
            grad.scatter_add_(-1, index, torch.where(inside, of_logprob[rows], 0.0)[:, None])
            grad = grad.to(hidden.dtype)
            if to_hidden is not None:
                to_hidden[rows] += grad @ head[words]
            if to_head is not None:
                to_head[words] += grad.T @ hidden[rows]
        found = [None if x is None else x.to(hidden.dtype) for x in (to_hidden, to_head)]
        return *found, None, None, None, None


def _tiles(tokens: int, vocabulary: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Cut `[tokens, vocabulary]` into tiles of at most `tile` cells, about 16 times wider than high."""
    width = min(vocabulary, max(1, round((16 * tile) ** 0.5)))
    height = max(1, tile // width)
    for top in range(0, tokens, height):
        for left in range(0, vocabulary, width):
            yield slice(top, top + height), slice(left, left + width)


def _bias(barred: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[V]`, what is added to the logits: 0, and for barred tokens so little that they have probability 0."""
    return torch.zeros(len(barred), dtype=dtype, device=barred.device).masked_fill_(
        barred, _BARRED * torch.finfo(dtype).min
    )


def _logits(hidden: torch.Tensor, head: torch.Tensor, temperature: float, bias: torch.Tensor) -> torch.Tensor:
    """`(hidden @ head.T + bias) / temperature` in the type of `bias`."""
    logits = (hidden @ head.T).to(bias.dtype).add_(bias)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _targets(targets: torch.Tensor, words: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Which targets lie in the tile, and a column `[n, 1]` for each (any where it does not)."""
    inside = (targets >= words.start) & (targets < words.stop)
    return inside, torch.where(inside, targets - words.start, 0)[:, None]
