"""A whole run: instruct SFT, long-CoT SFT, RL, evaluation, export. Done stages are skipped when a run goes on."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from configs.schema import RLConfig, RunConfig, SamplingConfig, SFTConfig
from kimi_vl import (
    KimiVLForConditionalGeneration,
    KimiVLProcessor,
    TinySizes,
    create_tiny_checkpoint,
    load_model,
    load_processor,
)
from rewards.scorer import Scorer
from rl.adapters import merged_weights, prepare_training, save_adapters
from rl.checkpoint import replace_folder
from rl.console import StageProgress
from rl.evaluate import HELD_OUT_SEED, VALIDATION_SEED, EvalResult, evaluate, request_seed
from rl.export import known_licence, write_export
from rl.folder import STAGES, RunFolder, StageRecord
from rl.gather import Gatherer
from rl.learner import Learner, LearnerConfig, numpy_weights
from rl.loop import Loop
from rl.metrics import JsonlSink, Metrics, TensorBoardSink
from rl.report import finish_run, print_end
from rl.rollout_log import RolloutLog
from rl.stages.reinforce import ReinforceStage
from rl.stages.sft import answer_text, run_sft
from rl.sync import USUAL_THRESHOLD, WeightSync, parity_prompts
from rollouts.pool import RolloutPool
from rollouts.prompts import PromptRenderer
from rollouts.quarantine import Quarantine
from rollouts.samplers import build_sampler
from rollouts.tasks.mixture import TaskMixture, held_out
from rollouts.tokens import stop_and_barred_ids
from rollouts.types import Prompt, ScoredRollout
from rollouts.workers import EngineSpec, start_ray

_TINY_CORPUS_TASKS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every stage of a run shares."""

    config: RunConfig
    folder: RunFolder
    base: Path  # plug-ins and data files of the recipe are relative to this folder
    checkpoint: str  # folder or hub name of the initial weights
    barred_ids: tuple[int, ...]  # never sampled
    processor: KimiVLProcessor
    renderer: PromptRenderer
    pool: RolloutPool
    scorer: Scorer
    metrics: Metrics
    held_out: list[Prompt]
    console: Console

    def decode(self, token_ids: np.ndarray) -> str:
        """Text of response tokens, special tokens left out."""
        return self.processor.tokenizer.decode(token_ids, skip_special_tokens=True)

    def mixture(self, stream: int) -> TaskMixture:
        """The training mixture; each stage draws from a stream of its own."""
        mixture = TaskMixture(self.config.data.train, seed=request_seed(self.config.seed, stream), base=self.base)
        for line in mixture.report.lines():
            self.console.print(line, markup=False, highlight=False)
        return mixture


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
    with folder.lock(), _parts(config, folder, base, console) as parts:
        model_path, answers = parts.checkpoint, []
        for name in STAGES:
            stage = {"instruct": config.instruct, "long_cot": config.long_cot, "rl": config.rl}[name]
            if stage is None:
                continue
            if folder.record(name) is not None:
                console.print(f"{name}: already done")
            else:
                answers = _run_stage(parts, name, stage, model_path)
            model_path = str(folder.stage(name) / "model")
        if config.export:
            console.print("exporting")
            write_export(
                _load(parts, model_path),
                parts.processor,
                folder.path / "export",
                run=folder.path,
                config=config,
                licence=known_licence(config) or "other",
            )
        finish_run(
            folder,
            config,
            answers or _final_answers(parts, model_path),
            seconds=time.monotonic() - began,
            console=console,
        )
    return folder.path


@contextmanager
def _parts(config: RunConfig, folder: RunFolder, base: Path, console: Console) -> Iterator[Parts]:
    """Check everything that can fail before any training, then start Ray and the workers."""
    scorer = Scorer(config.rl.rewards if config.rl else (), base=base, judge=config.rl.judge if config.rl else None)
    metrics = Metrics([JsonlSink(folder.path / "metrics.jsonl"), TensorBoardSink(folder.path / "tensorboard")])
    started = False
    pool = None
    try:
        checkpoint = _base_model(config, folder, base, console)
        processor = load_processor(checkpoint)
        renderer = PromptRenderer(processor, max_prompt_tokens=config.data.max_prompt_tokens)
        _check_sampler(config, base)
        tasks = held_out(config.data.held_out, limit=config.evaluation.tasks, seed=HELD_OUT_SEED, base=base)
        scorer.check_tasks(tasks)
        prompts, skipped = renderer.render_all(tasks)
        for reason, count in skipped.items():
            console.print(f"held-out: {count} tasks left out ({reason})")
        stop, barred = stop_and_barred_ids(checkpoint, processor)
        workers = config.rl.workers if config.rl else 1
        started = start_ray(workers)
        spec = EngineSpec(
            model_path=checkpoint,
            dtype=config.model.dtype,
            stop_ids=tuple(stop),
            barred_ids=tuple(barred),
        )
        pool = RolloutPool(
            spec,
            workers=workers,
            deadline=config.rl.worker_deadline if config.rl else RLConfig(steps=1).worker_deadline,
            quarantine=Quarantine(folder.path / "quarantine.json"),
            folder=folder.path / "failures",
            say=functools.partial(console.print, markup=False, highlight=False, soft_wrap=True),
        )
        yield Parts(
            config=config,
            folder=folder,
            base=base,
            checkpoint=checkpoint,
            barred_ids=tuple(barred),
            processor=processor,
            renderer=renderer,
            pool=pool,
            scorer=scorer,
            metrics=metrics,
            held_out=prompts,
            console=console,
        )
    finally:
        if pool is not None:
            pool.close()
        if started:
            ray.shutdown()
        scorer.close()
        metrics.close()


def _check_sampler(config: RunConfig, base: Path) -> None:
    """Raise DataSetError now, not after the supervised stages, where the data cannot serve the sampler."""
    if config.rl is not None and config.rl.sampler.name not in ("uniform", "dynamic"):
        mixture = TaskMixture(config.data.train, seed=0, base=base)
        sampler = build_sampler(config.rl.sampler, mixture, seed=0, steps=config.rl.steps)
        sampler.draw(0, config.rl.prompts_per_step)


def _base_model(config: RunConfig, folder: RunFolder, base: Path, console: Console) -> str:
    """Where the initial weights are: an absolute folder or a hub name; makes the tiny model if the recipe says so."""
    given = Path(config.model.path)
    if config.model.path != "tiny":
        return str(given.resolve()) if given.exists() else config.model.path
    path = folder.stage("base").resolve()  # workers start in folders of their own
    if not (path / "config.json").exists():
        console.print("making a tiny Kimi-VL with random weights")
        tasks = TaskMixture(config.data.train, seed=0, base=base).draw(0, _TINY_CORPUS_TASKS)
        corpus = [t.question + "\n" + answer_text(t, thinking=t.solution is not None) for t in tasks]
        tiny = config.model.tiny
        sizes = TinySizes(
            hidden_size=tiny.hidden_size,
            num_hidden_layers=tiny.num_hidden_layers,
            num_attention_heads=tiny.num_attention_heads,
            n_routed_experts=tiny.n_routed_experts,
            num_experts_per_tok=tiny.num_experts_per_tok,
            moe_intermediate_size=tiny.moe_intermediate_size,
            vision_hidden_size=tiny.vision_hidden_size,
            vision_num_hidden_layers=tiny.vision_num_hidden_layers,
        )
        partial = path.with_name("base.partial")
        create_tiny_checkpoint(partial, corpus=corpus, sizes=sizes, seed=config.seed)
        replace_folder(partial, path)
    return str(path)


def _run_stage(parts: Parts, name: str, stage: SFTConfig | RLConfig, model_path: str) -> list[ScoredRollout]:
    """Train one stage, save its model, evaluate it on held-out tasks, record it; return the greedy answers."""
    began = time.monotonic()
    model = _load(parts, model_path)
    prepare_training(model, parts.config.model, base=model_path)
    if isinstance(stage, SFTConfig):
        resumed = _supervised(parts, name, stage, model)
        save_adapters(model, parts.folder.stage(name) / "adapter")
        final = model
    else:
        resumed, final = _reinforce(parts, stage, model)
    seconds = time.monotonic() - began
    target = parts.folder.stage(name) / "model"
    final.save_pretrained(target, state_dict=merged_weights(final))
    parts.processor.save_pretrained(target)
    result, answers = evaluate_model(parts, final)
    parts.metrics.write(f"held_out/{name}", 0, result.metrics())
    parts.folder.finish(
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
    parts.console.print(
        f"{name}: held-out greedy {result.greedy_accuracy:.3f}  sampled {result.sampled_accuracy:.3f}  "
        f"thinking {result.thinking_share:.2f}  tokens {result.mean_tokens:.1f}  ({seconds:.0f} s)",
        highlight=False,
    )
    return answers


def _supervised(parts: Parts, name: str, stage: SFTConfig, model: KimiVLForConditionalGeneration) -> bool:
    """Run an SFT stage on `model` in place; True if it went on from a checkpoint."""
    folder = parts.folder.stage(name) / "checkpoints"
    resumed = any(folder.glob("checkpoint-*"))
    with StageProgress(parts.console, name, total=stage.steps) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            parts.metrics.write(name, step, values)
            bar.advance({"loss": values["loss"]})

        run_sft(
            model,
            parts.processor,
            parts.renderer,
            parts.mixture(STAGES.index(name)),
            stage,
            folder=folder,
            seed=parts.config.seed,
            on_step=on_step,
        )
    return resumed


def _reinforce(
    parts: Parts, stage: RLConfig, model: KimiVLForConditionalGeneration
) -> tuple[bool, KimiVLForConditionalGeneration]:
    """Run the RL stage; return whether it was resumed, and the model with the best validation accuracy."""
    config = parts.config
    learner_config = LearnerConfig(
        loss=stage.loss,
        optimizer=stage.optimizer,
        temperature=stage.sampling.temperature,
        total_steps=stage.steps * stage.epochs * stage.minibatches,
        max_new_tokens=stage.sampling.max_new_tokens,
        epochs=stage.epochs,
        minibatches=stage.minibatches,
        micro_batch_tokens=stage.micro_batch_tokens,
        seed=config.seed,
    )
    loop = _loop(parts, stage, Learner(model, learner_config, barred_ids=parts.barred_ids))
    folder = parts.folder.stage("rl")
    reinforce = ReinforceStage(
        loop,
        folder=folder,
        validation=_validation(parts),
        evaluation=config.evaluation,
        metrics=parts.metrics,
        say=parts.console.print,
    )
    start = reinforce.restore()
    with StageProgress(parts.console, "rl", total=stage.steps, done=start) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            shown = ("accuracy", "thinking_share", "tokens_mean")
            bar.advance({name: values[name] for name in shown if name in values})

        reinforce.run(start, on_step)
    return start > 0, _load(parts, str(folder / "best"))


def _loop(parts: Parts, stage: RLConfig, learner: Learner) -> Loop:
    """The parts of the RL stage, put together."""
    seed = request_seed(parts.config.seed, 100)
    threshold = stage.parity_threshold
    return Loop(
        config=stage,
        gatherer=Gatherer(
            config=stage,
            sampler=build_sampler(stage.sampler, parts.mixture(STAGES.index("rl")), seed=seed, steps=stage.steps),
            renderer=parts.renderer,
            generate=parts.pool.generate,
            scorer=parts.scorer,
            decode=parts.decode,
            seed=seed,
        ),
        pool=parts.pool,
        learner=learner,
        log=RolloutLog(parts.folder.stage("rl") / "rollouts"),
        sync=WeightSync(
            pool=parts.pool,
            learner=learner,
            prompts=parity_prompts(parts.renderer),
            sampling=stage.sampling,
            threshold=USUAL_THRESHOLD[parts.config.model.dtype] if threshold is None else threshold,
            say=parts.console.print,
        ),
        seed=seed,
    )


def _validation(parts: Parts) -> list[Prompt]:
    """Prompts that choose the best checkpoint: the recipe's own, or the held-out ones."""
    data, limit = parts.config.data, parts.config.evaluation.validation_tasks
    if not data.validation:
        return parts.held_out[:limit]
    tasks = held_out(data.validation, limit=limit, seed=VALIDATION_SEED, base=parts.base)
    return parts.renderer.render_all(tasks)[0]


def evaluate_model(parts: Parts, model: KimiVLForConditionalGeneration) -> tuple[EvalResult, list[ScoredRollout]]:
    """Publish `model` to the workers and evaluate it on the held-out tasks."""
    parts.pool.publish(numpy_weights(model), version=parts.pool.version + 1)
    sampling = parts.config.rl.sampling if parts.config.rl else SamplingConfig()
    limits = SamplingConfig(
        max_new_tokens=parts.config.evaluation.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
    )
    return evaluate(
        parts.pool.generate,
        parts.decode,
        parts.scorer,
        parts.held_out,
        sampling=limits,
        samples=parts.config.evaluation.samples,
        seed=parts.config.seed,
    )


def _final_answers(parts: Parts, model_path: str) -> list[ScoredRollout]:
    """Greedy answers of a run whose last stage was done before this invocation."""
    return evaluate_model(parts, _load(parts, model_path))[1]


def _load(parts: Parts, path: str) -> KimiVLForConditionalGeneration:
    model = load_model(path, dtype=getattr(torch, parts.config.model.dtype))
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return model
