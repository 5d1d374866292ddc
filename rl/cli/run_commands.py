"""Arguments and help of the commands that train, plan or inspect a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rl.cli.terminal import Allow, Overrides, console, could_not_run, stoppable

# Everything slow is imported inside the commands, torch and Ray last: help and mistakes in a recipe show at once.


def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: Overrides = None,
) -> None:
    """Train: run the stages of a recipe (SFT, RL) in their order, evaluate after each, export.

    A run that was stopped for any reason continues with the same command. The recipe's folder `output_dir` gets
    the models, `summary.json`, the curves and examples. RAY_ADDRESS=HOST:PORT uses a Ray cluster.

    Example: `thinkvl run configs/recipes/quickstart.yaml rl.steps=20 output_dir=runs/short`
    """
    with stoppable("the same command continues the run"):
        from configs.load import load_recipe
        from rl.cli.open_model import check_base_model
        from rl.cli.ray_address import check_ray_address

        config = load_recipe(recipe, overrides or ())
        check_ray_address()
        check_base_model(config.model.path)
        from rl.pipeline import run as run_recipe

        run_recipe(config, base=Path.cwd(), console=console)


def plan(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="The cards: `h100`, `h200` or `a100`.")] = "h100",
    gpus: Annotated[int | None, typer.Option(help="Cards of a node; by default what the recipe needs.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes; by default what the recipe needs.")] = None,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Mean length of an answer, for the time; by default at most 4096.")
    ] = None,
    data: Annotated[bool, typer.Option(help="Read the sources that are on this machine.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Plan a recipe in seconds, without a GPU: steps, memory of each card, time, and problems of its data.

    Where something does not fit, the smallest change of the recipe that would is named. Exit code 0: everything fits;
    1: something does not, or a source has a problem; 2: could not run.

    Example: `thinkvl plan my.yaml --gpu h100 --gpus 8`
    """
    with could_not_run(), stoppable(None):
        from rl.cli.plan import PlanOptions, plan_command

        options = PlanOptions(gpu=gpu, gpus=gpus, nodes=nodes, answer=answer_tokens, data=data, as_json=as_json)
        code = plan_command(recipe, overrides or (), options, console)
    raise typer.Exit(code)


def submit(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: Overrides = None,
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
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a file that starts the run on Slurm (*.sbatch) or KubeRay (*.yaml)."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="With --write: nodes; default: what the recipe needs.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="With --write: GPUs of a node; 0: none.")] = None,
    image: Annotated[str | None, typer.Option(help="With --write *.yaml: the container image.")] = None,
    volume: Annotated[
        str | None, typer.Option(metavar="CLAIM[:PATH]", help="With --write *.yaml: the volume that every node mounts.")
    ] = None,
) -> None:
    """Train on a cluster: the same run as a job of Ray, with its log here; exit code 0 if it succeeds.

    The recipe and the plug-ins and data files that it names by relative path are sent along. Ctrl-C ends the log, not
    the job. `output_dir` is a folder on the cluster that every node sees.

    Example: `thinkvl submit my.yaml --address http://HEAD:8265 output_dir=/shared/runs/mine`

    Example: `thinkvl submit my.yaml --write job.sbatch --nodes 4 --gpus-per-node 8`
    """
    with stoppable("nothing was submitted"):
        from rl.cli.cluster.job_file import JobFileOptions, check_options, write_job_file

        own = JobFileOptions(nodes=nodes, gpus_per_node=gpus_per_node, image=image, volume=volume, env=tuple(env or ()))
        sent = {"--no-wait": not wait, "--working-dir": working_dir, "--pip": pip, "--gpus": gpus}
        check_options(write, own, sent)
        if write is not None:
            write_job_file(write, recipe, overrides or (), own, console=console)
            return
        from rl.cli.submit import JobOptions
        from rl.cli.submit import submit as submit_job

        options = JobOptions(working_dir=working_dir, pip=tuple(pip or ()), env=tuple(env or ()), gpus=gpus, wait=wait)
        submit_job(recipe, overrides or (), address, options, console=console)


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
    allow: Allow = None,
) -> None:
    """Try another reward: score all rollouts of a run again, without generating, and show old against new.

    Example: `thinkvl rescore runs/quickstart --rewards verifier --rewards my_rewards.py:brevity=0.1`
    """
    with stoppable("nothing was written"):
        from rl.cli.rescore import rescore_command

        rescore_command(run, rewards=rewards or (), output=output, console=console, allowed=allow or ())


def book(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart.")],
    step: Annotated[
        list[int] | None,
        typer.Option(min=1, help="A step to show; repeatable. By default as many as fit."),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="A stage; by default the last that has rollouts.")] = None,
    task: Annotated[str | None, typer.Option(help="Only the rollouts of this task, of every step.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most rollouts that the book holds.")] = 10_000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; by default book-STAGE.html in the run's folder.")
    ] = None,
) -> None:
    """Show rollouts as one HTML file: image, question, samples side by side, coloured tokens, reasons of verdicts.

    The file opens in any browser, on a phone too, without a server or the network. A run that is still going can be
    looked at as well.

    Example: `thinkvl book runs/quickstart --step 60`
    """
    with stoppable("nothing was written"):
        from rl.cli.book import book_command
        from rl.pages.book import BookOptions

        options = BookOptions(steps=tuple(step or ()), task=task, limit=limit)
        book_command(run, stage=stage, output=output, options=options, console=console)


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, two or more.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path("compare.html"),
) -> None:
    """Compare runs: curves side by side, final figures with intervals, and where the recipes differ.

    Runs that differ in the seed only are one line with a band. Runs that are still going are shown as far as they are.

    Example: `thinkvl compare runs/a runs/b runs/c`
    """
    with stoppable("nothing was written"):
        from rl.cli.compare import compare_command

        compare_command(runs, output=output, console=console)


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart.")],
    step: Annotated[int, typer.Argument(min=1, help="A step in which an update was skipped.")],
) -> None:
    """Inspect a skipped update: repeat it on the CPU, and show which numbers, samples and weights it comes from.

    A run keeps the last steps whose gradient was not finite or a spike, in `rl/skipped/`. Exit code 0 if loss and
    gradient norm are those of the run, 1 if not.

    Example: `thinkvl replay runs/quickstart 12`
    """
    with stoppable("nothing was written"):
        from rl.cli.replay import replay_command

        raise typer.Exit(int(not all(r.same for r in replay_command(run, step, console=console))))
