"""Room for the learner's ranks in the cluster, and their order in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from configs.errors import UserError
from rollouts.workers.nodes import reserve

START_SECONDS = 600.0  # until every rank has its CPU and GPU
ROOM_SECONDS = 30.0  # until ranks that were ended have given theirs back, and until lost nodes are noticed


def reserve_ranks(ranks: int, nodes: Sequence[str] = ()) -> PlacementGroup:
    """Room for the ranks, once Ray has it: a CPU each and, where there are any, a GPU, since NCCL needs one a rank.

    `nodes` are Ray's ids of the nodes to use; where these are lost or full, the ranks go on as few others as possible.
    Raises UserError if too few GPUs are free, or after START_SECONDS.
    """
    bundle = {"CPU": 1.0, **({"GPU": 1.0} if ray.cluster_resources().get("GPU") else {})}
    if nodes:
        room = reserve([bundle] * ranks, nodes[:ranks])
        if room.wait(ROOM_SECONDS):
            return room
        remove_placement_group(room)
    room = reserve([bundle] * ranks, [None] * ranks)
    if room.wait(ROOM_SECONDS):
        return room
    total, free = (source().get("GPU", 0.0) for source in (ray.cluster_resources, ray.available_resources))
    scarce = "GPU" in bundle and free < ranks
    if not scarce and room.wait(START_SECONDS - ROOM_SECONDS):
        return room
    remove_placement_group(room)
    if scarce:
        raise UserError(
            f"rl.ranks.count = {ranks}: each rank takes a GPU of its own, and {free:g} of {total:g} are free of "
            f"rollout workers. Lower rl.ranks.count or rl.workers, so that together they are at most {total:g}"
        )
    raise UserError(
        f"{ranks} learner ranks found no room within {START_SECONDS:.0f} s; each takes 1 CPU and "
        f"{bundle.get('GPU', 0.0):g} GPU. Lower rl.ranks.count or rl.workers, or add nodes"
    )


def in_order(actors: Sequence[Any], seats: Sequence[tuple[str, tuple[int, ...]]]) -> list[Any]:
    """Actors by node, in the order in which nodes first occur, and on a node by GPU: neighbours are neighbour ranks."""
    nodes = list(dict.fromkeys(node for node, _ in seats))
    places = sorted(range(len(actors)), key=lambda i: (nodes.index(seats[i][0]), seats[i][1], i))
    return [actors[i] for i in places]
