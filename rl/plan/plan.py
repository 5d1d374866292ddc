"""The plan of a recipe on a cluster: what each stage does, what each device holds, how long it takes, what fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.long2short import LongToShortConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.supervised import SupervisedConfig
from configs.text import counted
from configs.vit import ViTConfig
from rl.plan import memory, timing
from rl.plan.hardware import RESERVED, Cluster
from rl.plan.placement import Placement, place, rollout_stage
from rl.plan.sizes import ModelSizes, config_of, measure_sizes
from rl.plan.workloads import Means, StageCounts, count_stage, training_of, usual_means, workload_of
from rollouts.engines.continuous_batching import BatchLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Memory of one card, or of one process on it, in one phase."""

    name: str  # `long_cot: learner`, `rollout worker`
    parts: dict[str, float]  # bytes by what they are for
    capacity: float

    @property
    def used(self) -> float:
        """All bytes."""
        return memory.total(self.parts)

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.used <= self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage that a learner trains."""

    name: str
    kind: str
    counts: StageCounts
    means: Means
    learner: Device
    rollouts: Device | None  # learner and engines on one card while the engines generate; None: they do not take turns
    seconds: timing.StepTime

    @property
    def hours(self) -> float:
        """The whole stage, without its evaluations."""
        return self.counts.steps * self.seconds.total / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe on a cluster."""

    placement: Placement
    sizes: ModelSizes
    stages: list[StagePlan]
    worker: Device
    cached: int  # tokens that one worker's cache holds
    context: int  # tokens of the longest prompt and answer
    host: dict[str, float]  # main memory of a node with workers during a weight sync

    @property
    def devices(self) -> list[Device]:
        """Every device that was counted."""
        together = [stage.rollouts for stage in self.stages if stage.rollouts is not None]
        workers = [self.worker] if self.placement.workers else []
        return [*(stage.learner for stage in self.stages), *together, *workers]

    @property
    def problems(self) -> list[str]:
        """What does not fit, in words."""
        found = []
        if self.placement.missing:
            split = f" of {counted(self.placement.split, 'card')}" if self.placement.split > 1 else ""
            found.append(
                f"{counted(self.placement.workers, 'worker')}{split} and {counted(self.placement.ranks, 'rank')} need "
                f"{counted(self.placement.cards, 'card')}, and there are {self.placement.cluster.total}"
            )
        return found + [
            f"{device.name}: {device.used / 1e9:.1f} GB of {device.capacity / 1e9:.1f} GB"
            for device in self.devices
            if not device.fits
        ]


def make_plan(config: RunConfig, cluster: Cluster, *, answer: int | None = None) -> Plan:
    """Plan `config` on `cluster`; `answer` is the mean length of an answer, in tokens.

    Raises UserError where the sizes of the model are not known.
    """
    model = config_of(config.model)
    placement = place(config, cluster)
    stages: list[StagePlan] = []
    context = config.longest_sequence
    engine = measure_sizes(model, config.model)
    worker, cached = _worker(config, engine, placement, context)
    beside = placement.workers_beside * _worker_limit(config, worker)
    for stage in config.stages:
        if isinstance(stage, LongToShortConfig) and stage.method == "average":
            continue  # no learner
        if isinstance(stage, RLConfig | SupervisedConfig):
            frozen = stage.freeze if isinstance(stage, SupervisedConfig) else None
            sizes = measure_sizes(model, config.model, frozen, vision_alone=isinstance(stage, ViTConfig))
            stages.append(_stage(config, stage, sizes, placement, beside, answer, cached))
    return Plan(
        placement=placement,
        sizes=engine,
        stages=stages,
        worker=worker,
        cached=cached,
        context=context,
        host=memory.sync_bytes(engine, config.engine_dtype),
    )


def _stage(
    config: RunConfig,
    stage: RLConfig | SupervisedConfig,
    sizes: ModelSizes,
    placement: Placement,
    beside: float,
    answer: int | None,
    cached: int,
) -> StagePlan:
    gpu, data = placement.cluster.gpu, config.data_of(stage)
    means = usual_means(stage, data, answer)
    counts = count_stage(stage, means)
    parts = memory.learner_bytes(training_of(config, stage, sizes), workload_of(stage, data, sizes, means))
    rollout = sync = 0.0
    if isinstance(stage, RLConfig):
        width = memory.BYTES[config.engine_dtype]
        engine = replace(gpu, flops=gpu.flops * placement.split, bandwidth=gpu.bandwidth * placement.split)
        rollout = timing.rollout_seconds(sizes, stage, means, engine, cached=cached, width=width)
        sync = timing.sync_seconds(sizes, width)
    update = timing.update_seconds(sizes, stage, counts, gpu)
    learner, rollouts = _devices(stage, parts, placement, beside)
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        counts=counts,
        means=means,
        learner=learner,
        rollouts=rollouts,
        seconds=timing.StepTime(rollout=rollout, update=update, sync=sync),
    )


def _devices(
    stage: RLConfig | SupervisedConfig, parts: dict[str, float], placement: Placement, beside: float
) -> tuple[Device, Device | None]:
    """The learner's card while it works; and while the engines do, where they take turns (`rl.colocate`).

    The embedded engine keeps its memory, so that only vLLM makes room.
    """
    room = placement.cluster.gpu.memory - RESERVED
    name = f"{stage.name}: learner"
    if stage.ranks.count > 1 or not beside:
        return Device(name=name, parts=parts, capacity=room), None
    if not (isinstance(stage, RLConfig) and stage.colocate and stage.engine == "vllm"):
        return Device(name=name, parts=parts, capacity=room - beside), None
    asleep = placement.workers_beside * RESERVED
    waiting = {part: parts[part] for part in memory.BETWEEN_STEPS if part in parts}
    together = Device(name=f"{stage.name}: learner and engines", parts=waiting | {"engines": beside}, capacity=room)
    return Device(name=name, parts=parts, capacity=room - asleep), together


def _worker(config: RunConfig, sizes: ModelSizes, placement: Placement, context: int) -> tuple[Device, int]:
    """A rollout worker, and the tokens that its cache holds. It must hold one longest sequence."""
    stage, dtype = rollout_stage(config), config.engine_dtype
    share = min(1.0, placement.worker_share) * memory.VLLM_SHARE
    if stage.engine == "vllm":
        share = stage.engine_options.get("gpu_memory_utilization", share)
    capacity = placement.cluster.gpu.memory * share
    most = memory.kv_tokens(sizes, dtype, capacity, split=placement.split)
    limits = BatchLimits(**stage.engine_options) if stage.engine == "transformers" else BatchLimits()
    cached = most if stage.engine == "vllm" else min(most, limits.tokens)
    parts = memory.engine_bytes(sizes, dtype, cached=max(cached, context), split=placement.split)
    return Device(name="rollout worker", parts=parts, capacity=capacity), cached


def _worker_limit(config: RunConfig, worker: Device) -> float:
    """Bytes that a worker takes from the learner's card: vLLM takes its whole share at its start."""
    return worker.capacity if rollout_stage(config).engine == "vllm" else worker.used
