"""The steps that both commands share: read, screen, sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from configs.prompt import PromptConfig
from configs.rl import SamplingConfig
from rewards.types import Task
from rl.curation.generators import Drawing
from rl.curation.inputs import DataOptions, Inputs, TaskSet, evaluation_sets, open_inputs
from rl.curation.model_options import SamplingOptions
from rl.curation.prompt_set import Origin, already_made
from rl.curation.report import Report
from rl.curation.sample_log import open_sample_log
from rl.curation.sampling import BLOCK, Sampled, Sampler
from rl.curation.screening import Screened, ScreenedTask, index_evaluation, screen
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationPlan:
    """The data, model and output of a command."""

    command: str
    output: Path
    data: DataOptions
    model: SamplingOptions
    keep_kinds: Collection[str]
    prompt: PromptConfig  # goes before the recipe's
    drawn: Mapping[str, Any]  # what the samples depend on, beside model, sampling, prompts and tasks
    kept: Mapping[str, Any]  # what else the output depends on
    keep_texts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The screened tasks, a sampler, and the report; `settings` are everything that the output depends on."""

    screened: Screened
    sampler: Sampler
    sampling: SamplingConfig
    settings: Mapping[str, Any]
    origin: Origin
    report: Report
    console: PlainConsole

    def task(self, key: str) -> Task:
        """The task of a key."""
        return self.screened.read(key)

    @property
    def left(self) -> Mapping[str, ScreenedTask]:
        """The screened tasks by key."""
        return self.screened.left

    def leave_out(self, reason: str, key: str) -> None:
        """Count a task that is left out."""
        self.report.leave_out(reason, self.left[key].id)

    def draw(self, stage: str, keys: Sequence[str], drawing: Drawing) -> Iterator[Sampled]:
        """Sample each task, with a progress bar. A task that cannot be sampled is left out and counted."""
        with StageProgress(self.console, stage, total=-(-len(keys) // BLOCK)) as bar:
            for block in self.sampler.draw(stage, keys, self.task, drawing):
                for sampled in block:
                    if sampled.reason is None:
                        yield sampled
                    else:
                        self.leave_out(sampled.reason, sampled.key)
                bar.advance({"correct": sum(sampled.correct for sampled in block)})


@contextmanager
def open_session(plan: CurationPlan, console: PlainConsole) -> Iterator[Session | None]:
    """Read and screen the data and start the generator; None if the output exists with the same settings.

    Raises UserError, ConfigError, DataSetError, PluginError or OSError for a mistake of the user.
    """
    place = plan.model.place()
    inputs = open_inputs(plan.data, place)
    inputs = replace(inputs, data=replace(inputs.data, prompt=plan.prompt.over(inputs.data.prompt)))
    sampling = plan.model.sampling(inputs)
    tasks = TaskSet(inputs.data.train, seed=plan.model.seed, limit=plan.data.limit)
    for line in tasks.report.lines():
        console.print(line)
    report = Report(len(tasks.places))
    with inputs.scorer(plan.data.allowed) as scorer:
        evaluation, contents = index_evaluation(evaluation_sets(plan.data, inputs), console)
        screened = screen(tasks, evaluation, keep_kinds=plan.keep_kinds, scorer=scorer, report=report, console=console)
        drawn = _drawn(plan, inputs, sampling, plan.model.identity(place))
        settings = {**drawn, **plan.kept, "tasks": screened.contents, "evaluation": contents}
        if already_made(plan.output, settings):
            console.print(f"{plan.output}: already made, with these settings")
            yield None
            return
        with (
            open_sample_log(plan.output.with_suffix(".samples.jsonl"), drawn) as log,
            plan.model.open(place, inputs, sampling, beside=plan.output, say=console.print) as generator,
        ):
            yield Session(
                screened=screened,
                sampler=Sampler(generator, scorer, log, seed=plan.model.seed, keep_texts=plan.keep_texts),
                sampling=sampling,
                settings=settings,
                origin=Origin.now(plan.model.name, seed=plan.model.seed, temperature=plan.model.temperature),
                report=report,
                console=console,
            )


def _drawn(plan: CurationPlan, inputs: Inputs, sampling: SamplingConfig, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that samples depend on, besides the tasks."""
    return {
        "command": plan.command,
        **identity,
        "seed": plan.model.seed,
        "sampling": asdict(sampling),
        "prompt": asdict(inputs.data.prompt),
        "prompt_by_verifier": {name: asdict(prompt) for name, prompt in inputs.data.prompt_by_verifier.items()},
        "max_prompt_tokens": inputs.data.max_prompt_tokens,
        **plan.drawn,
    }
