"""Continuous batching: samples enter as others end, within a budget of rows and of cached tokens."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines.decoder import LatentDecoder
from rollouts.engines.kv_cache import Shelves, plan_step
from rollouts.engines.running_samples import Group, Row
from rollouts.engines.sampling import choose_tokens
from rollouts.model_family import VisionLanguageModel
from rollouts.types import Prompt, Request

_LOGITS = 1 << 24  # numbers in one block of logits


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What a batch may hold at once. At least one sample always runs, whatever its length."""

    rows: int = 256  # samples that decode together
    tokens: int = 262_144  # places in the cache, for prompts and answers together
    prefill_tokens: int = 8192  # padded tokens, image tokens among them, in one prefill

    def __post_init__(self) -> None:
        if min(self.rows, self.tokens, self.prefill_tokens) < 1:
            raise ValueError(f"{self}: every limit must be 1 or more")


class RunningBatch:
    """The samples of one call. `step` advances all that run by one token and returns the groups that it finished.

    Which samples share a step depends on the requests, between which steps they were added, and the lengths of their
    answers alone, never on time.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        sampling: SamplingConfig,
        *,
        limits: BatchLimits,
        stop_ids: frozenset[int],
        barred: torch.Tensor,
        record_experts: bool,
        version: Callable[[], int],
        tally: Counter[str],
    ) -> None:
        self._model, self._sampling, self._limits = model, sampling, limits
        self._stop_ids, self._barred, self._version = stop_ids, barred, version
        self._tally = tally  # places that went through the model, and those of them that held no token
        self._decoder = LatentDecoder(model.text_model)
        experts = model.config.text_config.n_routed_experts
        self._route_dtype = (np.uint8 if experts < 255 else np.uint16) if record_experts else None
        like = self._decoder.new_latents()
        self._own, self._prompts = Shelves(like), Shelves(like)
        self._held: list[Group] = []  # prompts that are read and whose first row has not entered yet
        self._running: dict[int, Group] = {}  # by index
        self._queue: deque[Row] = deque()
        self._live: list[Row] = []  # in the order in which they entered
        self._finished: list[Group] = []

    @property
    def busy(self) -> bool:
        """True while there is anything to return."""
        return bool(self._queue or self._live or self._finished)

    def add(self, requests: Iterable[tuple[int, Request]]) -> None:
        """Queue requests, each under the index that its group will have."""
        for index, request in requests:
            group = Group(index, request, self._sampling)
            if group.unfinished:
                self._running[index] = group
                self._queue.extend(row for row in group.rows if row.reason is None)
            else:
                self._finished.append(group)

    def step(self) -> list[Group]:
        """Let samples in, then decode one token of each."""
        self._admit()
        self._grow()
        if self._live:
            self._decode()
        finished, self._finished = self._finished, []
        return finished

    def abort(self) -> list[Group]:
        """End everything; return the groups that were not returned yet."""
        finished = [*self._finished, *self._running.values()]
        for group in finished:
            for row in group.rows:
                row.abort()
        self._queue.clear()
        self._running.clear()
        self._live, self._finished = [], []
        return finished

    def cancel(self, indices: Iterable[int]) -> None:
        """End these groups, as `abort` does, and no others; the next step returns them."""
        for group in [self._running[i] for i in indices if i in self._running]:
            for row in group.rows:
                row.abort()
            waiting = [row for row in self._queue if row.group is group]
            self._queue = deque(row for row in self._queue if row.group is not group)
            for row in waiting:
                self._end(row)
            self._leave()

    # Entering and leaving

    @property
    def _used(self) -> int:
        held = sum(Shelves.capacity_for(g.length) for g in self._held)
        return self._own.tokens + self._prompts.tokens + held

    def _admit(self) -> None:
        """Move rows from the queue into the batch, and read the prompts that they need."""
        entering: list[Row] = []
        planned = 0
        while self._queue and len(self._live) + len(entering) < self._limits.rows:
            row = self._queue[0]
            need = Shelves.capacity_for(row.length + 1)
            if row.group.hidden is None:
                need += Shelves.capacity_for(row.group.length)
            fits = self._used + planned + need <= self._limits.tokens
            if not fits and (self._live or entering):
                break
            if row.group.hidden is None:
                self._read_prompts()
            planned += Shelves.capacity_for(row.length + 1)
            entering.append(self._queue.popleft())
        if entering:
            self._enter(entering)

    def _read_prompts(self) -> None:
        """Prefill the prompt of the row that is next, and with it those that follow, as far as the limits allow."""
        batch: list[Group] = []
        widest = used = 0
        for row in self._queue:
            group = row.group
            if group.hidden is not None or group in batch:
                continue
            widest = max(widest, group.length)
            need = Shelves.capacity_for(group.length)
            full = widest * (len(batch) + 1) > self._limits.prefill_tokens or len(batch) >= self._limits.rows
            if batch and (full or self._used + used + need > self._limits.tokens // 2):
                break
            batch.append(group)
            used += need
        embeds, lengths = self._embed_prompts([g.request.prompt for g in batch])
        hidden, latents, experts = self._decoder.prefill(embeds, lengths)
        self._count(embeds.shape[0] * embeds.shape[1], lengths)
        for i, group in enumerate(batch):
            group.latents = latents[:, i, : group.length].clone()  # a view would keep the whole batch's padding
            group.hidden, group.experts = hidden[i], experts[i]
        self._held += batch

    def _embed_prompts(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed prompts, each image encoded once: right-padded `[G, L, H]` and lengths `[G]`."""
        device = self._model.device
        lengths = torch.tensor([len(p.input_ids) for p in prompts], device=device)
        ids = torch.full((len(prompts), int(lengths.max())), 0, device=device)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.input_ids)] = torch.as_tensor(prompt.input_ids)
        features = None
        if any(len(p.pixel_values) for p in prompts):
            pixels = torch.from_numpy(np.concatenate([p.pixel_values for p in prompts]))
            grids = torch.from_numpy(np.concatenate([p.image_grid_hws for p in prompts]))
            features = self._model.encode_images(pixels.to(device, self._model.dtype), grids.to(device))
        return self._model.embed(ids, features), lengths

    def _enter(self, rows: list[Row]) -> None:
        """Give new rows their first token, and rows that go on the latents of what they wrote before."""
        for group in dict.fromkeys(row.group for row in rows):
            if group.latents is not None:
                self._prompts.add(group, group.latents, tokens=group.length)
                group.latents = None
                self._held.remove(group)
        self._live += rows
        fresh = [row for row in rows if not row.length]
        nothing = self._decoder.new_latents(0)
        for row in fresh:
            self._own.add(row, nothing, tokens=1)
        for group in dict.fromkeys(row.group for row in rows):
            self._extend(group, [row for row in rows if row.group is group and row.length])
        if fresh:
            hidden = torch.stack([_not_none(row.group.hidden) for row in fresh])
            experts = torch.stack([_not_none(row.group.experts) for row in fresh])
            self._choose(fresh, hidden, experts)

    def _extend(self, group: Group, rows: list[Row]) -> None:
        """Read what `rows` of one group have written, all but the last token, which the next step feeds."""
        rows = sorted(rows, key=lambda row: row.length)
        while rows:
            count = max(1, min(len(rows), self._limits.prefill_tokens // (group.length + rows[-1].length)))
            part, rows = rows[-count:], rows[:-count]
            lengths = torch.tensor([row.length - 1 for row in part], device=self._model.device)
            width = int(lengths.max())
            latents = self._decoder.new_latents(len(part), width)
            if width:
                ids = torch.zeros(len(part), width, dtype=torch.long, device=lengths.device)
                for i, row in enumerate(part):
                    ids[i, : row.length - 1] = torch.tensor(row.tokens[:-1], dtype=torch.long)
                latents = self._decoder.extend(self._prompts.latents(group, group.length), ids, lengths)
                self._count(ids.numel(), lengths)
            for i, row in enumerate(part):
                self._own.add(row, latents[:, i, : row.length - 1], tokens=row.length)

    def _count(self, places: int, lengths: torch.Tensor) -> None:
        self._tally["computed"] += places
        self._tally["padded"] += places - int(lengths.sum())

    def _grow(self) -> None:
        """Move rows that outgrew their places; where memory is over, the youngest go back into the queue."""
        for row in self._live:
            if self._own.outgrown(row, row.length):
                self._own.add(row, self._own.remove(row), tokens=row.length)
        while self._used > self._limits.tokens and len(self._live) > 1:
            row = self._live.pop()
            self._own.remove(row)
            self._queue.appendleft(row)
            if not any(other.group is row.group for other in self._live):
                self._prompts.remove(row.group)
                row.group.hidden = row.group.experts = None

    def _leave(self) -> None:
        """Take ended rows out, and the prompts of groups that are finished."""
        for row in [row for row in self._live if row.reason is not None]:
            self._own.remove(row)
            self._end(row)
        self._live = [row for row in self._live if row.reason is None]

    def _end(self, row: Row) -> None:
        """Count a row as ended; with the last one its group is finished, and its prompt leaves."""
        group = row.group
        group.unfinished -= 1
        if group.unfinished:
            return
        if group in self._prompts:
            self._prompts.remove(group)
        elif group in self._held:
            self._held.remove(group)
        group.latents = group.hidden = group.experts = None
        del self._running[group.index]
        self._finished.append(group)

    # Decoding

    def _decode(self) -> None:
        device = self._model.device
        plan = plan_step(self._own, self._prompts, device)
        rows: list[Row] = plan.rows
        tokens = torch.tensor([row.tokens[-1] for row in rows], device=device)
        positions = torch.tensor([row.group.length + row.length - 1 for row in rows], device=device)
        hidden, experts = self._decoder.step(tokens, positions, plan)
        self._tally["computed"] += len(rows)
        self._choose(rows, hidden, experts)

    def _choose(self, rows: list[Row], hidden: torch.Tensor, experts: torch.Tensor) -> None:
        """Draw the next token of each row from hidden states `[R, H]`, record it, and let ended rows leave."""
        chunk = max(1, _LOGITS // len(self._barred))
        version = self._version()
        if self._route_dtype is not None:
            for row, routes in zip(rows, experts.cpu().numpy().astype(self._route_dtype), strict=True):
                row.experts.append(routes)
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            uniforms = torch.tensor([row.uniforms.next() for row in part], dtype=torch.float64, device=hidden.device)
            logits = self._model.lm_head(hidden[start : start + chunk])
            drawn = choose_tokens(logits, self._sampling, self._barred, uniforms)
            values = torch.stack([d.double() for d in drawn]).tolist()  # one transfer
            for row, token, policy, sampler in zip(part, *values, strict=True):
                row.record(int(token), policy, sampler, version=version, stops=int(token) in self._stop_ids)
        self._leave()


def _not_none(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None, "the prompt was not read"
    return tensor
