"""Opens and checks the training and evaluation data of every stage before any training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.long2short import LongToShortConfig
from configs.long_context import LongContextConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import PretrainConfig, SFTConfig
from configs.text import counted
from configs.vit import ViTConfig
from rewards.images import BadImage
from rewards.scorer import Scorer
from rewards.types import Task
from rl.run.console import PlainConsole
from rl.run.data_fingerprint import Contents
from rl.run.document_rendering import DocumentRenderer
from rl.run.evaluate import HELD_OUT_SEED, VALIDATION_SEED
from rl.run.leaks import leak_line
from rl.run.model_context import stage_contexts, within_context
from rl.run.scoring import open_scorer, scoring_stage
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageProcessor
from rollouts.sources.verdict_watch import try_rewards
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.image_text import has_pair, require_pairs
from rollouts.tasks.mixture import Mixture, TaskMixture, TaskPart
from rollouts.tasks.prompts import BadPrompt, PromptRenderer
from rollouts.tasks.task_samplers import build_task_sampler
from rollouts.types import Prompt

_CHECKED_TASKS = 64  # of the training mixture, whose verifiers are loaded before any training


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInputs:
    """The renderer, scorer and evaluation prompts of a stage. Stages with the same data share them."""

    data: DataConfig
    context: int  # the most tokens that the stage's model reads
    renderer: PromptRenderer
    scorer: Scorer
    # empty for `vit`, which answers nothing, and where all held-out sources have documents, as `pretrain` allows
    held_out: list[Prompt]
    documents: list[PromptCompletion]  # held out, to measure the perplexity
    pairs: list[Example]  # of one image and a caption, held out; of `vit` stages alone
    validation: list[Prompt]  # they choose RL's best checkpoint: the recipe's own, or a part of the training source


def open_inputs(
    stack: ExitStack,
    config: RunConfig,
    processor: VisionLanguageProcessor,
    base: Path,
    console: PlainConsole,
    *,
    base_context: int,
) -> tuple[dict[str, StageInputs], dict[str, Contents]]:
    """The inputs of every stage by its name, checked, and the hash of the tasks of each source.

    `stack` closes the scorers. `base_context` is the context of the initial weights, in tokens.

    Raises DataSetError, PluginError or UserError if a stage cannot use its data.
    """
    reader = _Reader(config, base, console)
    scorers: dict[str, Scorer] = {}
    found: dict[str, StageInputs] = {}
    contexts = stage_contexts(config, base_context)
    for stage in config.stages:
        data = within_context(config.data_of(stage), contexts[stage.name])
        rl = scoring_stage(config, stage)
        key = repr((rl and (rl.rewards, rl.judge), data))
        if key not in scorers:
            scorers[key] = stack.enter_context(open_scorer(rl, data, base=base))
        renderer = PromptRenderer.from_config(processor, data)
        train = reader.check_training(stage, data, scorers[key], renderer)
        held, validation = reader.evaluation_prompts(stage, data, scorers[key], renderer)
        reader.report_leaks(train, {"held_out": held, "validation": validation})
        found[stage.name] = StageInputs(
            data=data,
            context=contexts[stage.name],
            renderer=renderer,
            scorer=scorers[key],
            held_out=held,
            documents=reader.documents(data),
            pairs=reader.pairs(stage, data) if isinstance(stage, ViTConfig) else [],
            validation=validation,
        )
    return found, reader.contents


def training_part(config: RunConfig) -> TaskPart:
    """The part of the training sources that all stages draw from: everything but the validation split."""
    return "all" if all(config.data_of(stage).validation for stage in config.rl_stages) else "train"


class _Reader:
    """Reads the data of the stages; data that stages share is read and reported once."""

    def __init__(self, config: RunConfig, base: Path, console: PlainConsole) -> None:
        self._config, self._base, self._console = config, base, console
        self._prompts: dict[str, list[Prompt]] = {}
        self._documents: dict[str, list[PromptCompletion]] = {}
        self._told: set[str] = set()  # what was left out of the sources
        self._tried: set[tuple[object, ...]] = set()
        self.contents: dict[str, Contents] = {}

    def _open(self, sources: Sequence[SourceConfig], seed: int, part: TaskPart) -> Mixture[Example]:
        mixture: Mixture[Example] = Mixture(sources, seed=seed, base=self._base, part=part)
        self.contents |= mixture.contents
        for line in mixture.report.lines():
            if line not in self._told:
                self._told.add(line)
                self._console.print(line)
        return mixture

    def evaluation_prompts(
        self, stage: StageConfig, data: DataConfig, scorer: Scorer, renderer: PromptRenderer
    ) -> tuple[list[Prompt], list[Prompt]]:
        """The held-out prompts, and those that choose RL's best checkpoint."""
        few = self._config.evaluation.validation_tasks
        limit = self._config.evaluation.tasks
        found = self._render("held_out", data, limit, HELD_OUT_SEED, scorer, renderer)
        if isinstance(stage, ViTConfig):
            return [], []
        if limit and not found and not isinstance(stage, PretrainConfig | LongContextConfig):
            raise _without_tasks("held_out")
        if not isinstance(stage, RLConfig):
            return found, []
        validation = self._render("validation", data, few, VALIDATION_SEED, scorer, renderer)
        if not validation:
            raise _without_tasks("validation", any_example=bool(self._documents[_key("validation", data)]))
        if not data.validation:
            self._console.print(
                f"{stage.name}: data.validation is empty, so the best checkpoint is chosen by "
                f"{counted(len(validation), 'task')} that "
                "are set apart from data.train and never trained on; the held-out tasks are only reported",
            )
        return found, validation

    def _render_documents(
        self, documents: Sequence[Document], processor: VisionLanguageProcessor, data: DataConfig
    ) -> tuple[list[PromptCompletion], Mapping[str, int]]:
        """Rows of the documents, and how many documents were left out for each reason."""
        renderer = DocumentRenderer(processor, max_tokens=data.max_prompt_tokens)
        rendered: list[PromptCompletion] = []
        skipped: Counter[str] = Counter()
        for document in documents:
            try:
                rendered += renderer.render(document)
            except (BadPrompt, BadImage) as error:
                skipped[error.reason] += 1
        return rendered, skipped

    def documents(self, data: DataConfig) -> list[PromptCompletion]:
        """The held-out documents, once `evaluation_prompts` has read them."""
        return self._documents[_key("held_out", data)]

    def pairs(self, stage: StageConfig, data: DataConfig) -> list[Example]:
        """The held-out pairs of one image and a caption. Raises UserError where a held-out source has none."""
        examples = self._open(data.held_out, HELD_OUT_SEED, "all").fixed(self._config.evaluation.tasks)
        require_pairs(examples, stage=stage.name, where="data.held_out")
        return [example for example in examples if has_pair(example)]

    def _render(
        self, key: str, data: DataConfig, limit: int, seed: int, scorer: Scorer, renderer: PromptRenderer
    ) -> list[Prompt]:
        """The prompts of the held-out or validation tasks, none where all sources have documents; read once."""
        sources: Sequence[SourceConfig] = getattr(data, key)
        part: TaskPart = "all" if sources else "validation"
        same = _key(key, data)
        if same in self._prompts:
            known = self._prompts[same]
            self._try_rewards(key, scorer, [prompt.task for prompt in known])  # a stage may have its own rewards
            return known
        examples = self._open(sources or data.train, seed, part).fixed(limit)
        tasks = [example for example in examples if isinstance(example, Task)]
        documents = [example for example in examples if isinstance(example, Document)]
        self._documents[same], unread = self._render_documents(documents, renderer.processor, data)
        rendered, skipped = renderer.render_all(tasks)
        for what, reasons in (("tasks", skipped), ("documents", unread)):
            for reason, count in reasons.items():
                self._console.print(f"{key}: {count} {what} left out ({reason})")
        if tasks and not rendered:
            raise UserError(
                f"data.{key}: none of the {counted(len(tasks), 'task')} can be rendered: {_reasons(skipped)}"
            )
        self._try_rewards(key, scorer, tasks)
        self._prompts[same] = rendered
        return rendered

    def _try_rewards(self, key: str, scorer: Scorer, tasks: Sequence[Task]) -> None:
        """Load the verifiers of the tasks and score the references of the first ones, once for each scorer."""
        if not tasks:
            return
        scorer.check_tasks(tasks)
        tried = (id(scorer), *(task.id for task in tasks))
        if tried not in self._tried:
            self._tried.add(tried)
            for line in try_rewards(scorer, tasks, where=f"data.{key}"):
                self._console.print(line)

    def check_training(
        self, stage: StageConfig, data: DataConfig, scorer: Scorer, renderer: PromptRenderer
    ) -> Mixture[Example]:
        """The training data, open. Raise if the stage cannot use them: no prompt fits, no solution, unknown verifier.

        The first tasks of the mixture are looked at, to which every source adds whose share is above a hundredth.
        """
        part = training_part(self._config)
        mixture = self._open(data.train, 0, part)
        examples = mixture.draw(0, _CHECKED_TASKS)
        tasks = [example for example in examples if isinstance(example, Task)]
        rendered, skipped = renderer.render_all(tasks)
        documents = [example for example in examples if isinstance(example, Document)]
        texts, unread = self._render_documents(documents, renderer.processor, data)
        if not rendered and not texts:
            what = "tasks" if len(tasks) == len(examples) else "tasks and documents"
            reasons = _reasons({**skipped, **unread})
            raise UserError(f"data.train: none of the first {len(examples)} {what} can be rendered: {reasons}")
        if isinstance(stage, ViTConfig):
            require_pairs(examples, stage=stage.name, where="data.train")
        if isinstance(stage, SFTConfig) and tasks:
            self._check_solutions(stage, tasks)
        if isinstance(stage, LongToShortConfig) and stage.method != "average":
            scorer.check_tasks(TaskMixture(data.train, seed=0, base=self._base, part=part).draw(0, _CHECKED_TASKS))
        if isinstance(stage, RLConfig):
            own = TaskMixture(data.train, seed=0, base=self._base, part=part)
            self._try_rewards("train", scorer, own.draw(0, _CHECKED_TASKS))
            sampler = build_task_sampler(stage.decided_task_sampler, own, seed=0, steps=stage.steps)
            sampler.draw(0, stage.prompts_per_step)
        return mixture

    def report_leaks(self, train: Mixture[Example], measured: Mapping[str, Sequence[Prompt]]) -> None:
        """Print that tasks of `measured` are training tasks too; once for stages of the same data."""
        line = leak_line(train, {role: [prompt.task for prompt in prompts] for role, prompts in measured.items()})
        if line is not None and line not in self._told:
            self._told.add(line)
            self._console.print(line)

    def _check_solutions(self, stage: SFTConfig, tasks: Sequence[Task]) -> None:
        without = sum(task.solution is None for task in tasks)
        if stage.thinking_share == 0 or without == 0:
            return
        if without == len(tasks):
            raise UserError(
                f"{stage.name}.thinking_share = {stage.thinking_share}: none of the first "
                f"{counted(len(tasks), 'task')} of "
                "data.train has a solution; map a column with `columns: {solution: NAME}`, or set thinking_share to 0"
            )
        self._console.print(
            f"{stage.name}: {without} of the first {counted(len(tasks), 'task')} have no solution: "
            "they train the answer alone"
        )


def _without_tasks(key: str, *, any_example: bool = True) -> UserError:
    if not any_example:
        return UserError(
            f"data.{key}: no task is left for it: data.train has too few rows to set some apart; "
            f"give more rows, or tasks of their own under data.{key}"
        )
    return UserError(f"data.{key}: all sources have documents; list at least one with questions and answers")


def _key(part: str, data: DataConfig) -> str:
    """Equal for stages that read the same data."""
    return json.dumps([part, asdict(data)])


def _reasons(skipped: Mapping[str, int]) -> str:
    """The reasons why tasks were left out, with counts. Example: `prompt longer than 8 tokens (64)`."""
    return ", ".join(f"{reason} ({count})" for reason, count in skipped.items()) or "there is none"
