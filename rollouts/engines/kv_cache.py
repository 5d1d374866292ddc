"""Where a running batch keeps its latents: prompts once a group, completions by the row, both in blocks of few sizes.

Rows come and go at every step, and their lengths are long-tailed. So rows of similar length share a *block*: one block
of memory for all layers, live rows at its front, so that attention reads plain slices and pads little. A row that
outgrows its block moves to the next, of twice the capacity: copying costs less than one pass over its tokens in all.

Shapes: R live rows, h heads, K latent width (kv_lora_rank + qk_rope_head_dim), r its first kv_lora_rank numbers,
L prompt tokens, T own tokens, S slots of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

FIRST_CAPACITY = 32


class KVBlock:
    """Items with at most `capacity` cached tokens each; the item in slot i has its latents in `kv[:, i]`."""

    def __init__(self, capacity: int, like: torch.Tensor) -> None:
        self.capacity = capacity
        self.items: list[Any] = []
        self.kv = like.new_empty(like.shape[0], 0, capacity, like.shape[-1])  # [layers, S, capacity, K]

    def add(self, item: Any, kv: torch.Tensor) -> None:
        """Put `item` into the first free slot with its latents so far, `[layers, t, K]`."""
        slot = len(self.items)
        if slot == self.kv.shape[1]:
            shape = (self.kv.shape[0], slot + max(4, slot // 2), *self.kv.shape[2:])
            grown = self.kv.new_zeros(shape)  # not empty: a masked place counts 0 times what it holds
            grown[:, :slot] = self.kv
            self.kv = grown
        self.kv[:, slot, : kv.shape[1]] = kv
        self.items.append(item)

    def remove(self, item: Any) -> torch.Tensor:
        """Take `item` out, close the gap with the last one, and return its latents `[layers, capacity, K]`."""
        slot, last = self.items.index(item), len(self.items) - 1
        kv = self.kv[:, slot].clone() if slot < last else self.kv[:, last]
        if slot < last:
            self.kv[:, slot] = self.kv[:, last]
            self.items[slot] = self.items[last]
        self.items.pop()
        if not self.items:
            self.kv = self.kv.new_empty(self.kv.shape[0], 0, *self.kv.shape[2:])
        return kv


class KVCache:
    """KVCache of growing capacity; an item stands on the smallest that holds it."""

    def __init__(self, like: torch.Tensor) -> None:
        """`like` gives layers, width, dtype and device: any tensor `[layers, ..., K]`."""
        self._like = like
        self._blocks: dict[int, KVBlock] = {}
        self._place: dict[Any, KVBlock] = {}

    @staticmethod
    def capacity_for(tokens: int) -> int:
        """The smallest capacity that holds `tokens`."""
        return max(FIRST_CAPACITY, 1 << (tokens - 1).bit_length())

    def __contains__(self, item: Any) -> bool:
        return item in self._place

    @property
    def tokens(self) -> int:
        """Tokens that the items' places could hold: what memory is counted in."""
        return sum(len(s.items) * s.capacity for s in self._blocks.values())

    def in_use(self) -> list[KVBlock]:
        """KVCache that hold something, smallest first."""
        return [s for _, s in sorted(self._blocks.items()) if s.items]

    def add(self, item: Any, kv: torch.Tensor, *, tokens: int) -> None:
        """Place `item`, which will need `tokens` places, with its latents so far `[layers, t, K]`."""
        capacity = self.capacity_for(max(tokens, 1))
        block = self._blocks.setdefault(capacity, KVBlock(capacity, self._like))
        block.add(item, kv)
        self._place[item] = block

    def remove(self, item: Any) -> torch.Tensor:
        """Take `item` out; return its latents."""
        return self._place.pop(item).remove(item)

    def latents(self, item: Any, tokens: int) -> torch.Tensor:
        """The first `tokens` latents of `item`, `[layers, tokens, K]`, where they stand."""
        block = self._place[item]
        return block.kv[:, block.items.index(item), :tokens]

    def outgrown(self, item: Any, tokens: int) -> bool:
        """True if `item` needs more than its place holds."""
        return tokens > self._place[item].capacity


@dataclass(slots=True)
class AttentionPart:
    """A block's share of one attention step: queries `[batch, m, K]` against `kv[layer, :batch, :longest]`."""

    block: KVBlock
    start: int  # where its rows, or padded places, begin
    stop: int
    longest: int
    mask: torch.Tensor | None  # [batch, 1, longest], True where there is no token
    newest: tuple[torch.Tensor, torch.Tensor]  # (slot, place) of each item's last token


@dataclass(slots=True)
class StepPlan:
    """How the rows of one step lie in the cache. Rows are in the order of the own blocks."""

    rows: list[Any]
    own: list[AttentionPart]
    prompts: list[AttentionPart]
    places: torch.Tensor  # [P] the row whose query stands at each place of the prompt parts (row 0 where padded)
    back: torch.Tensor  # [R] the place of each row

    def write(self, layer: int, latents: torch.Tensor) -> None:
        """Store the newest latent of every row, `[R, K]`."""
        for part in self.own:
            part.block.kv[layer][part.newest] = latents[part.start : part.stop]

    def attend(self, layer: int, query: torch.Tensor, rank: int) -> torch.Tensor:
        """Scaled queries `[R, h, K]` to the attention-weighted latents `[R, h, r]`, over prompt and own tokens."""
        _, heads, width = query.shape
        padded = query[self.places]
        prompt = [
            _attend_part(padded[p.start : p.stop].view(len(p.block.items), -1, width), p, layer, rank)
            for p in self.prompts
        ]
        own = [_attend_part(query[p.start : p.stop], p, layer, rank) for p in self.own]
        sides = []
        for parts in (prompt, own):
            sides.append(
                [torch.cat([part[i].reshape(-1, heads, part[i].shape[-1]) for part in parts]) for i in range(3)]
            )
        mixed_p, peak_p, total_p = (t[self.back] for t in sides[0])
        mixed_o, peak_o, total_o = sides[1]
        # The two softmaxes become one: each side is rescaled to the common peak.
        peak = torch.maximum(peak_p, peak_o)
        scale_p, scale_o = (peak_p - peak).exp_(), (peak_o - peak).exp_()
        total = total_p * scale_p + total_o * scale_o
        return (mixed_p * (scale_p / total) + mixed_o * (scale_o / total)).to(query.dtype)


def _attend_part(
    query: torch.Tensor, part: AttentionPart, layer: int, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unnormalised mix `[batch, m, r]` with the peak and the sum `[batch, m, 1]` of its softmax."""
    keys = part.block.kv[layer, : len(part.block.items), : part.longest]
    scores = torch.bmm(query, keys.transpose(1, 2))
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if part.mask is not None:
        scores.masked_fill_(part.mask, -torch.inf)
    peak = scores.amax(-1, keepdim=True)
    weights = scores.sub_(peak).exp_()
    return torch.bmm(weights.to(keys.dtype), keys[..., :rank]), peak, weights.sum(-1, keepdim=True)


def plan_step(own: KVCache, prompts: KVCache, device: torch.device) -> StepPlan:
    """Lay out one step. Rows have `.length` (own tokens, with the newest) and `.group`; groups have `.length` (L)."""
    own_parts, rows, start = [], [], 0
    for block in own.in_use():
        lengths = [row.length for row in block.items]
        own_parts.append(_part(block, start, start + len(lengths), lengths, device))
        rows += block.items
        start += len(lengths)
    rows_of: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        rows_of.setdefault(row.group, []).append(index)
    prompt_parts, places, back, start = [], [], [0] * len(rows), 0
    for block in prompts.in_use():
        widest = max(len(rows_of.get(group, ())) for group in block.items)
        if not widest:
            continue  # prompts whose samples wait for a free row
        for group in block.items:
            indices = rows_of.get(group, [])
            for index in indices:
                back[index] = len(places)
                places.append(index)
            places += [0] * (widest - len(indices))
        lengths = [group.length for group in block.items]
        prompt_parts.append(_part(block, start, len(places), lengths, device))
        start = len(places)
    return StepPlan(
        rows=rows,
        own=own_parts,
        prompts=prompt_parts,
        places=torch.tensor(places, device=device),
        back=torch.tensor(back, device=device),
    )


def _part(block: KVBlock, start: int, stop: int, lengths: list[int], device: torch.device) -> AttentionPart:
    counts, longest = torch.tensor(lengths, device=device), max(lengths)
    mask = None
    if min(lengths) < longest:
        mask = (torch.arange(longest, device=device) >= counts[:, None])[:, None]
    newest = (torch.arange(len(lengths), device=device), counts - 1)
    return AttentionPart(block=block, start=start, stop=stop, longest=longest, mask=mask, newest=newest)
