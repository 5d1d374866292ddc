"""The nodes of Ray's cluster, and reservations on them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import state
from ray.util.placement_group import PlacementGroup, placement_group

_NODE = "ray.io/node-id"  # a label that Ray gives every node


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A node that is alive."""

    id: str
    name: str
    gpus: float  # that nobody has reserved


def alive_nodes() -> list[ClusterNode]:
    """The nodes in the order of their addresses, which is the order of learner ranks."""
    free: Mapping[str, Mapping[str, float]] = state.available_resources_per_node()
    found = [node for node in ray.nodes() if node["Alive"]]
    return [
        ClusterNode(id=node["NodeID"], name=node["NodeName"], gpus=free.get(node["NodeID"], {}).get("GPU", 0.0))
        for node in sorted(found, key=_address)
    ]


def reserve(bundles: Sequence[Mapping[str, float]], nodes: Sequence[str | None]) -> PlacementGroup:
    """Ask Ray for bundles of resources, each on the node with this id; None: where there is room, on few nodes."""
    labels = [{_NODE: node} if node is not None else {} for node in nodes]
    where: dict[str, Any] = {"bundle_label_selector": labels} if any(labels) else {}
    return placement_group([dict(bundle) for bundle in bundles], **where)


def _address(node: Mapping[str, Any]) -> tuple[int, str]:
    """The address as a number, since 10.0.0.9 comes before 10.0.0.10; several nodes of a test share one."""
    return int(ipaddress.ip_address(node["NodeManagerAddress"])), node["NodeID"]
