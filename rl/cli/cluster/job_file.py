"""`thinkvl submit --write FILE`: writes the file that starts the run elsewhere, in place of sending a job to Ray.

The name of the file says what it is for: `job.sbatch` for Slurm, `job.yaml` for Kubernetes with KubeRay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.files import write_text
from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted
from rl.cli.cluster.kuberay import kuberay_job
from rl.cli.cluster.slurm import slurm_script
from rl.plan.hardware import GPUS, Cluster
from rl.plan.placement import place
from rl.run.console import PlainConsole

_LARGEST_NODE = 8  # GPUs, where the command line names no number


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFileOptions:
    """The options of `thinkvl submit --write`."""

    nodes: int | None = None  # default: as many as the recipe needs
    gpus_per_node: int | None = None  # default: as many as the recipe needs, at most 8
    image: str | None = None  # of the containers; KubeRay only
    volume: str | None = None  # `CLAIM` or `CLAIM:/path`, the storage that every node sees; KubeRay only
    env: tuple[str, ...] = ()  # `NAME=VALUE`


def check_options(write: Path | None, options: JobFileOptions, sent: Mapping[str, object]) -> None:
    """Refuse options that would have no effect: those of `--write` without it, and those of a sent job with it."""
    if write is not None:
        for name, value in sent.items():
            if value:
                raise UserError(f"{name} has no effect with --write, which sends nothing; leave it out")
        return
    for name in ("nodes", "gpus_per_node", "image", "volume"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} has an effect only with --write FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The machines of a job, all alike."""

    count: int
    gpus: int  # on each; 0 for a run without GPUs


def write_job_file(
    file: Path, recipe: Path, overrides: Sequence[str], options: JobFileOptions, *, console: PlainConsole
) -> None:
    """Check the recipe and write `file`. Raises ConfigError or UserError before anything is written."""
    config = load_recipe(recipe, overrides)
    nodes, environment = nodes_of(config, options), _environment(options, file)
    if file.suffix in (".sbatch", ".sh", ".slurm"):
        _check_slurm(options)
        text = slurm_script(config, recipe, overrides, nodes.count, nodes.gpus, environment)
        start = f"sbatch {file}"
    elif file.suffix in (".yaml", ".yml"):
        image, volume = _kuberay_options(options)
        text = kuberay_job(
            config, recipe, overrides, nodes.count, nodes.gpus, image=image, volume=volume, env=environment
        )
        start = f"kubectl apply -f {file}"
    else:
        raise UserError(f"--write {file}: name the file *.sbatch for Slurm, or *.yaml for Kubernetes with KubeRay")
    if file.resolve() == recipe.resolve():
        raise UserError(f"--write {file}: this is the recipe itself; name another file")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    gpus = f" of {nodes.gpus} GPU{'s' * (nodes.gpus > 1)}" if nodes.gpus else " without GPUs"
    console.print(f"wrote {file}: {nodes.count} node{'s' * (nodes.count > 1)}{gpus}; start it with: {start}")


def nodes_of(config: RunConfig, options: JobFileOptions) -> Nodes:
    """The machines that the options name; numbers left out follow from the recipe. Raises UserError if too few."""
    for name, value, least in (("--nodes", options.nodes, 1), ("--gpus-per-node", options.gpus_per_node, 0)):
        if value is not None and value < least:
            raise UserError(f"{name} {value}: must be {least} or more")
    if options.gpus_per_node == 0:
        return Nodes(count=options.nodes or 1, gpus=0)
    many = Cluster(gpu=GPUS["h100"], gpus=_LARGEST_NODE, nodes=1024)  # the number of cards is the same for every kind
    needed = place(config, many).cards
    gpus = options.gpus_per_node if options.gpus_per_node is not None else min(_LARGEST_NODE, needed)
    count = options.nodes or -(-needed // gpus)
    if count * gpus < needed:
        raise UserError(
            f"the recipe needs {counted(needed, 'GPU')}, and {count} x {gpus} are {count * gpus}. Raise --nodes to "
            f"{-(-needed // gpus)}, or lower rl.workers or rl.ranks.count"
        )
    return Nodes(count=count, gpus=gpus)


def _environment(options: JobFileOptions, file: Path) -> list[tuple[str, str]]:
    """The variables of `--env`. Values of this machine are never written: they may be secrets."""
    for item in options.env:
        if "=" not in item:
            raise UserError(
                f"--env {item}: its value would be written into {file}; write --env {item}=VALUE, or leave it"
            )
    return [(name, value) for name, _, value in (item.partition("=") for item in options.env)]


def _check_slurm(options: JobFileOptions) -> None:
    for name, value in (("--image", options.image), ("--volume", options.volume)):
        if value is not None:
            raise UserError(f"{name} {value}: is for Kubernetes (--write job.yaml); Slurm runs in this environment")


def _kuberay_options(options: JobFileOptions) -> tuple[str, str]:
    if options.image is None:
        raise UserError("--image is missing: the container image with ThinkVL, built from docker/ (docs/cluster.md)")
    if options.volume is None:
        raise UserError(
            "--volume is missing: the PersistentVolumeClaim where checkpoints and results are kept, mounted on every "
            "node at /shared, or at PATH by --volume CLAIM:PATH"
        )
    return options.image, options.volume
