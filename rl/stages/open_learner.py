"""The learner of a stage, from its recipe: in this process, or one on each of several ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from configs.model import ModelConfig
from configs.rl import RLConfig
from configs.supervised import SupervisedConfig
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.distributed.sharded import Sharded, mesh_of_one
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import load_adapters, prepare_training
from rl.learner.nf4 import quantize_base
from rl.learner.parallel import SINGLE_PROCESS, Parallel, SingleProcess
from rl.learner.protocol import LearnerProtocol, SupervisedProtocol
from rl.learner.skipped_updates import SkippedUpdates
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig
from rl.run.context import RunContext, load_policy, training_device
from rollouts.model_family import VisionLanguageModel


def open_rl_learner(context: RunContext, stage: RLConfig, model_path: str, skipped: SkippedUpdates) -> LearnerProtocol:
    """The learner of an RL stage; `skipped` keeps the updates that it refuses."""
    config = LearnerConfig(
        loss=stage.loss,
        optimizer=stage.optimizer,
        temperature=stage.sampling.temperature,
        total_steps=stage.steps * stage.epochs * stage.minibatches,
        max_new_tokens=stage.sampling.max_new_tokens,
        epochs=stage.epochs,
        minibatches=stage.minibatches,
        micro_batch_tokens=stage.micro_batch_tokens,
        spike_threshold=stage.spike_threshold,
        seed=context.config.seed,
    )
    if _needs_ranks(context, stage):
        return LearnerGroup(_spec(context, stage, model_path, config, skipped), context.rank_nodes)
    model = open_model(context, stage, model_path)
    parallel = _one_process(context, stage, model)
    return Learner(model, config, barred_ids=context.barred_ids, on_skip=skipped.keep, parallel=parallel)


def open_supervised_learner(context: RunContext, stage: SupervisedConfig, model_path: str) -> SupervisedProtocol:
    """The learner of a supervised stage."""
    config = SupervisedLearnerConfig(
        optimizer=stage.optimizer,
        total_steps=stage.steps,
        micro_batch_tokens=stage.micro_batch_tokens,
        balance_coef=stage.balance_coef,
        seed=context.config.seed,
    )
    if _needs_ranks(context, stage):
        return LearnerGroup(_spec(context, stage, model_path, config, None), context.rank_nodes)
    model = open_model(context, stage, model_path)
    return SupervisedLearner(model, config, parallel=_one_process(context, stage, model))


def _one_process(context: RunContext, stage: RLConfig | SupervisedConfig, model: VisionLanguageModel) -> Parallel:
    """On a CPU the recipe's threads run micro-batches side by side, and PyTorch's own keep to one.

    Where the passes have a type of their own, this process is the one rank of a mesh: it computes what each of
    several ranks does.
    """
    if stage.ranks.compute_dtype is not None:
        return Sharded(mesh_of_one(model.device), compute_dtype=getattr(torch, stage.ranks.compute_dtype))
    threads = context.config.threads or 1
    if threads == 1 or model.device.type != "cpu":
        return SINGLE_PROCESS
    torch.set_num_threads(1)
    return SingleProcess(threads)


def _needs_ranks(context: RunContext, stage: RLConfig | SupervisedConfig) -> bool:
    """Whether the recipe asks for several ranks, or ranks left a checkpoint, which one without a mesh cannot read."""
    shards = (context.folder.stage(stage.name) / "checkpoints").glob("step-*.shards")
    return stage.ranks.count > 1 or (stage.ranks.compute_dtype is None and any(shards))


def _spec(
    context: RunContext,
    stage: RLConfig | SupervisedConfig,
    model_path: str,
    learner: LearnerConfig | SupervisedLearnerConfig,
    skipped: SkippedUpdates | None,
) -> RankSpec:
    return RankSpec(
        model_path=str(Path(model_path).resolve()) if Path(model_path).exists() else model_path,
        model=_model_config(context, stage),
        ranks=stage.ranks,
        learner=learner,
        barred_ids=context.barred_ids,
        random=torch.get_rng_state(),
        skipped=skipped,
        threads=context.config.threads or 1,
    )


def open_model(context: RunContext, stage: RLConfig | SupervisedConfig, model_path: str) -> VisionLanguageModel:
    """The model to train in this process, with the recipe's adapters, and what the stage does not train frozen.

    A base in 4 bits is that of the run's first model in every stage, under the adapters of the stage before: packed
    again, the merged weights would lose most of what these have learned.
    """
    config = _model_config(context, stage)
    if config.quantization is None:
        model = load_policy(context, model_path, train=True)
        prepare_training(model, config, base=model_path)
        return model
    model = load_policy(context, context.checkpoint)
    quantize_base(model, training_device())
    prepare_training(model, config, base=context.checkpoint)
    if model_path != context.checkpoint:
        load_adapters(model, Path(model_path).parent / "adapter")
    return model


def _model_config(context: RunContext, stage: RLConfig | SupervisedConfig) -> ModelConfig:
    """The recipe's `model`, with the stage's own `freeze` where it has one."""
    own = stage.freeze if isinstance(stage, SupervisedConfig) else None
    return context.config.model if own is None else replace(context.config.model, freeze=own)
