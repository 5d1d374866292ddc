"""What passes through a stage: sequences, tokens and optimizer steps, counted from the recipe and a few assumptions."""

from __future__ import annotations

from dataclasses import dataclass

from configs.data import DataConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SupervisedConfig
from configs.vit import ViTConfig
from rl.plan.memory import Training, Workload
from rl.plan.sizes import ModelSizes

# The model card of Kimi's Thinking-2506: 2,400 to 5,800 tokens of thinking on MMMU and MathVision.
USUAL_ANSWER = 4096
USUAL_PROMPT = 1200  # one image of 1,024 tokens and a question


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Mean lengths in tokens, which decide about time. Memory is counted with the longest."""

    prompt: int
    answer: int  # of a completion in RL, of a whole example in supervised stages


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """How much a stage does."""

    steps: int
    prompts: int  # drawn in the whole stage
    sequences: int  # completions or examples that are trained on
    optimizer_steps: int
    tokens: float  # trained in one step, at the mean lengths


def usual_means(stage: StageConfig, data: DataConfig, answer: int | None) -> Means:
    """The lengths that a plan assumes; `answer` is the user's own."""
    prompt = min(data.max_prompt_tokens, USUAL_PROMPT)
    longest = stage.sampling.max_new_tokens if isinstance(stage, RLConfig) else 0
    if isinstance(stage, SupervisedConfig):
        longest = stage.max_tokens
    return Means(prompt=prompt, answer=max(1, min(longest, answer or USUAL_ANSWER)))


def count_stage(stage: RLConfig | SupervisedConfig, means: Means) -> StageCounts:
    """Prompts x samples, and what follows from it."""
    if isinstance(stage, RLConfig):
        prompts, per_step = stage.steps * stage.prompts_per_step, stage.prompts_per_step * stage.samples_per_prompt
        return StageCounts(
            steps=stage.steps,
            prompts=prompts,
            sequences=stage.steps * per_step,
            optimizer_steps=stage.steps * stage.epochs * stage.minibatches,
            tokens=stage.prompts_per_step * means.prompt + per_step * means.answer,
        )
    examples = stage.steps * stage.batch_size
    return StageCounts(
        steps=stage.steps,
        prompts=examples,
        sequences=examples,
        optimizer_steps=stage.steps,
        tokens=stage.batch_size * means.answer,
    )


def training_of(config: RunConfig, stage: RLConfig | SupervisedConfig, sizes: ModelSizes) -> Training:
    """The parts of a stage that decide about memory."""
    reference, critic = None, False
    if isinstance(stage, RLConfig):
        parts = stage.loss.resolved()
        reference = stage.loss.reference_model
        critic = parts.critic is not None and parts.critic.backbone == "own"
    return Training(
        sizes=sizes,
        dtype=config.model.dtype,
        optimizer=stage.optimizer,
        shards=stage.ranks.count // stage.ranks.replicas,
        replicas=stage.ranks.replicas,
        sequence=stage.ranks.sequence,
        compute_dtype=stage.ranks.compute_dtype,
        checkpointing=config.model.gradient_checkpointing,
        flash=config.model.dtype == "bfloat16" or stage.ranks.compute_dtype is not None,
        reference=reference,
        critic=critic,
    )


def longest_sequence(stage: RLConfig | SupervisedConfig, data: DataConfig) -> int:
    """The most tokens of one prompt and its answer: no micro-batch is smaller."""
    if isinstance(stage, RLConfig):
        return data.max_prompt_tokens + stage.sampling.max_new_tokens
    return stage.max_tokens


def workload_of(stage: RLConfig | SupervisedConfig, data: DataConfig, sizes: ModelSizes, means: Means) -> Workload:
    """The largest micro-batch of a rank, and the images that pass its tower."""
    shares = stage.ranks.count // stage.ranks.sequence
    tokens = max(stage.micro_batch_tokens, longest_sequence(stage, data))
    if isinstance(stage, ViTConfig):  # captions, which the language model does not read
        tokens = 0
    if isinstance(stage, RLConfig):
        prompts = -(-stage.prompts_per_step // (stage.minibatches * shares))
        in_step = prompts * (means.prompt + stage.samples_per_prompt * means.answer)
    else:
        prompts = -(-stage.batch_size // shares)
        in_step = prompts * means.answer
    down, across = sizes.config.merge_shape
    image_tokens = min(data.max_prompt_tokens, 1024)  # the processor's limit of the published weights: 4,096 patches
    patches = prompts * image_tokens * down * across
    together = min(patches, max(stage.micro_batch_tokens, image_tokens * down * across))
    return Workload(
        tokens=tokens,
        predicted=tokens,
        patches=together,
        passes=max(1, -(-patches // max(1, together))),
        rows=2 if in_step > tokens > 0 else 1,
        features=prompts * image_tokens,
        segments=[(longest_sequence(stage, data), longest_sequence(stage, data))],
    )
