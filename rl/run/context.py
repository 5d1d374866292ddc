"""What every stage of a run shares, checked and started before any training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from rich.console import Console

from configs.data import SourceConfig
from configs.errors import UserError
from configs.load import plain
from configs.rl import RLConfig
from configs.schema import RunConfig
from rewards.scorer import Scorer
from rl.checkpoint import replace_folder
from rl.run.evaluate import HELD_OUT_SEED, VALIDATION_SEED
from rl.run.folder import RunFolder
from rl.run.scoring import open_scorer
from rl.run.trackers.run_info import RunInfo
from rl.run.trackers.table import Metrics
from rl.stages.sft import answer_text
from rollouts.engines.table import VLLM_CPU_LATENTS, EngineSpec, check_sizes, choose_engine
from rollouts.model_family import FAMILIES, TINY_FAMILY, VisionLanguageModel, VisionLanguageProcessor, family_at
from rollouts.sources.rollout_pipeline import RolloutPipeline, request_seed
from rollouts.tasks.curriculum import build_sampler
from rollouts.tasks.mixture import TaskMixture, held_out
from rollouts.tasks.prompts import PromptRenderer
from rollouts.tasks.templates import PromptTemplates
from rollouts.types import Prompt
from rollouts.workers.actor import start_ray
from rollouts.workers.pool import RolloutPool
from rollouts.workers.quarantine import Quarantine

_TINY_CORPUS_TASKS = 2000
_CHECKED_TASKS = 64  # of the training mixture, whose verifiers are loaded before any training


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every stage of a run shares."""

    config: RunConfig
    folder: RunFolder
    base: Path  # the working folder, which plug-ins and data files of the recipe are relative to
    checkpoint: str  # folder or hub name of the initial weights
    barred_ids: tuple[int, ...]  # never sampled
    processor: VisionLanguageProcessor
    renderer: PromptRenderer
    pool: RolloutPool
    scorer: Scorer
    metrics: Metrics
    held_out: list[Prompt]
    validation: list[Prompt]  # they choose RL's best checkpoint: the recipe's own, or the first held-out ones
    console: Console

    @property
    def pipeline(self) -> RolloutPipeline:
        """From tasks to scored rollouts, with the run's workers."""
        return RolloutPipeline(
            renderer=self.renderer, generate=self.pool.generate, decode=self.decode, scorer=self.scorer
        )

    def decode(self, token_ids: np.ndarray) -> str:
        """Text of response tokens, special tokens left out."""
        return self.processor.tokenizer.decode(token_ids, skip_special_tokens=True)

    def mixture(self, stream: int) -> TaskMixture:
        """The training mixture; each stage draws from a stream of its own."""
        mixture = TaskMixture(self.config.data.train, seed=request_seed(self.config.seed, stream), base=self.base)
        for line in mixture.report.lines():
            self.console.print(line, markup=False, highlight=False)
        return mixture


@contextmanager
def open_context(config: RunConfig, folder: RunFolder, base: Path, console: Console) -> Iterator[RunContext]:
    """Check everything that can fail before any training, then start Ray and the workers."""
    stage = config.rl or RLConfig(steps=1)
    for line in folder.accept_changes(config):
        console.print(f"the recipe changes: {line}", markup=False, highlight=False)
    engine = choose_engine(stage.engine, stage.engine_options, base=base, trains=True)
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(config, base=base))
        info = RunInfo(folder=folder.path, name=config.name, recipe=plain(config))
        metrics = stack.enter_context(closing(Metrics.open(config.trackers, info, _printer(console))))
        checkpoint = _base_model(config, folder, base, console)
        check_sizes(stage.engine, checkpoint)
        family = family_at(checkpoint)
        processor = family.load_processor(checkpoint)
        renderer = PromptRenderer.from_config(processor, config.data)
        _check_training_data(config, scorer, renderer, base, console)
        prompts, validation = _evaluation_prompts(config, scorer, renderer, base, console)
        stop, barred = family.stop_and_barred_ids(checkpoint, processor)
        spec = EngineSpec(
            model_path=checkpoint,
            dtype=config.model.dtype,
            stop_ids=tuple(stop),
            barred_ids=tuple(barred),
            record_experts=stage.router_replay,
            engine=engine,
            context=_context(config),
        )
        yield RunContext(
            config=config,
            folder=folder,
            base=base,
            checkpoint=checkpoint,
            barred_ids=tuple(barred),
            processor=processor,
            renderer=renderer,
            pool=_start_workers(stack, config, spec, folder, console),
            scorer=scorer,
            metrics=metrics,
            held_out=prompts,
            validation=validation,
            console=console,
        )


def _start_workers(
    stack: ExitStack, config: RunConfig, spec: EngineSpec, folder: RunFolder, console: Console
) -> RolloutPool:
    """Start Ray, unless it runs already, and the rollout workers; `stack` closes what was started."""
    stage = config.rl or RLConfig(steps=1)
    workers = stage.workers if config.rl else 1
    if start_ray(workers + stage.ranks.count - 1):
        stack.callback(ray.shutdown)
    pool = RolloutPool(
        spec,
        workers=workers,
        deadline=stage.worker_deadline,
        quarantine=Quarantine(folder.path / "quarantine.json"),
        folder=folder.path / "failures",
        say=_printer(console),
    )
    return stack.enter_context(closing(pool))


def _printer(console: Console) -> Callable[[str], None]:
    """Prints a text as it is: without markup, colours or line breaks of its own."""
    return functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)


def _context(config: RunConfig) -> int:
    """The most tokens that a prompt and its answer can have in this run."""
    answer = config.evaluation.max_new_tokens
    return config.data.max_prompt_tokens + max(answer, config.rl.sampling.max_new_tokens if config.rl else 0)


def _evaluation_prompts(
    config: RunConfig, scorer: Scorer, renderer: PromptRenderer, base: Path, console: Console
) -> tuple[list[Prompt], list[Prompt]]:
    """The held-out prompts, and those that choose RL's best checkpoint. Raises DataSetError, PluginError."""

    def prompts(name: str, sources: Sequence[SourceConfig], limit: int, seed: int) -> list[Prompt]:
        tasks = held_out(sources, limit=limit, seed=seed, base=base)
        scorer.check_tasks(tasks)
        rendered, skipped = renderer.render_all(tasks)
        for reason, count in skipped.items():
            console.print(f"{name}: {count} tasks left out ({reason})")
        if not rendered:
            raise UserError(f"data.{name}: none of the {len(tasks)} tasks can be rendered: {_reasons(skipped)}")
        return rendered

    data, few = config.data, config.evaluation.validation_tasks
    found = prompts("held_out", data.held_out, config.evaluation.tasks, HELD_OUT_SEED)
    if config.rl is None or not data.validation:
        return found, found[:few]
    return found, prompts("validation", data.validation, few, VALIDATION_SEED)


def _check_training_data(
    config: RunConfig, scorer: Scorer, renderer: PromptRenderer, base: Path, console: Console
) -> None:
    """Raise before any training where the data cannot serve a stage: no prompt fits, no solution, no such verifier.

    The first tasks of the mixture are looked at, to which every source adds whose share is above a hundredth. Raises
    DataSetError, PluginError, UserError.
    """
    mixture = TaskMixture(config.data.train, seed=0, base=base)
    tasks = mixture.draw(0, _CHECKED_TASKS)
    rendered, skipped = renderer.render_all(tasks)
    if not rendered:
        raise UserError(f"data.train: none of the first {len(tasks)} tasks can be rendered: {_reasons(skipped)}")
    without = sum(task.solution is None for task in tasks)
    for name, stage in (("instruct", config.instruct), ("long_cot", config.long_cot)):
        if stage is None or stage.thinking_share == 0 or without == 0:
            continue
        if without == len(tasks):
            raise UserError(
                f"{name}.thinking_share = {stage.thinking_share}: none of the first {len(tasks)} tasks of data.train "
                "has a solution; map a column with `columns: {solution: NAME}`, or set thinking_share to 0"
            )
        console.print(
            f"{name}: {without} of the first {len(tasks)} tasks have no solution: they train the answer alone"
        )
    if config.rl is not None:
        scorer.check_tasks(tasks)
        sampler = build_sampler(config.rl.sampler, mixture, seed=0, steps=config.rl.steps)
        sampler.draw(0, config.rl.prompts_per_step)


def _reasons(skipped: Mapping[str, int]) -> str:
    """Why tasks were left out. Example: `prompt longer than 8 tokens (64)`."""
    return ", ".join(f"{reason} ({count})" for reason, count in skipped.items()) or "there is none"


def _base_model(config: RunConfig, folder: RunFolder, base: Path, console: Console) -> str:
    """Where the initial weights are: an absolute folder or a hub name; makes the tiny model if the recipe says so."""
    given = Path(config.model.path).expanduser()
    if config.model.path != "tiny":
        return str(given.resolve()) if given.exists() else config.model.path
    path = folder.stage("base").resolve()  # workers start in folders of their own
    if not (path / "config.json").exists():
        family = FAMILIES[TINY_FAMILY]
        console.print(f"making a tiny {family.TITLE} with random weights")
        tasks = TaskMixture(config.data.train, seed=0, base=base).draw(0, _TINY_CORPUS_TASKS)
        templates = PromptTemplates.from_config(config.data)
        corpus = [templates.text(t) + "\n" + answer_text(t, thinking=t.solution is not None) for t in tasks]
        sizes = asdict(config.model.tiny)
        if config.rl is not None and config.rl.engine == "vllm":
            sizes |= VLLM_CPU_LATENTS
        partial = path.with_name("base.partial")
        family.create_tiny_checkpoint(partial, corpus=corpus, sizes=sizes, seed=config.seed)
        replace_folder(partial, path)
    return str(path)


def load_policy(context: RunContext, path: str, *, train: bool = False) -> VisionLanguageModel:
    """The model in `path`, in the recipe's type; to `train` on the GPU where there is one, else on the CPU.

    Of several GPUs it is the last, since Ray gives its workers the first ones. SFT's Trainer moves it to the first.
    """
    model = family_at(path).load_model(path, dtype=getattr(torch, context.config.model.dtype))
    if train and torch.cuda.is_available():
        torch.nn.Module.to(model, f"cuda:{torch.cuda.device_count() - 1}")
    return model
