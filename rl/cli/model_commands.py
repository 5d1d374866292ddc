"""Arguments and help of the commands that use a model: `eval`, `chat`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from configs.errors import UserError
from rl.cli.terminal import Allow, Overrides, console, stoppable

# Torch, Ray and transformers are imported inside the commands: help and mistakes in a recipe show at once.


Recipe = Annotated[
    Path | None, typer.Option(help="Its held-out tasks, rewards and limits are used; by default the run's own.")
]
Budgets = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="Also measure accuracy with the thinking closed after N tokens, for each N."),
]
Tasks = Annotated[int | None, typer.Option(help="Maximum number of held-out tasks, or rows of a benchmark.")]
Samples = Annotated[int | None, typer.Option(help="Sampled completions per task, besides the greedy one.")]
Output = Annotated[
    Path | None,
    typer.Option(help="File for the figures, by default `eval.json` in the run; for benchmarks, a folder."),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[@SPLIT][=PATH]", help="A public benchmark, read from PATH or the hub; repeatable."),
]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Benchmarks: a server with OpenAI's chat API; MODEL is the model's name there."),
]
KeyEnv = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="Benchmarks: environment variable with the server's key.")
]
Connections = Annotated[int, typer.Option(min=1, help="Benchmarks: concurrent requests to the server.")]
EngineName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Benchmarks: `vllm`, or your own engine, `file.py:Class`.")
]
EngineOptions = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Benchmarks: option of your own engine; repeatable.")
]
NewTokens = Annotated[int, typer.Option(min=1, help="Benchmarks: token limit of thinking and answer together.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Benchmarks: sampling temperature; 0 is greedy.")]
Frames = Annotated[int, typer.Option(min=1, help="Benchmarks: maximum number of frames of a video.")]
KitData = Annotated[
    Path | None, typer.Option(help="Benchmarks: VLMEvalKit's own TSV of the data set, for the `index` in the export.")
]


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run's folder, a model's folder, or a hub id.")
    ],
    overrides: Overrides = None,
    recipe: Recipe = None,
    tasks: Tasks = None,
    samples: Samples = None,
    output: Output = None,
    thinking_budget: Budgets = None,
    allow: Allow = None,
    benchmark: Benchmarks = None,
    server: Server = None,
    key_env: KeyEnv = None,
    connections: Connections = 8,
    engine: EngineName = None,
    engine_option: EngineOptions = None,
    max_new_tokens: NewTokens = 4096,
    temperature: Temperature = 0.0,
    frames: Frames = 32,
    vlmevalkit_data: KitData = None,
) -> None:
    """Measure: greedy and sampled accuracy, share of thinking answers and length on held-out tasks; or benchmarks.

    The same tasks, engine and verifiers as in the run, in this process. A model that belongs to no run needs a recipe.
    With `--benchmark`, public benchmarks with their own prompts and answer rules; the same command continues where an
    evaluation was stopped.

    Examples: `thinkvl eval runs/quickstart --tasks 100` and
    `thinkvl eval moonshotai/Kimi-VL-A3B-Thinking-2506 --benchmark mathvista --benchmark mmmu=/data/MMMU`
    """
    if benchmark:
        own = {"server": server, "key_env": key_env, "connections": connections, "engine": engine, "limit": tasks}
        own |= {"engine_options": tuple(engine_option or ()), "max_new_tokens": max_new_tokens, "frames": frames}
        own |= {"temperature": temperature, "vlmevalkit_data": vlmevalkit_data}
        _benchmarks(model, benchmark, output, own, unused=[*(overrides or ()), *(["--recipe"] if recipe else [])])
        return
    changes = list(overrides or ())
    changes += [f"evaluation.tasks={tasks}"] if tasks is not None else []
    changes += [f"evaluation.samples={samples}"] if samples is not None else []
    _held_out(model, recipe, changes, output, thinking_budget, allow or [])


def _held_out(
    model: str, recipe: Path | None, changes: list[str], output: Path | None, budgets: str | None, allow: list[str]
) -> None:
    with stoppable("nothing was written"):
        from rl.cli.evaluate import evaluate_command, parse_budgets

        evaluate_command(
            model,
            recipe=recipe,
            overrides=changes,
            output=output,
            console=console,
            budgets=parse_budgets(budgets),
            allowed=allow,
        )


def _benchmarks(
    model: str, specs: list[str], output: Path | None, options: dict[str, Any], *, unused: list[str]
) -> None:
    with stoppable("the same command continues"):
        from rl.cli.benchmark import BenchmarkOptions, benchmark_command

        if unused:
            raise UserError(f"--benchmark: takes its own prompts and options, and no recipe: leave out {unused[0]}")
        benchmark_command(model, specs, output=output, options=BenchmarkOptions(**options), console=console)


def chat(
    model: Annotated[str, typer.Argument(help="An exported folder, a run's folder, or a hub id.")],
    image: Annotated[list[Path] | None, typer.Option(help="A picture; repeat it for several.")] = None,
    question: Annotated[str | None, typer.Option(help="Left out, questions are read from the terminal.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token, 1 samples.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Thinking and answer together; by default 4096, or what fits the model.")
    ] = None,
) -> None:
    """Chat: pictures and a question in, the thinking (dimmed) and then the answer out, as the tokens come.

    Without `--question`, every line is a question about the same pictures; Ctrl-D ends.

    Example: `thinkvl chat runs/quickstart/export --image sum.png --question 'What is the result?'`
    """
    with stoppable(None):
        from rl.cli.chat import ChatOptions, chat_command

        options = ChatOptions(temperature=temperature, max_new_tokens=max_new_tokens)
        chat_command(model, images=image or (), question=question, options=options, console=console)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default `export` in the run.")] = None,
    push: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Upload to this hub repository.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is for everyone, not private.")] = False,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Licence of the weights, such as apache-2.0 or mit.")
    ] = None,
) -> None:
    """Publish: write the model as a Hugging Face folder with code and model card; with `--push`, upload it.

    The folder opens with transformers alone (`trust_remote_code=True`). An upload needs a token (HF_TOKEN, or
    `hf auth login`), is private unless `--public` is given, and continues where it broke off when repeated.

    Example: `thinkvl export runs/quickstart --push my-team/thinking-kimi`
    """
    with stoppable("the same command continues"):
        from rl.cli.export import export_command

        export_command(run, output=output, push=push, public=public, licence=licence, console=console)
