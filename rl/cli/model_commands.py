"""Arguments and help of the commands that use a model: `eval`, `chat`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rl.cli.terminal import Allow, Overrides, console, stoppable

# Torch, Ray and transformers are imported inside the commands: help and mistakes in a recipe show at once.


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run's folder, a model's folder, or a hub id.")
    ],
    overrides: Overrides = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Its held-out tasks, rewards and limits are used; by default the run's own.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(help="At most so many held-out tasks.")] = None,
    samples: Annotated[int | None, typer.Option(help="Sampled answers to each task, beside the greedy one.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for the figures; by default `eval.json` in the run's folder.")
    ] = None,
    thinking_budget: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Also the accuracy with thinking closed after N tokens, for each N."),
    ] = None,
    allow: Allow = None,
) -> None:
    """Measure: greedy and sampled accuracy, share of thinking answers and length on held-out tasks.

    The same tasks, engine and verifiers as in the run, in this process. A model that belongs to no run needs a recipe.

    Examples: `thinkvl eval runs/quickstart --tasks 100` and
    `thinkvl eval moonshotai/Kimi-VL-A3B-Thinking-2506 --recipe my.yaml evaluation.max_new_tokens=4096`
    """
    changes = list(overrides or ())
    changes += [f"evaluation.tasks={tasks}"] if tasks is not None else []
    changes += [f"evaluation.samples={samples}"] if samples is not None else []
    with stoppable("nothing was written"):
        from rl.cli.evaluate import evaluate_command, parse_budgets

        budgets = parse_budgets(thinking_budget)
        evaluate_command(
            model,
            recipe=recipe,
            overrides=changes,
            output=output,
            console=console,
            budgets=budgets,
            allowed=allow or (),
        )


def chat(
    model: Annotated[str, typer.Argument(help="An exported folder, a run's folder, or a hub id.")],
    image: Annotated[list[Path] | None, typer.Option(help="A picture; repeat it for several.")] = None,
    question: Annotated[str | None, typer.Option(help="Left out, questions are read from the terminal.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token, 1 samples.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Thinking and answer together; by default 4096, or what fits the model.")
    ] = None,
) -> None:
    """Ask: pictures and a question in, the thinking (dimmed) and then the answer out, as the tokens come.

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
    `hf auth login`), is private unless `--public` is given, and goes on where it broke off when called again.

    Example: `thinkvl export runs/quickstart --push my-team/thinking-kimi`
    """
    with stoppable("the same command goes on"):
        from rl.cli.export import export_command

        export_command(run, output=output, push=push, public=public, licence=licence, console=console)
