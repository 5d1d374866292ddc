"""The planner's map: which process is on which node, and what is said where they do not fit."""

import pytest

from configs.errors import UserError
from rl.plan.hardware import GPUS, Cluster
from rl.plan.placement import Placement, seat


@pytest.mark.parametrize(
    ("cards", "ranks", "workers", "rank_nodes", "worker_nodes"),
    [
        ((8, 8), 8, 8, (0,) * 8, (1,) * 8),
        ((8, 8), 8, 6, (0,) * 8, (1,) * 6),
        ((8, 8), 6, 10, (0,) * 6, (0,) * 2 + (1,) * 8),
        ((6, 8), 8, 6, (1,) * 8, (0,) * 6),  # the first node that holds all ranks
        ((8, 8), 12, 4, (0,) * 8 + (1,) * 4, (1,) * 4),
        ((8, 8), 1, 7, (), (0,) * 7),
        ((0, 8), 4, 4, (1,) * 4, (1,) * 4),  # a head without cards
        ((1,), 1, 1, (), (0,)),
        ((2,), 1, 3, (), (0,) * 3),
    ],
)
def test_ranks_are_packed_and_workers_take_what_is_left(cards, ranks, workers, rank_nodes, worker_nodes):
    found = seat(cards, ranks=ranks, workers=workers)
    assert (found.ranks, found.workers) == (rank_nodes, worker_nodes)


@pytest.mark.parametrize(
    ("cards", "ranks", "workers", "rank_nodes", "worker_nodes"),
    [
        ((8, 8), 8, 4, (0,) * 8, (1,) * 4),
        ((8, 8), 4, 6, (0,) * 4, (0,) * 2 + (1,) * 4),
        ((7, 7), 8, 2, (0,) * 7 + (1,), (1,) * 2),  # 7 cards hold three pairs, and no pair lies on two nodes
        ((3, 4), 1, 3, (), (0,) + (1,) * 2),  # one card is left to the driver
    ],
)
def test_an_engine_that_is_split_has_its_cards_on_one_node(cards, ranks, workers, rank_nodes, worker_nodes):
    found = seat(cards, ranks=ranks, workers=workers, each=2)
    assert (found.ranks, found.workers, found.share) == (rank_nodes, worker_nodes, 2.0)


@pytest.mark.parametrize(
    ("cards", "ranks", "workers", "each", "said"),
    [
        ((8,), 4, 4, 2, r"need a GPU each, a worker 2 of one node \(rl.engine_options\), .*: rl.workers=2$"),
        ((4,), 1, 1, 4, "smallest change: more GPUs, or a smaller tensor_parallel_size$"),  # the driver trains
        ((7, 7), 1, 2, 8, "smallest change: more GPUs, or a smaller tensor_parallel_size$"),
    ],
)
def test_split_engines_that_do_not_fit_say_so(cards, ranks, workers, each, said):
    with pytest.raises(UserError, match=said):
        seat(cards, ranks=ranks, workers=workers, each=each)


def test_a_card_of_the_driver_is_not_free_and_not_lacking():
    """`--gpus 1`: Ray counts eight cards, and one is the job's own."""
    found = seat((7,), ranks=1, workers=7, total=8)
    assert (found.workers, found.share) == ((0,) * 7, 1.0)


@pytest.mark.parametrize(
    ("cards", "ranks", "workers", "said"),
    [
        (
            (8,),
            4,
            6,
            r"6 rollout workers and 4 learner ranks do not fit: .* 8 on 1 node \(8\).*rl.workers=4$",
        ),
        ((8, 8), 16, 1, "smallest change: ranks.count=15 in each stage$"),
        ((2,), 4, 2, "smallest change: ranks.count=1 in each stage$"),
        ((4,), 1, 5, r"5 rollout workers do not fit: .*rl.workers=4$"),
        ((), 1, 1, "smallest change: more GPUs"),
    ],
)
def test_what_does_not_fit_says_what_is_needed_what_is_there_and_what_would(cards, ranks, workers, said):
    with pytest.raises(UserError, match=said):
        seat(cards, ranks=ranks, workers=workers)


def test_the_map_in_words():
    found = seat((8, 8, 8), ranks=8, workers=1)
    assert found.lines(["a", "b", "c"]) == ["a: ranks 0-7", "b: worker 0", "c: nothing"]


def test_a_plan_prints_the_map_of_the_run():
    cluster = Cluster(gpu=GPUS["h100"], gpus=8, nodes=2)
    placement = Placement(workers=10, ranks=6, worker_share=1.0, workers_beside=0, cluster=cluster)
    assert placement.map == ["node 0: ranks 0-5, workers 0-1", "node 1: workers 2-9"]
    short = Placement(workers=17, ranks=6, worker_share=1.0, workers_beside=0, cluster=cluster)
    assert (short.map, short.missing) == ([], 7)
    split = Placement(workers=4, ranks=8, worker_share=2.0, workers_beside=0, cluster=cluster)
    assert (split.cards, split.map) == (16, ["node 0: ranks 0-7", "node 1: workers 0-3"])
