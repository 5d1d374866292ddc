"""Where the processes of a run begin: the planner's map on Ray's nodes."""

from __future__ import annotations

from collections.abc import Callable

import ray

from configs.schema import RunConfig
from rl.plan.placement import process_counts, seat, worker_cards
from rollouts.workers.nodes import alive_nodes
from rollouts.workers.worker_group import WorkerSeats


def run_seats(config: RunConfig, say: Callable[[str], None]) -> tuple[WorkerSeats | None, tuple[str, ...]]:
    """The seats of the rollout workers, and Ray's id of each rank's node. `say` gets a line for each node.

    None, and no nodes, on a cluster without GPUs, where Ray chooses. Raises UserError where the processes do not fit.
    """
    total = ray.cluster_resources().get("GPU", 0.0)
    if not total:
        return None, ()
    nodes, (workers, ranks) = alive_nodes(), process_counts(config)
    seats = seat([node.gpus for node in nodes], ranks=ranks, workers=workers, total=total, each=worker_cards(config))
    for line in seats.lines([f"node {node.name}" for node in nodes]):
        say(line)
    return (
        WorkerSeats(nodes=[nodes[at].id for at in seats.workers], share=seats.share),
        tuple(nodes[at].id for at in seats.ranks),
    )
