"""Continuous batching: samples enter as others end, within a limit of samples and of cached tokens."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines.decoder import LatentDecoder
from rollouts.engines.kv_cache import KVCache, plan_step
from rollouts.engines.sample_state import RunningGroup, RunningSample, route_dtype
from rollouts.engines.sampling import choose_tokens
from rollouts.model_family import VisionLanguageModel
from rollouts.patches import Patches
from rollouts.resource_use import CacheMeter
from rollouts.types import Prompt, Request

_LOGITS = 1 << 24  # numbers in one block of logits


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What a batch may hold at once. At least one sample always runs, whatever its length."""

    rows: int = 256  # samples that decode together
    tokens: int = 262_144  # positions in the cache, for prompts and completions together
    prefill_tokens: int = 8192  # padded tokens, image tokens among them, in one prefill

    def __post_init__(self) -> None:
        if min(self.rows, self.tokens, self.prefill_tokens) < 1:
            raise ValueError(f"{self}: every limit must be 1 or more")


class RunningBatch:
    """The samples of one call. `step` advances all that run by one token and returns the groups that it finished.

    Which samples share a step depends on the requests, between which steps they were added, and the lengths of their
    completions alone, never on time.
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
        padding_stats: Counter[str],
        cache_meter: CacheMeter,
    ) -> None:
        self._model, self._sampling, self._limits = model, sampling, limits
        self._stop_ids, self._barred, self._version = stop_ids, barred, version
        self._padding_stats = padding_stats  # places that went through the model, and those of them that held no token
        self._cache_meter = cache_meter
        self._decoder = LatentDecoder(model.text_model)
        experts = model.config.text_config.n_routed_experts
        self._route_dtype = route_dtype(experts) if record_experts else None
        like = self._decoder.new_latents()
        self._sample_cache, self._prompt_cache = KVCache(like), KVCache(like)
        self._read_groups: list[RunningGroup] = []  # prompts that are read and whose first sample has not entered yet
        self._running: dict[int, RunningGroup] = {}  # by index
        self._queue: deque[RunningSample] = deque()
        self._live: list[RunningSample] = []  # in the order in which they entered
        self._finished: list[RunningGroup] = []

    @property
    def busy(self) -> bool:
        """True while there is anything to return."""
        return bool(self._queue or self._live or self._finished)

    def add(self, requests: Iterable[tuple[int, Request]]) -> None:
        """Queue requests, each under the index that its group will have."""
        for index, request in requests:
            group = RunningGroup(index, request, self._sampling)
            if group.unfinished:
                self._running[index] = group
                self._queue.extend(sample for sample in group.samples if sample.reason is None)
            else:
                self._finished.append(group)

    def step(self) -> list[RunningGroup]:
        """Let samples in, then decode one token of each."""
        self._admit()
        self._grow()
        self._cache_meter.fill(self._used / self._limits.tokens)
        if self._live:
            self._decode()
        return self._take_finished()

    def cancel(self, indices: Iterable[int]) -> list[RunningGroup]:
        """End these groups with what they have; return them, with any group that was not returned yet."""
        groups = {self._running[i] for i in indices if i in self._running}
        if groups:
            for group in groups:
                for sample in group.samples:
                    sample.abort()
            waiting = [sample for sample in self._queue if sample.group in groups]
            self._queue = deque(sample for sample in self._queue if sample.group not in groups)
            for sample in waiting:
                self._end(sample)
            self._leave()
        return self._take_finished()

    def _take_finished(self) -> list[RunningGroup]:
        finished, self._finished = self._finished, []
        return finished

    # Entering and leaving

    @property
    def _used(self) -> int:
        held = sum(KVCache.capacity_for(g.length) for g in self._read_groups)
        return self._sample_cache.tokens + self._prompt_cache.tokens + held

    def _admit(self) -> None:
        """Move samples from the queue into the batch, and read the prompts that they need."""
        entering: list[RunningSample] = []
        planned = 0
        while self._queue and len(self._live) + len(entering) < self._limits.rows:
            sample = self._queue[0]
            need = KVCache.capacity_for(sample.length + 1)
            if sample.group.hidden is None:
                need += KVCache.capacity_for(sample.group.length)
            fits = self._used + planned + need <= self._limits.tokens
            if not fits and (self._live or entering):
                break
            if sample.group.hidden is None:
                self._read_prompts()
            planned += KVCache.capacity_for(sample.length + 1)
            entering.append(self._queue.popleft())
        if entering:
            self._enter(entering)

    def _read_prompts(self) -> None:
        """Prefill the prompt of the sample that is next, and with it those that follow, as far as the limits allow."""
        batch: list[RunningGroup] = []
        widest = used = 0
        for sample in self._queue:
            group = sample.group
            if group.hidden is not None or group in batch:
                continue
            widest = max(widest, group.length)
            need = KVCache.capacity_for(group.length)
            full = widest * (len(batch) + 1) > self._limits.prefill_tokens or len(batch) >= self._limits.rows
            if batch and (full or self._used + used + need > self._limits.tokens // 2):
                break
            batch.append(group)
            used += need
        embeds, lengths = self._embed_prompts([g.request.prompt for g in batch])
        hidden, latents, experts = self._decoder.prefill(embeds, lengths)
        self._count(embeds.shape[0] * embeds.shape[1], lengths)
        self._cache_meter.count(computed=int(lengths.sum()))
        for i, group in enumerate(batch):
            group.latents = latents[:, i, : group.length].clone()  # a view would keep the whole batch's padding
            group.hidden, group.experts = hidden[i], experts[i]
        self._read_groups += batch

    def _embed_prompts(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed prompts, each image encoded once: right-padded `[G, L, H]` and lengths `[G]`."""
        device = self._model.device
        lengths = torch.tensor([len(p.input_ids) for p in prompts], device=device)
        ids = torch.full((len(prompts), int(lengths.max())), 0, device=device)
        for i, prompt in enumerate(prompts):
            ids[i, : len(prompt.input_ids)] = torch.as_tensor(prompt.input_ids)
        features = None
        if any(len(p.patches) for p in prompts):
            pixels = torch.from_numpy(Patches.join([p.patches for p in prompts]).floats())
            grids = torch.from_numpy(np.concatenate([p.image_grid_hws for p in prompts]))
            features = self._model.encode_images(pixels.to(device, self._model.dtype), grids.to(device))
        return self._model.embed(ids, features), lengths

    def _enter(self, samples: list[RunningSample]) -> None:
        """Give new samples their first token, and samples that go on the latents of what they wrote before."""
        for group in dict.fromkeys(sample.group for sample in samples):
            if group.latents is not None:
                self._prompt_cache.add(group, group.latents, tokens=group.length)
                group.latents = None
                self._read_groups.remove(group)
        self._live += samples
        self._cache_meter.count(needed=sum(sample.group.length for sample in samples))
        fresh = [sample for sample in samples if not sample.length]
        nothing = self._decoder.new_latents(0)
        for sample in fresh:
            self._sample_cache.add(sample, nothing, tokens=1)
        for group in dict.fromkeys(sample.group for sample in samples):
            self._extend(group, [sample for sample in samples if sample.group is group and sample.length])
        if fresh:
            hidden = torch.stack([_not_none(sample.group.hidden) for sample in fresh])
            experts = torch.stack([_not_none(sample.group.experts) for sample in fresh])
            self._choose(fresh, hidden, experts)

    def _extend(self, group: RunningGroup, samples: list[RunningSample]) -> None:
        """Read what `samples` of one group have written, all but the last token, which the next step feeds."""
        samples = sorted(samples, key=lambda sample: sample.length)
        while samples:
            count = max(1, min(len(samples), self._limits.prefill_tokens // (group.length + samples[-1].length)))
            part, samples = samples[-count:], samples[:-count]
            lengths = torch.tensor([sample.length - 1 for sample in part], device=self._model.device)
            width = int(lengths.max())
            latents = self._decoder.new_latents(len(part), width)
            if width:
                ids = torch.zeros(len(part), width, dtype=torch.long, device=lengths.device)
                for i, sample in enumerate(part):
                    ids[i, : sample.length - 1] = torch.tensor(sample.tokens[:-1], dtype=torch.long)
                latents = self._decoder.extend(self._prompt_cache.latents(group, group.length), ids, lengths)
                self._count(ids.numel(), lengths)
            for i, sample in enumerate(part):
                self._sample_cache.add(sample, latents[:, i, : sample.length - 1], tokens=sample.length)

    def _count(self, places: int, lengths: torch.Tensor) -> None:
        self._padding_stats["computed"] += places
        self._padding_stats["padded"] += places - int(lengths.sum())

    def _grow(self) -> None:
        """Move samples that outgrew their places; where memory is over, the youngest go back into the queue."""
        for sample in self._live:
            if self._sample_cache.outgrown(sample, sample.length):
                self._sample_cache.add(sample, self._sample_cache.remove(sample), tokens=sample.length)
        while self._used > self._limits.tokens and len(self._live) > 1:
            sample = self._live.pop()
            self._sample_cache.remove(sample)
            self._queue.appendleft(sample)
            if not any(other.group is sample.group for other in self._live):
                self._prompt_cache.remove(sample.group)
                sample.group.hidden = sample.group.experts = None

    def _leave(self) -> None:
        """Take ended samples out, and the prompts of groups that are finished."""
        for sample in [sample for sample in self._live if sample.reason is not None]:
            self._sample_cache.remove(sample)
            self._end(sample)
        self._live = [sample for sample in self._live if sample.reason is None]

    def _end(self, sample: RunningSample) -> None:
        """Count a sample as ended; with the last one its group is finished, and its prompt leaves."""
        group = sample.group
        group.unfinished -= 1
        if group.unfinished:
            return
        if group in self._prompt_cache:
            self._prompt_cache.remove(group)
        elif group in self._read_groups:
            self._read_groups.remove(group)
        group.latents = group.hidden = group.experts = None
        del self._running[group.index]
        self._finished.append(group)

    # Decoding

    def _decode(self) -> None:
        device = self._model.device
        plan = plan_step(self._sample_cache, self._prompt_cache, device)
        samples: list[RunningSample] = plan.rows
        tokens = torch.tensor([sample.tokens[-1] for sample in samples], device=device)
        positions = torch.tensor([sample.group.length + sample.length - 1 for sample in samples], device=device)
        hidden, experts = self._decoder.step(tokens, positions, plan)
        self._padding_stats["computed"] += len(samples)
        self._choose(samples, hidden, experts)

    def _choose(self, samples: list[RunningSample], hidden: torch.Tensor, experts: torch.Tensor) -> None:
        """Draw the next token of each sample from hidden states `[R, H]`, record it, and let ended samples leave."""
        chunk = max(1, _LOGITS // len(self._barred))
        version = self._version()
        if self._route_dtype is not None:
            for sample, routes in zip(samples, experts.cpu().numpy().astype(self._route_dtype), strict=True):
                sample.experts.append(routes)
        for start in range(0, len(samples), chunk):
            part = samples[start : start + chunk]
            uniforms = torch.tensor(
                [sample.uniforms.next() for sample in part], dtype=torch.float64, device=hidden.device
            )
            logits = self._model.lm_head(hidden[start : start + chunk])
            drawn = choose_tokens(logits, self._sampling, self._barred, uniforms)
            values = torch.stack([d.double() for d in drawn]).tolist()  # one transfer
            for sample, token, policy, sampler in zip(part, *values, strict=True):
                sample.record(int(token), policy, sampler, version=version, stops=int(token) in self._stop_ids)
        self._leave()


def _not_none(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None, "the prompt was not read"
    return tensor
