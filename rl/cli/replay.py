"""`thinkvl replay`: repeats a skipped optimizer step on the CPU and shows where its gradient comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import AutoConfig

from configs.errors import UserError
from configs.load import load_recipe
from rl.checkpoint import restore_random_state
from rl.learner.diagnosis import (
    Share,
    first_not_finite,
    gradient_norm,
    not_finite_inputs,
    not_finite_weights,
    parameter_shares,
    sample_shares,
)
from rl.learner.learner import Learner
from rl.learner.lora import prepare_training
from rl.learner.parallel import SingleProcess
from rl.learner.skipped_updates import SkippedUpdate, SkippedUpdates
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress
from rl.types import StepBatch
from rollouts.model_family import VisionLanguageConfig, family_of

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The result of a repeated update: its loss and gradient norm, and the tensors that explain them."""

    skipped: SkippedUpdate
    loss: float
    norm: float
    inputs: list[str]
    weights: list[str]
    first: list[str]
    parameters: list[Share]
    samples: list[Share]

    @property
    def same(self) -> bool:
        """Whether loss and gradient norm equal those of the run bit for bit (nan equals nan)."""
        pairs = ((self.loss, self.skipped.loss), (self.norm, self.skipped.norm))
        return all(a == b or (a != a and b != b) for a, b in pairs)


def replay_command(name: str, step: int, *, console: PlainConsole) -> list[Replayed]:
    """Repeat every update that the run `name` skipped in `step`, and print where each went wrong.

    Raises UserError where there is no such run or step.
    """
    run = Path(name).expanduser()
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{name}: no run is there (no recipe.yaml); name the folder of a run, its output_dir")
    folders = [run / stage.name / "skipped" for stage in load_recipe(run / "recipe.yaml").rl_stages]
    kept = next((kept for kept in map(SkippedUpdates, reversed(folders)) if kept.steps()), None)
    if kept is None:
        looked = ", ".join(map(str, folders)) or name
        raise UserError(f"{name}: no skipped step is kept in {looked}: this run has skipped none")
    steps = kept.steps()
    if step not in steps:
        raise UserError(f"{name}: step {step} was not skipped, or is no longer kept; there is {_listed(steps)}")
    results = []
    for skipped in kept.load(step):
        result = _replay(skipped, run, console)
        _print(result, console)
        results.append(result)
    return results


def restored_learner(skipped: SkippedUpdate, run: Path) -> Learner:
    """The learner in its state before the step, on the CPU."""
    config = cast(VisionLanguageConfig, AutoConfig.for_model(**skipped.model_config))
    model = family_of(config).new_model(config)
    prepare_training(model, load_recipe(run / "recipe.yaml").model, base=str(run))
    model.load_state_dict(skipped.weights, assign=True)  # each tensor in the type that it had
    parallel = SingleProcess(threads=skipped.micro_batch_threads)
    learner = Learner(model, skipped.config, barred_ids=skipped.barred_ids, parallel=parallel)
    if learner.critic is not None and skipped.critic is not None:
        learner.critic.load_state_dict(skipped.critic)
    return learner


def _replay(skipped: SkippedUpdate, run: Path, console: PlainConsole) -> Replayed:
    torch.set_num_threads(skipped.threads)  # sums are cut by it
    learner = restored_learner(skipped, run)
    restore_random_state(skipped.random)
    batch = StepBatch(samples=skipped.samples, first=skipped.update == 1)
    values = learner.accumulate(batch)
    norm = gradient_norm(learner.model)
    parameters = parameter_shares(learner.model)
    with StageProgress(console, "samples", total=len(skipped.samples)) as bar:
        samples = sample_shares(learner, batch, skipped.samples, lambda: bar.advance({}))
    return Replayed(
        skipped=skipped,
        loss=values["loss"],
        norm=norm,
        inputs=not_finite_inputs(skipped.samples),
        weights=not_finite_weights(learner.model),
        first=first_not_finite(learner, batch),
        parameters=parameters,
        samples=samples,
    )


def _print(result: Replayed, console: PlainConsole) -> None:
    def say(text: str) -> None:
        console.print(text)

    old = result.skipped
    say(f"step {old.step}, update {old.update}: skipped, its gradient was {old.reason}")
    say(f"  samples    {len(old.samples)}")
    say(f"  loss       {old.loss:.9g} in the run, {result.loss:.9g} now")
    say(f"  grad norm  {old.norm:.9g} in the run, {result.norm:.9g} now (the limit was {old.limit:.3g})")
    say("  reproduced bit for bit" if result.same else "  not the same: another processor, number type or version")
    beyond = [] if math.isfinite(result.norm) or result.first else ["no number; their norm alone is beyond float32"]
    for title, lines in (
        ("not finite in the batch", result.inputs),
        ("weights that are not finite", result.weights),
        ("first not finite", result.first or beyond),
    ):
        if lines:
            say(f"{title}:")
            for line in lines[:_SHOWN]:
                say(f"  {line}")
    for title, shares in (("parameters", result.parameters), ("samples", result.samples)):
        say(f"{title} with the largest gradient:")
        for share in shares[:_SHOWN]:
            say(f"  {share.norm:10.4g}  {share.name}")


def _listed(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else "one of " + ", ".join(map(str, steps))
