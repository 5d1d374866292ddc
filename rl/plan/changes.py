"""The smallest change of a recipe that makes it fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from configs.model import LoraConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SupervisedConfig
from rl.plan.hardware import Cluster
from rl.plan.placement import place
from rl.plan.plan import Plan
from rl.plan.workloads import longest_sequence

Apply = Callable[[RunConfig], RunConfig]
_MOST_TOGETHER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Overrides, as the command line takes them, and what they do."""

    overrides: tuple[str, ...]
    apply: Apply


def smallest_change(
    config: RunConfig, cluster: Cluster, plan: Callable[[RunConfig], Plan]
) -> tuple[tuple[str, ...], Plan] | None:
    """The overrides of the first change, or of the first few together, after which everything fits; None without one.

    Changes come in the order of what they cost: the same gradient first, then slower, then coarser, then another model.
    """
    changes = list(_changes(config, cluster))
    for count in range(1, min(_MOST_TOGETHER, len(changes)) + 1):
        for together in itertools.combinations(changes, count):
            changed = _applied(config, together)
            if changed is not None and not (found := plan(changed)).problems:
                return tuple(text for change in together for text in change.overrides), found
    return None


def _applied(config: RunConfig, changes: Sequence[Change]) -> RunConfig | None:
    """The recipe with all changes; None where they exclude each other."""
    try:
        for change in changes:
            config = change.apply(config)
    except ValueError:
        return None
    return config


def _changes(config: RunConfig, cluster: Cluster) -> Iterator[Change]:
    yield from _smaller_micro_batches(config)
    if not config.model.gradient_checkpointing:
        yield _of_model("model.gradient_checkpointing=true", gradient_checkpointing=True)
    yield from _turns(config, cluster)
    yield from _one_replica(config)
    yield from _more_ranks(config, cluster)
    if config.model.dtype == "float32":
        yield _of_model("model.dtype=bfloat16", dtype="bfloat16")
    yield from _lower_moments(config)
    yield from _shorter(config)
    if config.model.lora is None:
        yield _of_model("model.lora={rank: 16}", lora=LoraConfig(rank=16))
    if config.model.quantization is None:
        packed = replace(config.model.lora or LoraConfig(rank=16), quantization="nf4")
        new = "model.lora={rank: 16, quantization: nf4}" if config.model.lora is None else "model.lora.quantization=nf4"
        yield _of_model(new, lora=packed)


def _of_model(text: str, **keys: object) -> Change:
    return Change(overrides=(text,), apply=lambda config: replace(config, model=replace(config.model, **keys)))


def _of_stages(overrides: tuple[str, ...], edit: Callable[[StageConfig], StageConfig]) -> Change:
    return Change(overrides=overrides, apply=lambda c: replace(c, stages=tuple(edit(stage) for stage in c.stages)))


def _smaller_micro_batches(config: RunConfig) -> Iterator[Change]:
    """The smallest micro-batch of each stage: one longest sequence."""
    least = {s.name: longest_sequence(s, config.data_of(s)) for s in config.trained_stages}
    larger = [stage.name for stage in config.trained_stages if stage.micro_batch_tokens > least[stage.name]]

    def edit(stage: StageConfig) -> StageConfig:
        if isinstance(stage, RLConfig | SupervisedConfig) and stage.name in larger:
            return replace(stage, micro_batch_tokens=least[stage.name])
        return stage

    if larger:
        yield _of_stages(tuple(f"{name}.micro_batch_tokens={least[name]}" for name in larger), edit)


def _turns(config: RunConfig, cluster: Cluster) -> Iterator[Change]:
    """Engines of vLLM that make room while the learner works on the same card."""
    stages = [stage for stage in config.rl_stages if stage.engine == "vllm" and not stage.colocate]
    if stages and place(config, cluster).workers_beside:
        yield _of_stages(
            tuple(f"{stage.name}.colocate=true" for stage in stages),
            lambda stage: replace(stage, colocate=True) if isinstance(stage, RLConfig) else stage,
        )


def _one_replica(config: RunConfig) -> Iterator[Change]:
    """Weights divided among all ranks, which then gather them over the network."""
    several = [stage.name for stage in config.trained_stages if stage.ranks.replicas > 1]

    def edit(stage: StageConfig) -> StageConfig:
        if isinstance(stage, RLConfig | SupervisedConfig) and stage.name in several:
            return replace(stage, ranks=replace(stage.ranks, replicas=1))
        return stage

    if several:
        yield _of_stages(tuple(f"{name}.ranks.replicas=1" for name in several), edit)


def _more_ranks(config: RunConfig, cluster: Cluster) -> Iterator[Change]:
    """All cards that the workers leave; then half of the workers, and their cards."""
    now = place(config, cluster)
    for workers in dict.fromkeys((now.workers, max(1, now.workers // 2), 1)):
        ranks = cluster.total - workers * now.split
        if ranks < 1 or (workers == now.workers and ranks == now.ranks) or cluster.total == 1:
            continue
        texts = [f"{stage.name}.ranks.count={ranks}" for stage in config.trained_stages]
        texts += [f"{stage.name}.workers={workers}" for stage in config.rl_stages if stage.workers != workers]

        def edit(stage: StageConfig, ranks: int = ranks, workers: int = workers) -> StageConfig:
            if isinstance(stage, RLConfig):
                return replace(stage, workers=workers, ranks=replace(stage.ranks, count=ranks))
            if isinstance(stage, SupervisedConfig):
                return replace(stage, ranks=replace(stage.ranks, count=ranks))
            return stage

        yield _of_stages(tuple(texts), edit)


def _lower_moments(config: RunConfig) -> Iterator[Change]:
    """Moments of AdamW in two bytes, then in one where a single process trains."""
    for state in ("bfloat16", "8bit"):
        names = [s.name for s in config.trained_stages if s.optimizer.name == "adamw" and s.optimizer.state != state]

        def edit(stage: StageConfig, names: Sequence[str] = names, state: str = state) -> StageConfig:
            if isinstance(stage, RLConfig | SupervisedConfig) and stage.name in names:
                return replace(stage, optimizer=replace(stage.optimizer, state=state))  # pyright: ignore[reportArgumentType]
            return stage

        if names:
            yield _of_stages(tuple(f"{name}.optimizer.state={state}" for name in names), edit)


def _shorter(config: RunConfig) -> Iterator[Change]:
    """Half of the longest answers, and of the rows that hold them."""

    def edit(stage: StageConfig) -> StageConfig:
        if isinstance(stage, RLConfig):
            sampling = replace(stage.sampling, max_new_tokens=stage.sampling.max_new_tokens // 2)
            return replace(stage, sampling=sampling, micro_batch_tokens=max(1, stage.micro_batch_tokens // 2))
        if isinstance(stage, SupervisedConfig):
            return replace(
                stage,
                max_tokens=max(1, stage.max_tokens // 2),
                micro_batch_tokens=max(1, stage.micro_batch_tokens // 2),
            )
        return stage

    texts = []
    for stage in config.trained_stages:
        if isinstance(stage, RLConfig):
            texts.append(f"{stage.name}.sampling.max_new_tokens={stage.sampling.max_new_tokens // 2}")
        else:
            texts.append(f"{stage.name}.max_tokens={stage.max_tokens // 2}")
        texts.append(f"{stage.name}.micro_batch_tokens={stage.micro_batch_tokens // 2}")
    yield _of_stages(tuple(texts), edit)
