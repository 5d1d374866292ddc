"""What every stage of a run shares, checked and started before any training."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ray
import torch

from configs.data import DataConfig
from configs.errors import UserError
from configs.load import plain
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SupervisedConfig
from rl.checkpoint import replace_folder
from rl.run.console import PlainConsole
from rl.run.data_fingerprint import check_commit, check_files, check_tasks
from rl.run.folder import RunFolder
from rl.run.loading import load_model, load_processor
from rl.run.mirror import Mirror
from rl.run.progress import working
from rl.run.rollout_workers import RolloutWorkers
from rl.run.seats import run_seats
from rl.run.short_model import check_short_models
from rl.run.stage_inputs import StageInputs, open_inputs, training_part
from rl.run.trackers.run_info import RunInfo
from rl.run.trackers.table import Metrics
from rollouts.engines.engine_file import EngineFile
from rollouts.engines.engine_spec import VLLM_CPU_LATENTS, EngineSpec, check_sizes, choose_engine
from rollouts.model_family import FAMILIES, TINY_FAMILY, VisionLanguageModel, VisionLanguageProcessor, family_at
from rollouts.sources.rollout_pipeline import RolloutPipeline, request_seed
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.mixture import Mixture, TaskMixture
from rollouts.tasks.prompts import target_text
from rollouts.tasks.templates import PromptTemplates
from rollouts.workers.pool import RolloutPool
from rollouts.workers.quarantine import Quarantine
from rollouts.workers.render_tasks import RenderTasks
from rollouts.workers.start_ray import start_ray

_TINY_CORPUS_TASKS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every stage of a run shares."""

    config: RunConfig
    folder: RunFolder
    base: Path  # the working folder, which plug-ins and data files of the recipe are relative to
    checkpoint: str  # folder or hub name of the initial weights
    barred_ids: tuple[int, ...]  # never sampled
    processor: VisionLanguageProcessor
    workers: RolloutWorkers
    metrics: Metrics
    inputs: Mapping[str, StageInputs]  # of each stage, by its name
    mirror: Mirror | None
    console: PlainConsole
    rank_nodes: tuple[str, ...] = ()  # Ray's id of the node of each learner rank; empty: Ray chooses

    @property
    def pool(self) -> RolloutPool:
        """The workers that serve the model at hand."""
        return self.workers.pool

    def copy_to_mirror(self) -> None:
        """Copy the run's folder to the recipe's mirror, if it has one. A failure is printed; the next copy has all."""
        if self.mirror is None:
            return
        try:
            self.mirror.push(self.folder.path)
        except UserError as error:
            self.console.print(str(error))

    def pipeline(self, stage: StageConfig) -> RolloutPipeline:
        """From a stage's tasks to scored rollouts, with the run's workers."""
        inputs = self.inputs[stage.name]
        return RolloutPipeline(
            renderer=inputs.renderer,
            generate=self.pool.generate,
            decode=self.decode,
            scorer=inputs.scorer,
            render_tasks=RenderTasks(inputs.renderer),
        )

    def processor_of(self, model: VisionLanguageModel) -> VisionLanguageProcessor:
        """The run's processor, to be saved with `model`: its tokenizer allows as many tokens as the model reads."""
        tokenizer = self.processor.tokenizer
        tokenizer.model_max_length = max(tokenizer.model_max_length, model.config.context)
        return self.processor

    def decode(self, token_ids: np.ndarray) -> str:
        """Text of response tokens, special tokens left out."""
        return self.processor.tokenizer.decode(token_ids, skip_special_tokens=True)

    def mixture(self, stage: StageConfig) -> TaskMixture:
        """The training mixture of a stage; each stage draws from a stream of its own."""
        train = self.inputs[stage.name].data.train
        return TaskMixture(train, seed=self.seed(stage), base=self.base, part=training_part(self.config))

    def examples(self, stage: SupervisedConfig) -> Mixture[Example]:
        """The training mixture of a supervised stage: tasks, documents or both."""
        return Mixture(
            self.inputs[stage.name].data.train,
            seed=self.seed(stage),
            base=self.base,
            part=training_part(self.config),
            total=stage.steps * stage.batch_size,
        )

    def place_of(self, stage: StageConfig) -> str:
        """Which of the run's stages it is. Example: `stage 2 of 3`."""
        names = [one.name for one in self.config.stages]
        return f"stage {names.index(stage.name) + 1} of {len(names)}"

    def frozen_base(self, model_path: str) -> str:
        """Where a stage that starts from the model in `model_path` reads what it does not train."""
        return model_path if self.config.model.quantization is None else self.checkpoint

    def seed(self, stage: StageConfig) -> int:
        """A stage's own seed. It depends on the stage's name, so that leaving out a stage changes no other."""
        return request_seed(self.config.seed, zlib.crc32(stage.name.encode()))


@contextmanager
def open_context(
    config: RunConfig, folder: RunFolder, base: Path, console: PlainConsole, mirror: Mirror | None = None
) -> Iterator[RunContext]:
    """Check everything that can fail before any training, then start Ray and the workers."""
    stage = config.last_rl or RLConfig(steps=1)
    for line in folder.accept_changes(config):
        console.print(f"the recipe changes: {line}")
    engine = choose_engine(stage.engine, stage.engine_options, base=base, trains=True)
    check_short_models(config, folder, base=base)
    check_files(config, folder.path, base=base, say=console.print)
    with ExitStack() as stack:
        info = RunInfo(folder=folder.path, name=config.name, recipe=plain(config))
        metrics = stack.enter_context(closing(Metrics.open(config.trackers, info, console.print)))
        with working(console, "preparing the model"):
            checkpoint = _base_model(config, folder, base, console)
            check_sizes(stage.engine, checkpoint)
            family = family_at(checkpoint)
            processor = load_processor(checkpoint, name=f"model.path = {config.model.path}")
        check_commit(folder.path, checkpoint)
        with working(console, "reading and checking the data"):
            inputs, contents = open_inputs(
                stack, config, processor, base, console, base_context=family.load_config(checkpoint).context
            )
        check_tasks(folder.path, contents)
        spec = _engine_spec(config, engine, checkpoint, processor)
        with working(console, "starting Ray"):
            workers, rank_nodes = _open_workers(stack, config, spec, folder, console)
        yield RunContext(
            config=config,
            folder=folder,
            base=base,
            checkpoint=checkpoint,
            barred_ids=spec.barred_ids,
            processor=processor,
            workers=workers,
            metrics=metrics,
            inputs=inputs,
            console=console,
            rank_nodes=rank_nodes,
            mirror=mirror,
        )


def _engine_spec(
    config: RunConfig, engine: str | EngineFile, checkpoint: str, processor: VisionLanguageProcessor
) -> EngineSpec:
    """What the workers build their engines from."""
    stage = config.last_rl or RLConfig(steps=1)
    stop, barred = family_at(checkpoint).stop_and_barred_ids(checkpoint, processor)
    return EngineSpec(
        model_path=checkpoint,
        dtype=config.engine_dtype,
        stop_ids=tuple(stop),
        barred_ids=tuple(barred),
        record_experts=any(rl.router_replay for rl in config.rl_stages),
        engine=engine,
        options=stage.engine_options,
        context=config.longest_sequence,
        sleeps=stage.colocate,
    )


def _open_workers(
    stack: ExitStack, config: RunConfig, spec: EngineSpec, folder: RunFolder, console: PlainConsole
) -> tuple[RolloutWorkers, tuple[str, ...]]:
    """Start Ray, unless it runs already; the rollout workers start when a stage needs them. `stack` ends both.

    Also returns the nodes of the learner's ranks.
    """
    stage = config.last_rl or RLConfig(steps=1, workers=1)
    ranks = max(stage.ranks.count for stage in config.trained_stages)
    if start_ray(stage.workers + ranks - 1, say=console.print):
        stack.callback(ray.shutdown)
    seats, rank_nodes = run_seats(config, console.print)

    def open_pool(spec: EngineSpec) -> RolloutPool:
        return RolloutPool(
            spec,
            workers=stage.workers,
            deadline=stage.worker_deadline,
            quarantine=Quarantine(folder.path / "quarantine.json"),
            folder=folder.path / "failures",
            say=console.print,
            seats=seats,
        )

    return stack.enter_context(closing(RolloutWorkers(spec, open_pool))), rank_nodes


def _base_model(config: RunConfig, folder: RunFolder, base: Path, console: PlainConsole) -> str:
    """Where the initial weights are: an absolute folder or a hub name; makes the tiny model if the recipe says so."""
    given = Path(config.model.path).expanduser()
    if config.model.path != "tiny":
        return str(given.resolve()) if given.exists() else config.model.path
    path = folder.stage("base").resolve()  # workers start in folders of their own
    if not (path / "config.json").exists():
        family = FAMILIES[TINY_FAMILY]
        console.print(f"making a tiny {family.TITLE} with random weights")
        corpus = [text for data in config.all_data for text in _texts(data, base)]
        sizes = asdict(config.model.tiny)
        if any(stage.engine == "vllm" for stage in config.rl_stages):
            sizes |= VLLM_CPU_LATENTS
        partial = path.with_name("base.partial")
        family.create_tiny_checkpoint(partial, corpus=corpus, sizes=sizes, seed=config.seed)
        replace_folder(partial, path)
    return str(path)


def _texts(data: DataConfig, base: Path) -> Iterator[str]:
    """Questions and answers as a stage reads them, for the vocabulary of a tiny model."""
    templates = PromptTemplates.from_config(data)
    examples: Mixture[Example] = Mixture(data.train, seed=0, base=base)
    for example in examples.draw(0, _TINY_CORPUS_TASKS):
        if isinstance(example, Document):
            yield example.text
        else:
            yield templates.text(example) + "\n" + target_text(example, thinking=example.solution is not None)


def load_policy(context: RunContext, path: str, *, train: bool = False) -> VisionLanguageModel:
    """The model in `path`, in the recipe's type; to `train` on the `training_device`, else on the CPU."""
    name = f"model.path = {context.config.model.path}" if path == context.checkpoint else str(context.folder.path)
    model = load_model(path, name=name, dtype=getattr(torch, context.config.model.dtype))
    if train:
        torch.nn.Module.to(model, training_device())
    return model


def training_device() -> torch.device:
    """Where this process trains: the last GPU, since Ray gives its workers the first ones; else the CPU."""
    return torch.device("cuda", torch.cuda.device_count() - 1) if torch.cuda.is_available() else torch.device("cpu")
