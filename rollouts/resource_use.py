"""What processes, engines, their caches and a pool's workers have used: the counts behind metrics of throughput."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """The device that a process computes on, and the most memory that it has held since it started, in bytes."""

    device: str  # the name of a card, or `cpu`
    memory: int  # resident in main memory
    cuda_memory: int = 0  # allocated by PyTorch on the card


def process_use(device: torch.device | str) -> ProcessUse:
    """The use of this process, which computes on `device`."""
    if torch.device(device).type != "cuda":
        return ProcessUse(device="cpu", memory=_peak_memory())
    name = torch.cuda.get_device_name(device)
    return ProcessUse(device=name, memory=_peak_memory(), cuda_memory=torch.cuda.max_memory_allocated(device))


def _peak_memory() -> int:
    """Peak resident bytes. `ru_maxrss` survives exec on Linux: a worker would report the process that started it."""
    status = Path("/proc/self/status")
    if status.exists() and (found := _PEAK.search(status.read_text(encoding="ascii", errors="replace"))):
        return int(found[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """What an engine's cache did since the last report. Prompt tokens, images among them, count for each sample."""

    full: float = 0.0  # the largest share of its positions that was in use
    prompt_tokens: int = 0  # that the samples needed
    computed_tokens: int = 0  # of them, those that went through the model


class CacheMeter:
    """Counts for an engine what `CacheUse` reports."""

    def __init__(self) -> None:
        self._full, self._prompt_tokens, self._computed = 0.0, 0, 0

    def fill(self, share: float) -> None:
        """This share of the cache's positions is in use."""
        self._full = max(self._full, share)

    def count(self, *, needed: int = 0, computed: int = 0) -> None:
        """Add prompt tokens that samples need, and those that went through the model."""
        self._prompt_tokens += needed
        self._computed += computed

    def take(self) -> CacheUse:
        """What was counted since the last call."""
        use = CacheUse(full=self._full, prompt_tokens=self._prompt_tokens, computed_tokens=self._computed)
        self._full, self._prompt_tokens, self._computed = 0.0, 0, 0
        return use


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """Seconds that an engine's steps took since the last report, and what its cache did."""

    busy: float
    cache: CacheUse


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """What the workers of a pool did in `seconds`. Workers that were replaced in this time are left out."""

    seconds: float
    workers: int
    gpus: float  # that Ray reserves for all of them
    engines: Sequence[EngineUse] = ()
    processes: Sequence[ProcessUse] = ()

    @property
    def idle(self) -> float:
        """Share of the workers' time in which no engine step ran."""
        busy = sum(engine.busy for engine in self.engines)
        return min(1.0, max(0.0, 1.0 - busy / max(1e-9, self.workers * self.seconds)))

    def metrics(self) -> dict[str, float]:
        """See docs/metrics.md."""
        caches = [engine.cache for engine in self.engines]
        needed = sum(cache.prompt_tokens for cache in caches)
        computed = sum(cache.computed_tokens for cache in caches)
        metrics = {"idle/workers": self.idle, **memory_metrics("workers", self.processes)}
        if needed:
            metrics["cache/full"] = max(cache.full for cache in caches)
            metrics["cache/prompt_hits"] = max(0.0, 1.0 - computed / needed)
        return metrics


def memory_metrics(role: str, processes: Sequence[ProcessUse]) -> dict[str, float]:
    """Peak memory in GB of the process of `role` that holds most; the card's where it has one."""
    if not processes:
        return {}
    metrics = {f"memory/{role}": max(process.memory for process in processes) / 1e9}
    if cuda := max(process.cuda_memory for process in processes):
        metrics[f"cuda_memory/{role}"] = cuda / 1e9
    return metrics
