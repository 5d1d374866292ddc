"""The planner's map on real raylets with fake GPUs: two nodes of eight."""

import time

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from configs.errors import UserError
from configs.load import load_recipe
from rl.distributed import rank_room
from rl.distributed.rank_room import in_order, reserve_ranks
from rl.run.seats import run_seats
from rollouts.workers.nodes import alive_nodes, reserve

pytestmark = pytest.mark.timeout(600)  # raylets: minutes on a busy machine
NODE = {"num_cpus": 16, "object_store_memory": 80_000_000}
RECIPE = """
name: placed
output_dir: runs/placed
stages:
  - {kind: rl, steps: 1, workers: WORKERS, ranks: {count: RANKS}}
"""


@pytest.fixture(scope="module")
def two_nodes(no_ray):
    """A head without GPUs, and two nodes with eight."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    for _ in range(2):
        cluster.add_node(**NODE, num_gpus=8)
    yield [node.id for node in alive_nodes() if node.gpus]
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def rooms(two_nodes):
    """Placement groups that a test made, given back at its end."""
    made = []
    yield made
    for room in made:
        ray.util.remove_placement_group(room)
    deadline = time.monotonic() + 60
    while sum(node.gpus for node in alive_nodes()) < 16 and time.monotonic() < deadline:
        time.sleep(0.1)  # Ray removes them in the background


def nodes_of(room):
    found = placement_group_table(room)["bundles_to_node_id"]
    return [found[i] for i in sorted(found)]


def config(tmp_path, workers, ranks):
    path = tmp_path / "placed.yaml"
    path.write_text(RECIPE.replace("WORKERS", str(workers)).replace("RANKS", str(ranks)))
    return load_recipe(path, [])


@pytest.mark.parametrize(("workers", "ranks", "rank_nodes"), [(6, 8, [0] * 8), (4, 12, [0] * 8 + [1] * 4)])
def test_ranks_are_not_split_by_the_workers_before_them(two_nodes, rooms, tmp_path, workers, ranks, rank_nodes):
    """Six workers used to take the first cards, and eight ranks were split 2 + 6."""
    said = []
    seats, nodes = run_seats(config(tmp_path, workers, ranks), said.append)
    assert len(said) == 3
    assert f"ranks 0-{min(ranks, 8) - 1}" in "".join(said)
    for node in seats.nodes:
        rooms.append(reserve([{"CPU": 1, "GPU": seats.share}], [node]))
        assert rooms[-1].wait(30)
        assert nodes_of(rooms[-1]) == [node]
    rooms.append(reserve_ranks(ranks, nodes))
    assert nodes_of(rooms[-1]) == [two_nodes[at] for at in rank_nodes]
    assert ray.available_resources().get("GPU", 0) == 16 - workers - ranks


def test_ranks_whose_nodes_are_gone_go_elsewhere(two_nodes, rooms, monkeypatch):
    monkeypatch.setattr(rank_room, "ROOM_SECONDS", 1.0)
    rooms.append(reserve_ranks(8, ["f" * 56] * 8))
    assert len(set(nodes_of(rooms[0]))) == 1, "packed on a node"


def test_a_run_that_does_not_fit_says_so_before_anything_starts(two_nodes, tmp_path):
    with pytest.raises(UserError, match=r"9 rollout workers and 8 learner ranks .*\(.*8, .*8.*\).*rl.workers=8$"):
        run_seats(config(tmp_path, 9, 8), print)


def test_ranks_are_in_the_order_of_nodes_and_cards():
    seats = [("b", (3,)), ("b", (0,)), ("a", (1,)), ("b", (10,)), ("a", (0,))]
    assert in_order(["b3", "b0", "a1", "b10", "a0"], seats) == ["b0", "b3", "b10", "a0", "a1"]
