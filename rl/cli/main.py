"""The command `thinkvl`: arguments, help, and what a mistake looks like. The work is in `rl.pipeline` and `rl.cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from configs.load import load_recipe
from configs.rewards import RewardConfig
from rl.cli.errors import check_ray_address, explain

# Torch, Ray and transformers are imported inside the commands: help and mistakes in a recipe show at once.

app = typer.Typer(
    name="thinkvl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
_REWARD = RewardConfig()  # its defaults

_Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Code that a data file or a run folder names and that you trust, such as `checks.py:f`; repeatable.",
    ),
]

_Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe, such as `rl.steps=20`, `rl=null` or `model.dtype=bfloat16`."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"thinkvl {version('thinkvl')}")
        raise typer.Exit


@app.callback()
def thinkvl(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Turn a vision-language model into one that thinks: supervised warm-up, RL with verifiers, export.

    Begin with `thinkvl run configs/recipes/quickstart.yaml`: minutes on a laptop. Then talk to the result with
    `thinkvl chat`, measure it with `thinkvl eval`, publish it with `thinkvl export`.
    """


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: _Overrides = None,
) -> None:
    """Train: run every stage of a recipe (instruct SFT, long-CoT SFT, RL), evaluate after each, export.

    A run that was stopped, by whatever, continues with the same command. The folder `output_dir` of the recipe gets
    the models, `summary.json`, the curves and examples. RAY_ADDRESS=HOST:PORT uses a Ray cluster.

    Example: `thinkvl run configs/recipes/quickstart.yaml rl.steps=20 output_dir=runs/short`
    """
    config = load_recipe(recipe, overrides or ())
    check_ray_address()
    with _stoppable("the same command continues the run"):
        from rl.pipeline import run as run_recipe

        run_recipe(config, base=Path.cwd(), console=console)


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run's folder, a model's folder, or a hub id.")
    ],
    overrides: _Overrides = None,
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
    allow: _Allow = None,
) -> None:
    """Measure: greedy and sampled accuracy, share of thinking answers and length on held-out tasks.

    The same tasks, engine and verifiers as in the run, in this process. A model that belongs to no run needs a recipe.

    Examples: `thinkvl eval runs/quickstart --tasks 100` and
    `thinkvl eval moonshotai/Kimi-VL-A3B-Thinking-2506 --recipe my.yaml evaluation.max_new_tokens=4096`
    """
    changes = list(overrides or ())
    changes += [f"evaluation.tasks={tasks}"] if tasks is not None else []
    changes += [f"evaluation.samples={samples}"] if samples is not None else []
    with _stoppable("nothing was written"):
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


@app.command()
def rescore(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart.")],
    rewards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="A term of the reward, as in `rl.rewards`: `verifier`, `format=0.2`, `file.py:function`. Repeat it, "
            "or separate terms by commas; by default the run's own, with the verifiers of today.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Parquet file for the new score of every rollout.")] = None,
    allow: _Allow = None,
) -> None:
    """Try another reward: score all rollouts of a run again, without generating, and show old against new.

    Example: `thinkvl rescore runs/quickstart --rewards verifier --rewards my_rewards.py:brevity=0.1`
    """
    with _stoppable("nothing was written"):
        from rl.cli.rescore import rescore_command

        rescore_command(run, rewards=rewards or (), output=output, console=console, allowed=allow or ())


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart.")],
    step: Annotated[int, typer.Argument(min=1, help="A step in which an update was skipped.")],
) -> None:
    """Look into a skipped update: repeat it on the CPU, and say which numbers, samples and weights it comes from.

    A run keeps the last steps whose gradient was not finite or a spike, in `rl/skipped/`. Exit code 0 if loss and
    gradient norm are those of the run, 1 if not.

    Example: `thinkvl replay runs/quickstart 12`
    """
    with _stoppable("nothing was written"):
        from rl.cli.replay import replay_command

        raise typer.Exit(int(not all(r.same for r in replay_command(run, step, console=console))))


@app.command()
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
    with _stoppable("the same command goes on"):
        from rl.cli.export import export_command

        export_command(run, output=output, push=push, public=public, licence=licence, console=console)


@app.command()
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
    with _stoppable(None):
        from rl.cli.chat import ChatOptions, chat_command

        options = ChatOptions(temperature=temperature, max_new_tokens=max_new_tokens)
        chat_command(model, images=image or (), question=question, options=options, console=console)


@app.command(name="check-reward")
def check_reward(
    reward: Annotated[str, typer.Argument(help="As in a recipe: `file.py:function`, `trl:file.py:function`, a name.")],
    env: Annotated[list[str] | None, typer.Option(help="A variable that it gets; repeatable.")] = None,
    imports: Annotated[list[str] | None, typer.Option(help="A module to import before; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of one call.")] = _REWARD.seconds,
    memory_mb: Annotated[int, typer.Option(min=64, help="Limit of its process.")] = _REWARD.memory_mb,
) -> None:
    """Test a reward of your own: load it as a run does, and call it on ordinary and on hostile responses.

    Exit code 0 if it can be used, 1 if a check failed.

    Example: `thinkvl check-reward brevity.py:brevity`
    """
    with _stoppable(None):
        from rl.cli.check_reward import check_reward_command

        config = RewardConfig(
            use=reward, env=tuple(env or ()), imports=tuple(imports or ()), seconds=seconds, memory_mb=memory_mb
        )
        raise typer.Exit(check_reward_command(reward, config, console=console))


@app.command()
def audit(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A .jsonl or .parquet file, digit_sums, easy_vqa, a hub name, or a recipe.",
        ),
    ],
    overrides: _Overrides = None,
    split: Annotated[str | None, typer.Option(help="Such as held_out or train[:10%]; by default train.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Tasks of each source, evenly spread; by default all, 1000 where endless."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="FINDING", help="A kind of finding that is known; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report; by default audits/NAME.")] = None,
    allow: _Allow = None,
) -> None:
    """Check data and verifiers before a GPU is used: a page, JSON, and the exit code of a linter.

    Every reference must pass its own verifier, also in harmless rewritings; answers that cheat (empty, hedged, all
    letters, the reference of another row, the question copied, very long) must earn nothing; duplicates, leaks into
    held-out tasks, ambiguous options and broken images are listed. Exit code 0: clean; 1: findings; 2: could not run.

    Examples: `thinkvl audit easy_vqa --limit 1000` and `thinkvl audit my.yaml --ignore duplicate`
    """
    with _could_not_run(), _stoppable("no report was written"):
        from rl.cli.audit import AuditOptions, audit_command

        options = AuditOptions(
            split=split, limit=limit, ignore=tuple(ignore or ()), output=output, allowed=tuple(allow or ())
        )
        code = audit_command(data, overrides=overrides or (), options=options, console=console)
    raise typer.Exit(code)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="A .jsonl file: `response` (or `responses`) and `answer` on each line.")],
    verifier: Annotated[str, typer.Option(help="For rows that name none and have no choices.")] = "math",
    rewards: Annotated[
        list[str] | None,
        typer.Option(metavar="TERM[=WEIGHT]", help="A reward term to add, such as `format=0.1`; repeatable."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Its reward terms and its judge are used.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="A column of another name; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="By default FILE.verdicts.jsonl beside the file.")] = None,
    allow: _Allow = None,
) -> None:
    """Score responses from anywhere: verdicts as JSON lines, accuracy by source, how the verdicts fell.

    A line that cannot be used is told by its number and counted. Exit code 0: every response was judged; 1: some lines
    or references were bad, or a verifier failed; 2: could not run.

    Example: `thinkvl score answers.jsonl --rewards format=0.1 --rewards brevity.py:brevity=0.05`
    """
    with _could_not_run(), _stoppable("no verdicts were written"):
        from rl.cli.score import ScoreOptions, score_command

        options = ScoreOptions(
            verifier=verifier,
            rewards=tuple(rewards or ()),
            recipe=recipe,
            columns=tuple(column or ()),
            output=output,
            allowed=tuple(allow or ()),
        )
        code = score_command(file, options=options, console=console)
    raise typer.Exit(code)


@app.command()
def submit(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: _Overrides = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The dashboard of the cluster's head node.")
    ] = "http://127.0.0.1:8265",
    wait: Annotated[bool, typer.Option(help="Follow the job until it ends.")] = True,
    working_dir: Annotated[
        Path | None, typer.Option(help="Send this whole folder, not only the files that the recipe names.")
    ] = None,
    pip: Annotated[list[str] | None, typer.Option(help="A requirement to install for the job; repeatable.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="A variable to send, such as `HF_TOKEN` or `NAME=VALUE`; repeatable.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of the learner; each rollout worker takes one more.")] = 0,
) -> None:
    """Train on a cluster: the same run as a job of Ray, with its log here; exit code 0 if it succeeds.

    The recipe and the plug-ins and data files that it names by relative path are sent along. Ctrl-C ends the log, not
    the job. `output_dir` is a folder on the cluster that every node sees.

    Example: `thinkvl submit my.yaml --address http://HEAD:8265 output_dir=/shared/runs/mine`
    """
    with _stoppable("nothing was submitted"):
        from rl.cli.submit import JobOptions
        from rl.cli.submit import submit as submit_job

        options = JobOptions(working_dir=working_dir, pip=tuple(pip or ()), env=tuple(env or ()), gpus=gpus, wait=wait)
        submit_job(recipe, overrides or (), address, options, console=console)


def main() -> None:
    """Entry point: a user's mistake is one clear text and exit code 1; usage is 2, Ctrl-C 130; the rest a traceback."""
    # Before torch is imported: threads that wait by spinning take the cores from Ray's workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        _end(Text.assemble(("error", "bold red"), ": ", text), 1)


@contextmanager
def _stoppable(then: str | None) -> Iterator[None]:
    """Ctrl-C ends the command with exit code 130, and says what has become of the work."""
    try:
        yield
    except KeyboardInterrupt:
        _end(Text("stopped" if then is None else f"stopped; {then}"), 130)


@contextmanager
def _could_not_run() -> Iterator[None]:
    """A user's mistake ends the command with exit code 2, as linters do: 1 says that there are findings."""
    try:
        yield
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        _end(Text.assemble(("error", "bold red"), ": ", text), 2)


def _end(text: Text, code: int) -> NoReturn:
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
