"""`thinkvl plan`: steps, memory, time and data of a recipe before any device is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted
from rl.plan import hardware
from rl.plan.changes import smallest_change
from rl.plan.data_check import DataFinding, check_data
from rl.plan.hardware import Cluster, gpu_named
from rl.plan.placement import place
from rl.plan.plan import Device, Plan, make_plan
from rl.run.console import PlainConsole

_PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the command line may say."""

    gpu: str = "h100"
    gpus: int | None = None  # of each node; None: as many as the recipe needs, up to eight
    nodes: int | None = None  # None: as many as the recipe needs
    answer: int | None = None  # mean tokens of an answer
    data: bool = True
    as_json: bool = False


def plan_command(recipe: Path, overrides: Sequence[str], options: PlanOptions, console: PlainConsole) -> int:
    """Print the plan. The exit code: 0 where everything fits and no source has a problem, else 1.

    Raises ConfigError or UserError where nothing can be planned.
    """
    config = load_recipe(recipe, overrides)
    cluster = cluster_of(config, options)

    def planned(changed: RunConfig) -> Plan:
        return make_plan(changed, cluster, answer=options.answer)

    plan = planned(config)
    change = smallest_change(config, cluster, planned) if plan.problems else None
    findings = check_data(config, base=Path.cwd()) if options.data else []
    if options.as_json:
        print(json.dumps(as_json(plan, change[0] if change else None, findings), indent=1))
    else:
        show(plan, change[0] if change else None, findings, console)
    return int(bool(plan.problems) or any(finding.problem for finding in findings))


def cluster_of(config: RunConfig, options: PlanOptions) -> Cluster:
    """The cards that the options name; those left out follow from the recipe. Raises UserError."""
    gpu = gpu_named(options.gpu)
    needed = place(config, Cluster(gpu=gpu, gpus=_PER_NODE, nodes=_PER_NODE)).cards
    gpus = options.gpus if options.gpus is not None else min(_PER_NODE, needed)
    nodes = options.nodes if options.nodes is not None else -(-needed // max(1, gpus))
    return Cluster(gpu=gpu, gpus=gpus, nodes=nodes)


def as_json(plan: Plan, change: Sequence[str] | None, findings: Sequence[DataFinding]) -> dict[str, Any]:
    """Everything that is printed, with bytes and seconds as numbers."""
    placement, cluster = plan.placement, plan.placement.cluster
    return {
        "cluster": {"gpu": cluster.gpu.name, "gpus": cluster.gpus, "nodes": cluster.nodes},
        "map": placement.map,
        "parameters": plan.sizes.parameters,
        "trained": plan.sizes.trained,
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                **asdict(stage.counts),
                "assumed": asdict(stage.means),
                "seconds_per_step": asdict(stage.seconds),
                "hours": stage.hours,
                "learner": _device(stage.learner),
                "rollouts": _device(stage.rollouts) if stage.rollouts else None,
            }
            for stage in plan.stages
        ],
        "worker": _device(plan.worker) | {"cached_tokens": plan.cached, "context": plan.context}
        if placement.workers
        else None,
        "host": plan.host if placement.workers else {},
        "problems": plan.problems,
        "smallest_change": list(change) if change else None,
        "data": [asdict(finding) for finding in findings],
    }


def _device(device: Device) -> dict[str, Any]:
    return {"bytes": device.parts, "used": device.used, "capacity": device.capacity, "fits": device.fits}


def show(plan: Plan, change: Sequence[str] | None, findings: Sequence[DataFinding], console: PlainConsole) -> None:
    """Print the tables, then what does not fit and what would."""
    cluster, placement = plan.placement.cluster, plan.placement
    console.print(
        f"{plan.sizes.parameters:,} parameters on {cluster.nodes} x {cluster.gpus} "
        f"{cluster.gpu.name}: {counted(placement.workers, 'rollout worker')}, "
        f"{counted(placement.ranks, 'learner rank')}"
    )
    for line in placement.map:
        console.print(line)
    console.print(_stages(plan))
    console.print(_memory(plan))
    if placement.workers:
        _show_workers(plan, console)
    for rate in (hardware.FULL_TRAINING, hardware.LORA_TRAINING, hardware.DECODING, hardware.SYNC):
        console.print(f"  rate {rate.value:g}: {rate.source}")
    for problem in plan.problems:
        console.print(f"does not fit: {problem}")
    if plan.problems:
        what = " ".join(change) if change else "none was found; use more or larger cards"
        console.print(f"the smallest change that fits: {what}")
    for finding in findings:
        console.print(f"data: {finding.source}: {finding.text}")


def _show_workers(plan: Plan, console: PlainConsole) -> None:
    """Memory of the rollout workers, of cards that they share, and of a node during a weight sync."""
    console.print(f"a rollout worker: {_of_device(plan.worker)}")
    for stage in plan.stages:
        if stage.rollouts is not None:
            console.print(f"{stage.rollouts.name}, while the engines generate: {_of_device(stage.rollouts)}")
    longest = plan.cached // max(1, plan.context)
    console.print(
        f"KV cache of a worker: {counted(plan.cached, 'token')}, {longest:,} sequences of the "
        f"longest {counted(plan.context, 'token')}"
    )
    host = ", ".join(f"{name} {size / 1e9:.0f} GB" for name, size in plan.host.items() if size)
    console.print(f"main memory of a node during a weight sync: {host}")


def _stages(plan: Plan) -> Table:
    """One row a stage; seconds are those of a step."""
    columns = ("stage", "steps", "sequences", "updates", "tokens", "answer", "rollout", "update", "sync", "hours")
    table = _table(columns, title="work, tokens and seconds of a step, hours of a stage")
    for stage in plan.stages:
        seconds = stage.seconds
        table.add_row(
            stage.name,
            f"{stage.counts.steps:,}",
            f"{stage.counts.sequences:,}",
            f"{stage.counts.optimizer_steps:,}",
            f"{stage.counts.tokens:,.0f}",
            f"{stage.means.answer:,}",
            *(f"{value:.0f}" for value in (seconds.rollout, seconds.update, seconds.sync)),
            f"{stage.hours:.1f}",
        )
    return table


def _memory(plan: Plan) -> Table:
    """One row a stage, one column a part of its learner's card; gigabytes are powers of ten."""
    learners = [(stage.name, stage.learner) for stage in plan.stages]
    parts = list(dict.fromkeys(part for _, device in learners for part in device.parts))
    table = _table(("stage", *parts, "all", "of"), title="memory of a learner's card at its peak, GB")
    for name, device in learners:
        cells = (_gigabytes(device.parts[part]) if part in device.parts else "" for part in parts)
        table.add_row(name, *cells, _gigabytes(device.used), _gigabytes(device.capacity))
    return table


def _table(columns: Sequence[str], *, title: str) -> Table:
    """A table that fits 80 columns: lines under the head alone, numbers to the right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _of_device(device: Device) -> str:
    parts = ", ".join(f"{part} {_gigabytes(size)}" for part, size in device.parts.items())
    return f"{parts}: {_gigabytes(device.used)} of {_gigabytes(device.capacity)} GB"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"
