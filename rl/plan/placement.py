"""Which process is on which node: the map that `thinkvl plan` prints and that a run reserves on Ray's nodes.

Learner ranks come first, packed on as few nodes as hold them, in node order with rank 0 first. Rollout workers take the
cards that are left, in node order. The driver needs no card; where it trains alone, it has one that no worker takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.text import counted
from rl.plan.hardware import Cluster
from rollouts.workers.card_share import cards_of_worker, worker_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """The node of each process, by its place in the list of nodes."""

    ranks: tuple[int, ...]  # none for a learner in the driver
    workers: tuple[int, ...]
    share: float  # of a card that is a worker's; whole cards above 1

    def lines(self, names: Sequence[str]) -> list[str]:
        """What each node has. Example: `node 0: ranks 0-7, workers 0-1`."""
        found = []
        for node, name in enumerate(names):
            parts = [
                f"{what}{'s' if len(own) > 1 else ''} {_span(own)}"
                for what, nodes in (("rank", self.ranks), ("worker", self.workers))
                if (own := [i for i, at in enumerate(nodes) if at == node])
            ]
            found.append(f"{name}: {', '.join(parts) or 'nothing'}")
        return found


def _span(numbers: Sequence[int]) -> str:
    """`0-7`; processes of one kind are numbered in node order."""
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def seat(cards: Sequence[float], *, ranks: int, workers: int, total: float | None = None, each: int = 1) -> Seats:
    """Seat the processes of a run on nodes with so many free cards each; `total` counts those in use by us too.

    A worker needs `each` cards of one node. Raises UserError where the processes do not fit: what is needed, what is
    there, and the smallest change.
    """
    found = _fit(cards, ranks, workers, total, each)
    if found is None:
        raise UserError(_too_few(cards, ranks, workers, total, each))
    return found


def _fit(cards: Sequence[float], ranks: int, workers: int, total: float | None, each: int) -> Seats | None:
    known = sum(cards) if total is None else total
    if each > 1 and known < workers * each + ranks:  # the driver, too, needs a card where it trains alone
        return None
    share = worker_share(known, workers, cards=each)
    free = [int(found) for found in cards]
    rank_nodes = _take(free, 1.0, ranks if ranks > 1 else 0, packed=True)
    worker_nodes = _take(free, share, workers, packed=False)
    if rank_nodes is None or worker_nodes is None:
        return None
    return Seats(ranks=rank_nodes, workers=worker_nodes, share=share)


def _take(free: list[int], share: float, count: int, *, packed: bool) -> tuple[int, ...] | None:
    """Nodes for `count` processes that take `share` of a card each, or whole cards, which are then no longer free.

    `packed`: on the first node that holds them all, if there is one. None where they do not fit.
    """
    each = max(1, round(share))  # cards of a process
    shared = int(1 / share + 1e-9) if 0 < share < 1 else 1  # processes of a card
    whole = [node for node, cards in enumerate(free) if cards // each * shared >= count]
    seats: list[int] = []
    for node in [whole[0]] if packed and whole else range(len(free)):
        took = min(count - len(seats), free[node] // each * shared)
        seats += [node] * took
        free[node] -= -(-took // shared) * each
    return tuple(seats) if len(seats) == count else None


def _too_few(cards: Sequence[float], ranks: int, workers: int, total: float | None, each: int) -> str:
    """The error of a run that does not fit."""
    needed = counted(workers, "rollout worker") + (f" and {counted(ranks, 'learner rank')}" if ranks > 1 else "")
    nodes = ", ".join(f"{found:g}" for found in cards)
    split = f", a worker {each} of one node (rl.engine_options)" if each > 1 else ""
    fewer = (
        (removed, workers - removed + kept, ranks - kept)  # rather a worker than a rank
        for removed in range(1, workers + ranks)
        for kept in range(removed + 1)
    )
    for _, less, rest in fewer:
        if less > 0 and rest > 0 and _fit(cards, rest, less, total, each) is not None:
            change = [f"rl.workers={less}"] * (less < workers) + [f"ranks.count={rest} in each stage"] * (rest < ranks)
            break
    else:
        change = ["more GPUs" + (", or a smaller tensor_parallel_size" if each > 1 else "")]
    return (
        f"{needed} do not fit: they need a GPU each{split}, and free are {sum(cards):g} on "
        f"{counted(len(cards), 'node')} "
        f"({nodes}). The smallest change: {' and '.join(change)}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Rollout workers and ranks on the cards of a cluster."""

    workers: int
    ranks: int  # the most of any stage
    worker_share: float  # of a card that is a worker's; whole cards above 1
    workers_beside: int  # workers on the card of a single learner process
    cluster: Cluster

    @property
    def split(self) -> int:
        """Cards that one engine is split over."""
        return max(1, round(self.worker_share))

    @property
    def cards(self) -> int:
        """Cards that the run needs."""
        return self.workers * self.split + self.ranks if self.ranks > 1 or self.split > 1 else 1

    @property
    def missing(self) -> int:
        """Cards that the run needs and the cluster has not."""
        return max(0, self.cards - self.cluster.total)

    @property
    def map(self) -> list[str]:
        """What each node has, as a run reserves it; empty where it does not fit."""
        if self.missing:
            return []
        nodes = range(self.cluster.nodes)
        seats = seat([self.cluster.gpus for _ in nodes], ranks=self.ranks, workers=self.workers, each=self.split)
        return seats.lines([f"node {node}" for node in nodes])


def place(config: RunConfig, cluster: Cluster) -> Placement:
    """The processes of a run on a cluster.

    A worker has a card of its own if there are more cards than workers, else all workers and the learner share the
    cards equally. Each of several ranks has a card of its own; a single process shares the last card.
    """
    workers, ranks = process_counts(config)
    share = worker_share(cluster.total, workers, cards=worker_cards(config))
    beside = 0 if share >= 1.0 else min(workers, int(1 / share))
    return Placement(workers=workers, ranks=ranks, worker_share=share, workers_beside=beside, cluster=cluster)


def process_counts(config: RunConfig) -> tuple[int, int]:
    """Rollout workers of a run, 0 where nothing generates, and the most ranks of any of its stages."""
    workers = rollout_stage(config).workers if any(map(config.generates, config.stages)) else 0
    return workers, max((stage.ranks.count for stage in config.trained_stages), default=1)


def worker_cards(config: RunConfig) -> int:
    """Cards that each worker of a run needs for itself."""
    stage = rollout_stage(config)
    return cards_of_worker(stage.engine, stage.engine_options)


def rollout_stage(config: RunConfig) -> RLConfig:
    """The stage whose workers the run starts; without RL one worker generates for the evaluations."""
    return config.last_rl or RLConfig(steps=1, workers=1)
