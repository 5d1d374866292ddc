"""A whole run: its stages in their order, evaluation after each, export. Done stages are skipped when it resumes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SupervisedConfig
from configs.text import counted
from rl.learner.lora import merged_state
from rl.run.console import PlainConsole
from rl.run.context import RunContext, load_policy, open_context
from rl.run.end_record import noted_end
from rl.run.evaluate import EvalResult
from rl.run.export import known_licence, write_export
from rl.run.folder import RunFolder, StageRecord
from rl.run.held_out import evaluate_model
from rl.run.last_words import print_end
from rl.run.mirror import open_mirror
from rl.run.own_screen import own_screen
from rl.run.perplexity import perplexities
from rl.run.progress import working
from rl.run.report import finish_run
from rl.run.stage_weights import check_weights, weight_hashes
from rl.stages.stage import train_stage
from rollouts.model_family import VisionLanguageModel
from rollouts.sources.verdict_watch import require_verdicts
from rollouts.types import ScoredRollout


def run(config: RunConfig, *, base: Path, console: PlainConsole) -> Path:
    """Run the stages of `config` and return the run's folder.

    Raises UserError or ConfigError for what a user can mend; a killed run continues when called again.
    """
    began = time.monotonic()
    transformers_logging.disable_progress_bar()  # one bar a stage is ours
    torch.manual_seed(config.seed)
    mirror = open_mirror(config, console.print)
    folder = RunFolder.open(config)
    if (folder.path / "summary.json").exists():
        for record in folder.records():
            console.print(f"{record.name}: already done")
        print_end(folder, config, console)
        if mirror is not None:
            mirror.push(folder.path)
        return folder.path
    for record in folder.records()[-1:]:  # the model that the run goes on from
        check_weights(folder, record)
    with (
        folder.lock(),
        own_screen(console, folder.path / "library.log"),
        noted_end(folder.path),
        open_context(config, folder, base, console, mirror) as context,
    ):
        model_path, answers = context.checkpoint, []
        for stage in config.stages:
            if folder.record(stage.name) is not None:
                console.print(f"{stage.name}: already done")
            else:
                context.workers.serve(model_path)
                answers = _run_stage(context, stage, model_path)
            model_path = str(folder.stage(stage.name) / "model")
        context.workers.serve(model_path)
        if config.export:
            _export(context, model_path)
        finish_run(
            folder,
            config,
            answers or evaluate_model(context, config.stages[-1], load_policy(context, model_path))[1],
            seconds=time.monotonic() - began,
            console=console,
        )
    if mirror is not None:
        mirror.push(folder.path)
    return folder.path


def _export(context: RunContext, model_path: str) -> None:
    """Write the last stage's model as others load it."""
    context.console.print("exporting")
    model, run = load_policy(context, model_path), context.folder.path
    licence = known_licence(context.config) or "other"
    with working(context.console, "writing the export"):
        target, processor = run / "export", context.processor_of(model)
        write_export(model, processor, target, run=run, config=context.config, licence=licence)


def _run_stage(context: RunContext, config: StageConfig, model_path: str) -> list[ScoredRollout]:
    """Train one stage, save its model, evaluate it on held-out tasks, record it; return the greedy answers."""
    began = time.monotonic()
    if context.config.threads:
        torch.set_num_threads(context.config.threads)
    trained = train_stage(context, config, model_path)
    model, figures = trained.model, trained.figures
    seconds = time.monotonic() - began
    target = context.folder.stage(config.name) / "model"
    tasks = counted(len(context.inputs[config.name].held_out), "held-out task")
    with working(context.console, f"{config.name}: saving the model, evaluating it on {tasks}"):
        model.save_pretrained(target, state_dict=merged_state(model))
        context.processor_of(model).save_pretrained(target)
        result, answers = evaluate_model(context, config, model)
        require_verdicts(answers, where=f"{config.name}, held-out tasks")
        figures |= _perplexities(context, config, model)
    context.metrics.write(f"held_out/{config.name}", 0, (result.metrics() if result.tasks else {}) | figures)
    context.folder.finish(
        StageRecord(
            name=config.name,
            kind=config.kind,
            seconds=seconds,
            greedy_accuracy=result.greedy_accuracy,
            sampled_accuracy=result.sampled_accuracy,
            thinking_share=result.thinking_share,
            mean_tokens=result.mean_tokens,
            resumed=trained.resumed,
            intervals=result.intervals,
            figures=figures,
            weights=weight_hashes(target),
        )
    )
    context.copy_to_mirror()
    context.console.print(f"{config.name}: {_outcome(result, figures)}  ({seconds:.0f} s)")
    for line in result.gaps():
        context.console.print(f"  {line}")
    return answers


def _outcome(result: EvalResult, figures: Mapping[str, float]) -> str:
    """A stage's held-out figures in a line: of the tasks, or where it has none, what the stage measured itself."""
    if not result.tasks:
        return "  ".join(f"{name} {value:.3g}" for name, value in figures.items()) or "no held-out tasks"
    return (
        f"held-out greedy {result.greedy_accuracy:.3f}  sampled {result.sampled_accuracy:.3f}  "
        f"thinking {result.thinking_share:.2f}  tokens {result.mean_tokens:.1f}"
    )


def _perplexities(context: RunContext, config: StageConfig, model: VisionLanguageModel) -> dict[str, float]:
    """The perplexity of held-out documents, by source."""
    budget = config.micro_batch_tokens if isinstance(config, SupervisedConfig) else 16_384
    found = perplexities(model, context.inputs[config.name].documents, budget=budget)
    return {f"perplexity/{source}": value for source, value in found.items()}
