"""`thinkvl eval`: evaluates a model on a recipe's held-out tasks, with the run's engine and scorer, in this process."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from configs.data import has_prompt
from configs.engine import is_own_engine
from configs.errors import UserError
from configs.load import load_recipe
from configs.prompt import PromptConfig
from configs.rl import SamplingConfig
from configs.schema import RunConfig
from rewards.extraction import THINK_CLOSE
from rewards.scorer import Scorer
from rl.cli.open_model import ModelPlace, find_model, open_model, open_processor
from rl.run.console import PlainConsole
from rl.run.evaluate import HELD_OUT_SEED, EvalResult, evaluate, evaluation_sampling
from rl.run.folder import write_json
from rl.run.model_prompt import read_prompt
from rl.run.progress import StageProgress
from rl.run.scoring import check_run_of_others, open_scorer, scoring_stage
from rl.run.thinking_budget import BudgetResult, evaluate_budgets
from rollouts.engines.driver import EngineDriver
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import VisionLanguageProcessor, family_at, family_of
from rollouts.sources.rollout_pipeline import Generate, RolloutPipeline
from rollouts.sources.verdict_watch import require_verdicts, try_rewards
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Prompt, Request

_BLOCK = 64  # requests between two steps of the progress bar
_PACKAGES = ("thinkvl", "torch", "transformers")


def evaluate_command(
    name: str,
    *,
    recipe: Path | None,
    overrides: Sequence[str],
    output: Path | None,
    console: PlainConsole,
    budgets: Sequence[int] = (),
    allowed: Sequence[str] = (),
) -> EvalResult:
    """Evaluate the model `name`, print a table, write the figures to `output` and return them.

    `budgets` are limits of thinking tokens; the greedy accuracy under each is measured too.
    `recipe` defaults to the run's own. `output` defaults to `eval.json` in the run's folder; for a model that
    belongs to no run, nothing is written. `allowed` names plug-ins and judges of a run's own recipe that may be used,
    and plug-ins that rows may name. Raises UserError or ConfigError for a mistake of the user.
    """
    place = find_model(name)
    config = load_recipe(recipe or _recipe_of(place), overrides)
    target = output or (place.run / "eval.json" if place.run else None)
    if recipe is None:
        chosen = any(re.match(r"(stages\.)?[\w-]+\.engine=", text) for text in overrides)
        given = [config.last_rl.engine] if config.last_rl and chosen else []
        check_run_of_others(config, (*allowed, *given), _recipe_of(place), generates=True)
    stage = next((stage for stage in config.stages if stage.name == place.stage), config.stages[-1])
    config = replace(config, data=config.data_of(stage))
    if recipe is not None and not has_prompt(config.data):
        config = _with_prompt_of(place, config, console)
    with open_scorer(scoring_stage(config, stage), config.data, base=Path.cwd(), allowed=allowed) as scorer:
        result, by_budget, left_out = _evaluate(place, config, scorer, console, budgets)
    _print_result(name, config, result, left_out, console)
    _print_budgets(result, by_budget, console)
    if target is not None:
        rows = {"thinking_budgets": [asdict(row) for row in by_budget]} if budgets else {}
        write_json(target, _report(place, config, result, left_out) | rows)
        console.print(f"figures in {target}")
    return result


def _with_prompt_of(place: ModelPlace, config: RunConfig, console: PlainConsole) -> RunConfig:
    """The recipe with the prompt that the model was trained with, from its run or export."""
    prompt = read_prompt(place.path, place.run)
    if prompt == PromptConfig():
        return config
    text = json.dumps(asdict(prompt), ensure_ascii=False)
    console.print(
        f"the recipe has no prompt, so that of {place.name}'s training is used: {text}",
    )
    return replace(config, data=replace(config.data, prompt=prompt))


def _recipe_of(place: ModelPlace) -> Path:
    if place.run is None:
        raise UserError(
            f"{place.name}: is a model without a recipe, and the recipe names the held-out tasks; give one with "
            "--recipe FILE, such as --recipe configs/recipes/quickstart.yaml"
        )
    return place.run / "recipe.yaml"


def _evaluate(
    place: ModelPlace, config: RunConfig, scorer: Scorer, console: PlainConsole, budgets: Sequence[int]
) -> tuple[EvalResult, list[BudgetResult], dict[str, dict[str, int]]]:
    """The figures, the figures of each budget, and the counts of rows and tasks left out by reason."""
    if not config.evaluation.tasks:
        raise UserError("evaluation.tasks = 0: must be 1 or more; give --tasks")
    mixture = TaskMixture(config.data.held_out, seed=HELD_OUT_SEED, base=Path.cwd())
    for line in mixture.report.lines():
        console.print(line)
    tasks = mixture.fixed(config.evaluation.tasks)
    scorer.check_tasks(tasks)
    for line in try_rewards(scorer, tasks, where="held-out tasks"):
        console.print(line)
    if config.threads:
        torch.set_num_threads(config.threads)
    processor, engine = _open_engine(place, config)
    renderer = PromptRenderer.from_config(processor, config.data)
    prompts, skipped = renderer.render_all(tasks)
    if not prompts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise UserError(f"{place.name}: none of the {len(tasks)} held-out tasks can be used: {reasons}")

    def decode(ids: np.ndarray) -> str:
        return processor.tokenizer.decode(ids, skip_special_tokens=True)

    pipeline = RolloutPipeline(renderer=renderer, generate=engine.generate, decode=decode, scorer=scorer)
    close_ids = processor.tokenizer.encode(THINK_CLOSE, add_special_tokens=False)
    with closing(engine):
        with StageProgress(console, "eval", total=_blocks(prompts) * 2) as bar:
            result, answers = evaluate(
                replace(pipeline, generate=_in_blocks(engine, bar)),
                prompts,
                sampling=_sampling(config),
                samples=config.evaluation.samples,
                seed=config.seed,
            )
        require_verdicts(answers, where="held-out tasks")
        by_budget = evaluate_budgets(
            pipeline, answers, budgets=budgets, close_ids=close_ids, sampling=_sampling(config)
        )
    return result, by_budget, {"rows": mixture.report.by_reason, "tasks": skipped}


def _open_engine(place: ModelPlace, config: RunConfig) -> tuple[VisionLanguageProcessor, EngineDriver]:
    """The model's processor and an engine: the recipe's if it is a user's own, else the embedded one."""
    if config.last_rl is None or not is_own_engine(config.last_rl.engine):
        model, processor = open_model(place, dtype=config.engine_dtype)  # a cast would round the routers' bias too
        stop, barred = family_of(model.config).stop_and_barred_ids(place.path, processor)
        torch.nn.Module.to(model, device="cuda" if torch.cuda.is_available() else "cpu")
        return processor, EngineDriver(TransformersEngine(model, stop_ids=stop, barred_ids=barred))
    engine = choose_engine(config.last_rl.engine, config.last_rl.engine_options, base=Path.cwd(), trains=False)
    processor = open_processor(place)
    stop, barred = family_at(place.path).stop_and_barred_ids(place.path, processor)
    spec = EngineSpec(
        model_path=place.path,
        dtype=config.engine_dtype,
        stop_ids=tuple(stop),
        barred_ids=tuple(barred),
        threads=torch.get_num_threads(),
        engine=engine,
    )
    return processor, spec.build()


def parse_budgets(text: str | None) -> list[int]:
    """Parse `16,32,64` into numbers. Raises UserError for anything else."""
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--thinking-budget {text}: must be whole numbers of tokens, 1 or more, such as 16,32,64")
    return [int(part) for part in parts]


def _sampling(config: RunConfig) -> SamplingConfig:
    """The sampling of the run's evaluations: RL's temperature and filters with the evaluation's token limit."""
    return evaluation_sampling(config.last_rl.sampling if config.last_rl else None, config.evaluation)


def _blocks(prompts: Sequence[Prompt]) -> int:
    return -(-len(prompts) // _BLOCK)


def _in_blocks(engine: EngineDriver, bar: StageProgress) -> Generate:
    """The engine's `generate`, called with blocks of requests, so that the bar advances between them."""

    def generate(requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        groups: list[list[Completion]] = []
        for start in range(0, len(requests), _BLOCK):
            groups += engine.generate(requests[start : start + _BLOCK], sampling)
            bar.advance({"tasks": len(groups)})
        return groups

    return generate


def _report(
    place: ModelPlace, config: RunConfig, result: EvalResult, left_out: dict[str, dict[str, int]]
) -> dict[str, object]:
    return {
        "model": place.name,
        "stage": place.stage,
        "recipe": config.name,
        "seed": config.seed,
        "samples": config.evaluation.samples,
        "sampling": asdict(_sampling(config)),
        **asdict(result),
        "left_out": left_out["tasks"],
        "rows_left_out": left_out["rows"],
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    }


def _print_result(
    name: str, config: RunConfig, result: EvalResult, left_out: dict[str, dict[str, int]], console: PlainConsole
) -> None:
    for reason, count in left_out["tasks"].items():
        console.print(f"{count} held-out tasks left out ({reason})")
    title = f"{name}: {result.tasks} held-out tasks of {config.name}"
    console.print(title)
    table = Table("figure", "value")
    rows = [
        ("greedy accuracy", f"{result.greedy_accuracy:.3f}"),
        (f"sampled accuracy ({config.evaluation.samples} a task)", f"{result.sampled_accuracy:.3f}"),
        ("answers that think", f"{result.thinking_share:.2f}"),
        ("tokens an answer", f"{result.mean_tokens:.1f}"),
        ("answers cut off", f"{result.truncated_share:.2f}"),
        ("verifier failures", str(result.verifier_failures)),
    ]
    if len(result.by_source) > 1:
        rows += [(f"greedy accuracy, {source}", f"{value:.3f}") for source, value in result.by_source.items()]
    rows += [(f"{key}, 95 % interval", str(estimate)) for key, estimate in result.intervals.items()]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in result.gaps():
        console.print(line)


def _print_budgets(result: EvalResult, rows: Sequence[BudgetResult], console: PlainConsole) -> None:
    if not rows:
        return
    table = Table("thinking budget", "greedy accuracy", "closed for the model", "tokens an answer")
    for row in rows:
        table.add_row(
            str(row.budget), f"{row.greedy_accuracy:.3f}", f"{row.forced_share:.2f}", f"{row.mean_tokens:.1f}"
        )
    table.add_row("none", f"{result.greedy_accuracy:.3f}", "0.00", f"{result.mean_tokens:.1f}")
    console.print(table)
