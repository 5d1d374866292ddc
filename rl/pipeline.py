"""A whole run: instruct SFT, long-CoT SFT, RL, evaluation, export. Done stages are skipped when a run goes on."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.sft import SFTConfig
from rl.learner.lora import merged_state, numpy_weights, prepare_training, save_adapters
from rl.learner.optimizer import rounding_note
from rl.run.context import RunContext, load_policy, open_context
from rl.run.evaluate import EvalResult, evaluate, evaluation_sampling
from rl.run.export import known_licence, write_export
from rl.run.folder import STAGES, RunFolder, StageRecord
from rl.run.progress import StageProgress
from rl.run.report import finish_run, print_end
from rl.stages.rl_setup import reinforce
from rl.stages.sft import run_sft
from rollouts.model_family import VisionLanguageModel
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.types import ScoredRollout


def run(config: RunConfig, *, base: Path, console: Console) -> Path:
    """Run all stages of `config` and return the run's folder.

    Raises UserError or ConfigError for what a user can mend; a killed run continues when called again.
    """
    began = time.monotonic()
    transformers_logging.disable_progress_bar()  # one bar a stage is ours
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = RunFolder.open(config)
    if (folder.path / "summary.json").exists():
        for record in folder.records():
            console.print(f"{record.name}: already done")
        print_end(folder, config, console)
        return folder.path
    with folder.lock(), open_context(config, folder, base, console) as context:
        model_path, answers = context.checkpoint, []
        for name in STAGES:
            stage = {"instruct": config.instruct, "long_cot": config.long_cot, "rl": config.rl}[name]
            if stage is None:
                continue
            if folder.record(name) is not None:
                console.print(f"{name}: already done")
            else:
                answers = _run_stage(context, name, stage, model_path)
            model_path = str(folder.stage(name) / "model")
        if config.export:
            console.print("exporting")
            write_export(
                load_policy(context, model_path),
                context.processor,
                folder.path / "export",
                run=folder.path,
                config=config,
                licence=known_licence(config) or "other",
            )
        finish_run(
            folder,
            config,
            answers or _final_answers(context, model_path),
            seconds=time.monotonic() - began,
            console=console,
        )
    return folder.path


def _run_stage(context: RunContext, name: str, stage: SFTConfig | RLConfig, model_path: str) -> list[ScoredRollout]:
    """Train one stage, save its model, evaluate it on held-out tasks, record it; return the greedy answers."""
    began = time.monotonic()
    torch.manual_seed(request_seed(context.config.seed, STAGES.index(name)))  # whatever ran before in this process
    if (note := rounding_note(context.config.model, stage.optimizer, stage=name)) is not None:
        context.console.print(note, highlight=False)
    if isinstance(stage, SFTConfig):
        model = load_policy(context, model_path, train=True)
        prepare_training(model, context.config.model, base=model_path)
        resumed = _supervised(context, name, stage, model)
        save_adapters(model, context.folder.stage(name) / "adapter")
        final = model
    else:
        resumed, final = reinforce(context, stage, model_path)
    seconds = time.monotonic() - began
    target = context.folder.stage(name) / "model"
    final.save_pretrained(target, state_dict=merged_state(final))
    context.processor.save_pretrained(target)
    result, answers = evaluate_model(context, final)
    context.metrics.write(f"held_out/{name}", 0, result.metrics())
    context.folder.finish(
        StageRecord(
            name=name,
            seconds=seconds,
            greedy_accuracy=result.greedy_accuracy,
            sampled_accuracy=result.sampled_accuracy,
            thinking_share=result.thinking_share,
            mean_tokens=result.mean_tokens,
            resumed=resumed,
        )
    )
    context.console.print(
        f"{name}: held-out greedy {result.greedy_accuracy:.3f}  sampled {result.sampled_accuracy:.3f}  "
        f"thinking {result.thinking_share:.2f}  tokens {result.mean_tokens:.1f}  ({seconds:.0f} s)",
        highlight=False,
    )
    return answers


def _supervised(context: RunContext, name: str, stage: SFTConfig, model: VisionLanguageModel) -> bool:
    """Run an SFT stage on `model` in place; True if it went on from a checkpoint."""
    folder = context.folder.stage(name) / "checkpoints"
    resumed = any(folder.glob("checkpoint-*"))
    with StageProgress(context.console, name, total=stage.steps) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            context.metrics.write(name, step, values)
            bar.advance({"loss": values["loss"]})

        run_sft(
            model,
            context.processor,
            context.renderer,
            context.mixture(STAGES.index(name)),
            stage,
            folder=folder,
            seed=context.config.seed,
            on_step=on_step,
        )
    return resumed


def evaluate_model(context: RunContext, model: VisionLanguageModel) -> tuple[EvalResult, list[ScoredRollout]]:
    """Publish `model` to the workers and evaluate it on the held-out tasks."""
    context.pool.publish(numpy_weights(model), version=context.pool.version + 1)
    rl = context.config.rl
    return evaluate(
        context.pipeline,
        context.held_out,
        sampling=evaluation_sampling(rl.sampling if rl else None, context.config.evaluation),
        samples=context.config.evaluation.samples,
        seed=context.config.seed,
    )


def _final_answers(context: RunContext, model_path: str) -> list[ScoredRollout]:
    """Greedy answers of a run whose last stage was done before this invocation."""
    return evaluate_model(context, load_policy(context, model_path))[1]
