"""Which process is on which card, as a run places them: rollout workers first, then the learner's ranks."""

from __future__ import annotations

from dataclasses import dataclass

from configs.rl import RLConfig
from configs.schema import RunConfig
from rl.plan.hardware import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Rollout workers and ranks on the cards of a cluster."""

    workers: int
    ranks: int  # the most of any stage
    worker_share: float  # of a card that is a worker's
    workers_beside: int  # workers on the card of a single learner process
    cluster: Cluster

    @property
    def cards(self) -> int:
        """Cards that the run needs."""
        return self.workers + self.ranks if self.ranks > 1 else 1

    @property
    def workers_on_node(self) -> int:
        """The most workers of one node."""
        return min(self.workers, self.cluster.gpus if self.worker_share == 1 else self.workers)

    @property
    def missing(self) -> int:
        """Cards that the run needs and the cluster has not."""
        return max(0, self.cards - self.cluster.total)


def place(config: RunConfig, cluster: Cluster) -> Placement:
    """Follow `rollouts.workers.worker_group` and `rl.distributed.learner_group`.

    A worker has a card of its own if there are more cards than workers, else all workers and the learner share the
    cards equally. Each of several ranks has a card of its own; a single process shares the last card.
    """
    stage = rollout_stage(config)
    ranks = max((stage.ranks.count for stage in config.trained_stages), default=1)
    share = 1.0 if cluster.total > stage.workers else cluster.total / (stage.workers + 1)
    beside = 0 if share == 1.0 else min(stage.workers, int(1 / share))
    return Placement(workers=stage.workers, ranks=ranks, worker_share=share, workers_beside=beside, cluster=cluster)


def rollout_stage(config: RunConfig) -> RLConfig:
    """The stage whose workers the run starts; without RL one worker generates for the evaluations."""
    return config.last_rl or RLConfig(steps=1, workers=1)
