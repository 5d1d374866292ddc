"""The workers of a pool as processes: started, given weights, proven to hold them, replaced, and retired."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from configs.errors import UserError
from configs.text import counted
from rollouts.engines.engine_spec import EngineSpec
from rollouts.resource_use import EngineUse, ProcessUse
from rollouts.shared_memory import probe_memory
from rollouts.weight_stream import Bucket, WeightStream
from rollouts.workers.actor import Address, RolloutActor, WorkerError
from rollouts.workers.card_share import cards_of_worker, worker_share
from rollouts.workers.error_texts import exit_of, last_error
from rollouts.workers.nodes import alive_nodes, reserve
from rollouts.workers.weight_sender import Sent, StoredWeights, send_weights

START_TRIES = 2
LOAD_DEATHS = 3  # rounds of one weight sync in which workers may die
USE_SECONDS = 5.0  # for a worker to report its use; one that is stuck is left out
START_SECONDS = 600.0  # for a worker to load its model
ROOM_SECONDS = 60.0  # for the cluster to notice that a node is lost, and to find room elsewhere


class StaleWorker(UserError):
    """A worker serves another version, or other weights, than those that were sent to it twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeats:
    """Where the workers of a pool begin."""

    nodes: Sequence[str]  # Ray's id of each worker's node
    share: float  # of a card that is a worker's; whole cards above 1


class WorkerGroup:
    """`count` actors with an engine each, all with the weights that were published last.

    Each worker has a placement group of its own: its room, which nobody else gets while its node lives. A worker whose
    node is lost is retired if no other node has room for it, and returns once there is room.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        workers: int,
        on_death: Callable[[int, str], None],
        seats: WorkerSeats | None = None,
    ) -> None:
        share = _gpu_share(workers, spec) if seats is None else seats.share
        self._spec, self._on_death = replace(spec, gpu_share=min(1.0, share or 1.0)), on_death
        self._needs = {"CPU": 1.0, **({"GPU": share} if share else {})}
        self.dtype = spec.dtype  # of the engines' weights
        self._weights: StoredWeights | None = None
        self._padding_stats: Counter[str] = Counter()  # what the workers computed up to the last publish
        self._full_until = 0.0  # no room was found lately: until then the next worker does not wait for it
        self._asleep, self._probe = False, probe_memory()
        self.count = workers
        self.addresses: dict[int, Address] = {}  # of the workers that have started
        alive = {node.id for node in alive_nodes()} if seats is not None else ()
        nodes = [None] * workers if seats is None else [node if node in alive else None for node in seats.nodes]
        self._rooms = {slot: reserve([self._needs], [node]) for slot, node in enumerate(nodes)}
        self.actors: dict[int, Any] = {slot: self._new_actor(slot) for slot in range(workers)}  # without the retired

    @property
    def retired(self) -> int:
        """Workers that were lost and not replaced."""
        return self.count - len(self.actors)

    def publish(self, weights: WeightStream, *, version: int) -> None:
        """Store the buckets, one after the other, and have every worker load and confirm them.

        They stay there, in place of the version before, for workers that are replaced later.
        """
        self._wake()
        self.start(list(self.actors))
        shared = self._share(self.actors)
        before, stored = self._weights, StoredWeights(version=version, shapes=weights.shapes)

        def storing() -> Iterator[Bucket]:
            self._weights = stored  # from the first bucket on: until then the version before is whole
            yield from stored.fill(weights, before, shared=shared)

        self._confirm(self._send(list(self.actors), stored, storing()))

    def load(self, slots: Sequence[int]) -> None:
        """Send the published weights to workers, once more to those that do not confirm them, and to fresh ones.

        Raises StaleWorker, and WorkerError where no worker is left or one after the other dies of the weights.
        """
        self.start(slots)
        if self._weights is not None:
            self._confirm(self._send(slots, self._weights, self._weights.again(shared=self._share(slots))))

    def start(self, slots: Sequence[int]) -> None:
        """Wait until the workers have built their engines. Raises WorkerError where one cannot, or none is left."""
        assert not self._asleep, "engines that sleep have no weights: publish wakes them"
        for slot in slots:
            tries = START_TRIES
            while slot in self.actors and slot not in self.addresses:
                try:
                    self.addresses[slot] = ray.get(self.actors[slot].hello.remote(self._probe), timeout=START_SECONDS)
                except GetTimeoutError as error:
                    raise WorkerError(self._no_room(slot)) from error
                except RayError as error:
                    tries -= 1
                    if not tries:
                        why = last_error(error).rstrip(".")
                        raise WorkerError(
                            f"worker {slot} cannot start: {why}. If that is memory, lower rl.workers"
                        ) from error
                    self.fresh(slot)
                    self._on_death(slot, f"while starting: {last_error(error)}")
        if not self.actors:
            raise WorkerError(
                f"no rollout worker is left of {self.count}: their nodes are lost, and no other has room for one, "
                f"which takes {self._needed()}; free in the cluster: {free_resources()}. The newest checkpoint is "
                "intact. Add a node, then the same command continues the run"
            )

    def sleep(self) -> None:
        """Let the engines free their memory. Whatever needs them wakes them by `publish` first."""
        if not self._asleep:
            self.start(list(self.actors))
            for future in [actor.sleep.remote() for actor in self.actors.values()]:
                with contextlib.suppress(RayActorError):  # `_wake` replaces a worker that died
                    ray.get(future, timeout=START_SECONDS)
            self._asleep = True

    def _wake(self) -> None:
        """Wake the engines, whose weights are then undefined."""
        if not self._asleep:
            return
        self._asleep = False
        for slot, future in {slot: actor.wake.remote() for slot, actor in self.actors.items()}.items():
            try:
                ray.get(future, timeout=START_SECONDS)
            except (RayActorError, GetTimeoutError) as error:
                self.fresh(slot)
                self._on_death(slot, exit_of(error) or f"did not wake within {START_SECONDS:.0f} s")

    def fresh(self, slot: int) -> bool:
        """Begin a new worker in place of one, whatever its state; `start` or `load` waits for it.

        False where no node has room for it within `ROOM_SECONDS`: the worker is retired.
        """
        self._end(slot)
        self._rooms[slot] = reserve([self._needs], [None])
        if not self._rooms[slot].wait(max(1.0, ROOM_SECONDS if time.monotonic() > self._full_until else 0.0)):
            self._full_until = time.monotonic() + ROOM_SECONDS
            return False
        self.actors[slot] = self._new_actor(slot)
        return True

    def bring_back(self) -> list[int]:
        """Begin the retired workers for which there is room by now; `start` or `load` waits for them."""
        back = [slot for slot, room in self._rooms.items() if slot not in self.actors and room.wait(0)]
        self.actors.update({slot: self._new_actor(slot) for slot in back})
        return back

    def fate(self, slot: int) -> str:
        """What has become of a worker that failed, in words."""
        if slot in self.actors:
            return "a fresh one takes its place"
        return (
            f"no node has room for a fresh one, which takes {self._needed()} (free in the cluster: "
            f"{free_resources()}), so it is retired: the run goes on with {len(self.actors)} of "
            f"{counted(self.count, 'worker')}, "
            "and takes it back once there is room"
        )

    def padded_share(self) -> float:
        """Share of the positions computed up to the last publish, prompts and completions, that held no token."""
        return self._padding_stats["padded"] / max(1, self._padding_stats["computed"])

    @property
    def gpus(self) -> float:
        """GPUs that Ray reserves for all workers together."""
        return self._needs.get("GPU", 0.0) * len(self.actors)

    def take_use(self) -> list[tuple[EngineUse, ProcessUse]]:
        """What each running worker did since the last call; those that do not reply at once are left out."""
        futures = [self.actors[slot].take_use.remote() for slot in self.addresses if slot in self.actors]
        found = []
        for future in ray.wait(futures, num_returns=len(futures), timeout=USE_SECONDS)[0] if futures else []:
            with contextlib.suppress(RayError):
                found.append(ray.get(future))
        return found

    def weight_checksums(self) -> list[dict[str, int]]:
        """The checksum of every tensor that each worker serves now."""
        return [dict(found) for found in ray.get([actor.weight_checksums.remote() for actor in self.actors.values()])]

    def close(self) -> None:
        """End the actors, and give their room back."""
        for slot in list(self._rooms):
            self._end(slot)

    def _end(self, slot: int) -> None:
        if slot in self.actors:
            with contextlib.suppress(RayError):
                ray.kill(self.actors.pop(slot))
        self.addresses.pop(slot, None)
        remove_placement_group(self._rooms.pop(slot))

    def _new_actor(self, slot: int) -> Any:
        room = PlacementGroupSchedulingStrategy(self._rooms[slot], placement_group_bundle_index=0)
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._needs.get("GPU", 0.0), "max_restarts": 0}
        return RolloutActor.options(  # pyright: ignore[reportAttributeAccessIssue]
            **options, scheduling_strategy=room
        ).remote(self._spec)

    def _send(self, slots: Sequence[int], weights: StoredWeights, buckets: Iterable[Bucket]) -> Sent:
        """Send a stream. Workers that are lost on the way are replaced."""
        return send_weights(
            {slot: self.actors[slot] for slot in slots if slot in self.actors},
            weights.shapes,
            buckets,
            version=weights.version,
            on_lost=self._replace_lost,
            padding_stats=self._padding_stats,
        )

    def _share(self, slots: Iterable[int]) -> bool:
        """Whether these workers can all map memory of this process."""
        return all(self.addresses[slot].shares for slot in slots if slot in self.actors)

    def _confirm(self, sent: Sent) -> None:
        """Send the stored weights once more to workers that did not confirm them, and to those that are fresh.

        Raises StaleWorker, and WorkerError where no worker is left or one after the other dies of the weights.
        """
        assert self._weights is not None
        refused = deaths = 0
        while sent.wrong or sent.lost:
            published = f"published version {self._weights.version}"
            refused, deaths = refused + bool(sent.wrong), deaths + bool(sent.lost)
            if refused == 2:
                raise StaleWorker(f"{published} twice, but {'; '.join(sent.wrong.values())}")
            if deaths > LOAD_DEATHS:
                raise WorkerError(
                    f"{published}, and worker {sent.lost[0]} died of it {counted(deaths, 'time')} in a row"
                )
            left = [*sent.wrong, *sent.lost]
            self.start(left)
            sent = self._send(left, self._weights, self._weights.again(shared=self._share(left)))

    def _replace_lost(self, slot: int, text: str) -> None:
        self.fresh(slot)
        self._on_death(slot, exit_of(text) or text)

    def _no_room(self, slot: int) -> str:
        return (
            f"worker {slot} has not started within {START_SECONDS:.0f} s. It needs {self._needed()}; free in the "
            f"cluster: {free_resources()}. Lower rl.workers, add nodes, or wait for the other jobs"
        )

    def _needed(self) -> str:
        return f"{self._needs['CPU']:g} CPU and {self._needs.get('GPU', 0.0):g} GPU"


def free_resources() -> str:
    """What the nodes have together that nobody uses. Example: `2 CPU and 1 GPU`."""
    free = ray.available_resources()
    return f"{free.get('CPU', 0.0):g} CPU and {free.get('GPU', 0.0):g} GPU"


def _gpu_share(workers: int, spec: EngineSpec) -> float:
    """GPUs of one worker, where the caller has not planned them."""
    cards = cards_of_worker(spec.engine, spec.options)
    return worker_share(ray.cluster_resources().get("GPU", 0.0), workers, cards=cards)
