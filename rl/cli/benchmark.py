"""`thinkvl eval MODEL --benchmark NAME`: evaluates a model on public benchmarks, by each one's prompts and rules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from rich.table import Table

from configs.errors import UserError
from configs.prompt import PromptConfig
from configs.rl import SamplingConfig
from configs.version import VERSION
from rewards.scorer import Scorer
from rl.cli.open_model import ModelPlace, find_model
from rl.run.benchmarks.answerers import Answerer, ServerAnswerer, ServerFailed
from rl.run.benchmarks.exports import export
from rl.run.benchmarks.results import read_results, table
from rl.run.benchmarks.run import run_benchmark
from rl.run.console import PlainConsole
from rl.run.model_prompt import read_prompt
from rl.run.progress import StageProgress
from rollouts.tasks.benchmarks.loading import BenchmarkTasks, Chosen, choose

_ENDS = 1 << 16  # bytes of each end of a weights file that name it


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """The options of a benchmark evaluation."""

    limit: int | None = None  # of rows
    frames: int = 32  # of a video
    max_new_tokens: int = 4096
    max_prompt_tokens: int = 32768
    temperature: float = 0.0
    seed: int = 0
    engine: str | None = None  # `file.py:Class`, or a key of `ENGINES`; None: the embedded one
    engine_options: tuple[str, ...] = ()  # `name=value`
    server: str | None = None  # the URL of a server with chat completions, in place of an engine
    key_env: str | None = None  # the variable that holds the server's key
    connections: int = 8
    vlmevalkit_data: Path | None = None  # VLMEvalKit's own TSV, whose `index` its evaluation needs


def benchmark_command(
    name: str, specs: Sequence[str], *, output: Path | None, options: BenchmarkOptions, console: PlainConsole
) -> list[dict[str, Any]]:
    """Evaluate the model on each benchmark; write predictions, figures, exports and one table; return the figures.

    Without `output` they go to `benchmarks` in the run's folder, and for another model to `benchmarks/MODEL` in the
    current folder. Raises UserError for a mistake of the user.
    """
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--tasks {options.limit}: must be 1 or more")
    chosen = [choose(spec) for spec in specs]
    if twice := [c.name for at, c in enumerate(chosen) if c.name in [other.name for other in chosen[:at]]]:
        raise UserError(f"--benchmark {twice[0]}: given twice; a second split or copy needs another --output")
    sampling = _sampling(options)
    place = None if options.server else find_model(name)
    folder = output or _folder(name, place)
    all_tasks = [BenchmarkTasks(one, frames=options.frames, limit=options.limit) for one in chosen]
    with closing(_answerer(name, place, sampling, options)) as answerer, Scorer(()) as scorer:
        for tasks in all_tasks:
            settings = _settings(name, place, tasks, sampling, options)
            _run_one(tasks, answerer, scorer, folder, settings, options, console)
    results = read_results(folder)
    (folder / "results.md").write_text(table(results) + "\n", encoding="utf-8")
    console.print(f"predictions, figures and results.md in {folder}")
    return results


def _run_one(
    tasks: BenchmarkTasks,
    answerer: Answerer,
    scorer: Scorer,
    folder: Path,
    settings: dict[str, Any],
    options: BenchmarkOptions,
    console: PlainConsole,
) -> None:
    name = tasks.chosen.name
    with StageProgress(console, name, total=len(tasks)) as bar:

        def show(done: int, correct: int) -> None:
            bar.advance({"right": correct / done})

        try:
            result, predictions = run_benchmark(
                tasks, answerer, scorer, folder=folder, settings=settings, seed=options.seed, on_answer=show
            )
        except ServerFailed as error:
            raise UserError(
                f"{options.server}: several requests in a row failed: {error}. What is answered is in {folder}; the "
                "same command continues"
            ) from error
    for line in tasks.report.lines():
        console.print(line)
    paths = export(
        folder / "exports", tasks.chosen, predictions, model=settings["model"], reference=options.vlmevalkit_data
    )
    shown = Table("figure", "value", title=f"{result['title']}, {result['metric']}")
    shown.add_row("value", f"{100 * result['accuracy']:.1f}")
    interval = result["interval"]
    shown.add_row("95 % interval", f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}")
    shown.add_row("questions answered", f"{result['answered']} of {result['rows']}")
    for reason, count in result["left_out"].items():
        shown.add_row(f"left out: {reason}", str(count))
    for key in ("no_answer_share", "thinking_share", "truncated_share", "mean_tokens"):
        shown.add_row(key.replace("_", " "), f"{result[key]:.2f}")
    console.print(shown)
    for path in paths:
        console.print(f"for scoring elsewhere: {path}")


def _folder(name: str, place: ModelPlace | None) -> Path:
    if place is not None and place.run is not None:
        return place.run / "benchmarks"
    return Path("benchmarks") / "".join(c if c.isalnum() or c in "-._" else "_" for c in name.strip("/."))


def _sampling(options: BenchmarkOptions) -> SamplingConfig:
    try:
        return SamplingConfig(temperature=options.temperature, max_new_tokens=options.max_new_tokens)
    except ValueError as error:
        raise UserError(f"--{error}") from error


def _answerer(name: str, place: ModelPlace | None, sampling: SamplingConfig, options: BenchmarkOptions) -> Answerer:
    if place is None:
        return _server(name, sampling, options)
    from rl.cli.benchmark_engine import open_engine  # torch and transformers, which a server does not need

    return open_engine(
        place,
        options.engine or "transformers",
        options.engine_options,
        sampling=sampling,
        seed=options.seed,
        max_prompt_tokens=options.max_prompt_tokens,
    )


def _server(name: str, sampling: SamplingConfig, options: BenchmarkOptions) -> ServerAnswerer:
    key = os.environ.get(options.key_env) if options.key_env else None
    if options.key_env and not key:
        raise UserError(f"--key-env {options.key_env}: this environment variable is empty or not set")
    try:
        return ServerAnswerer(
            str(options.server),
            name,
            key=key,
            sampling=sampling,
            seed=options.seed,
            prompt=PromptConfig(),
            connections=options.connections,
            seconds=3600.0,
        )
    except ValueError as error:
        raise UserError(f"--server: {error}") from error


def _settings(
    name: str, place: ModelPlace | None, tasks: BenchmarkTasks, sampling: SamplingConfig, options: BenchmarkOptions
) -> dict[str, Any]:
    """The settings that predictions depend on; a file made with other settings is not continued."""
    chosen: Chosen = tasks.chosen
    return {
        "benchmark": chosen.name,
        "split": chosen.split,
        "data": chosen.benchmark.hub if chosen.path is None else str(chosen.path),
        "model": name,
        "stage": place.stage if place else None,
        "weights": None if place is None else _weights(Path(place.path)),
        "server": options.server,
        "engine": None if options.server else options.engine or "transformers",
        "system": None if place is None else read_prompt(place.path, place.run).system,
        "sampling": asdict(sampling),
        "max_prompt_tokens": options.max_prompt_tokens,
        "frames": options.frames,
        "seed": options.seed,
        "thinkvl": VERSION,
    }


def _weights(folder: Path) -> str | None:
    """A hash of the sizes and both ends of the weight files in a folder, which training changes; None for a hub id."""
    if not folder.is_dir():
        return None
    digest = xxhash.xxh3_128()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as opened:
            digest.update(f"{file.name} {size}".encode() + opened.read(_ENDS))
            opened.seek(max(0, size - _ENDS))
            digest.update(opened.read(_ENDS))
    return digest.hexdigest()
