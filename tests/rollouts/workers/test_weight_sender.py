"""A stream of weights to workers that die, differ or lag behind; the workers are made up, and no Ray is started."""

from collections import Counter, deque

import pytest
import torch
from ray.exceptions import RayActorError

from rollouts.shared_memory import SharedMemory
from rollouts.weight_checksums import LoadedWeights
from rollouts.weight_stream import BucketPlace, WeightStream, fill_buckets
from rollouts.workers import weight_sender
from rollouts.workers.weight_sender import StoredWeights, Unpublished, send_weights


class Method:
    def __init__(self, call):
        self.remote = lambda *args: lambda: call(*args)


class Worker:
    """Holds what it has loaded; `dies_at` and `wrong_at` are numbers of buckets."""

    def __init__(self, *, dies_at=None, wrong_at=None, version=None):
        self.dies_at, self.wrong_at, self.served = dies_at, wrong_at, version
        self.loaded, self.calls = 0, []
        self.start_load, self.load_bucket, self.finish_load = Method(self._start), Method(self._load), Method(self._end)

    def _start(self, shapes):
        self.calls.append("start")

    def _load(self, tensors, data):
        self.loaded += 1
        if self.dies_at == self.loaded:
            raise RayActorError()
        shift = int(self.wrong_at == self.loaded)
        return {sent.name: sent.checksum + shift for sent in tensors}

    def _end(self, version):
        self.calls.append("finish")
        return LoadedWeights(version=version if self.served is None else self.served, padding_stats={"computed": 1})


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    monkeypatch.setattr(weight_sender.ray, "get", lambda call, timeout: call())
    monkeypatch.setattr(weight_sender.ray, "put", lambda data: data)


def buckets(count=6):
    return list(fill_buckets(((f"t{i}", torch.full((4,), float(i))) for i in range(count)), limit=16))


def send(workers, stream=None):
    lost, stats = {}, Counter()
    found = send_weights(
        dict(enumerate(workers)),
        {},
        buckets() if stream is None else stream,
        version=3,
        on_lost=lambda slot, text: lost.update({slot: text}),
        padding_stats=stats,
    )
    return found, lost, stats


def test_every_worker_confirms():
    workers = [Worker(), Worker()]
    found, lost, stats = send(workers)
    assert (found.wrong, found.lost, lost, stats) == ({}, [], {}, {"computed": 2})
    assert all(w.calls == ["start", "finish"] and w.loaded == 6 for w in workers)


def test_a_worker_that_dies_in_mid_stream_holds_up_no_other():
    workers = [Worker(dies_at=3), Worker()]
    found, lost, stats = send(workers)
    assert (found.wrong, found.lost) == ({}, [0])
    assert "actor died" in lost[0] or lost[0]
    assert (workers[0].loaded, workers[1].loaded, stats) == (3, 6, {"computed": 1})
    assert workers[0].calls == ["start"]


def test_a_worker_with_other_values_does_not_serve_them():
    workers = [Worker(wrong_at=5), Worker()]
    found, lost, _ = send(workers)
    assert (found.wrong, lost) == ({0: "worker 0 holds other values of t4"}, {})
    assert workers[0].calls == ["start"], "it makes no step until it is sent all again"
    assert send([Worker(version=2)])[0].wrong == {0: "worker 0 serves version 2"}


def test_the_learner_is_never_more_than_two_buckets_ahead():
    """`loaded` counts what the worker has confirmed by the time that the next bucket is asked for."""
    worker, ahead = Worker(), []

    def stream():
        for number, bucket in enumerate(buckets()):
            ahead.append(number - worker.loaded)
            yield bucket

    send([worker], stream())
    assert max(ahead) == weight_sender.IN_FLIGHT - 1


def test_the_store_holds_one_version():
    old, new = StoredWeights(version=1, shapes={}), StoredWeights(version=2, shapes={})
    list(old.fill(WeightStream(shapes={}, buckets=buckets(4)), None, shared=False))
    assert len(list(old.again(shared=False))) == 4
    sizes = [
        len(old.buckets) + len(new.buckets)
        for _ in new.fill(WeightStream(shapes={}, buckets=buckets(6)), old, shared=False)
    ]
    assert sizes == [4, 4, 4, 4, 5, 6]
    assert [s.name for bucket in new.again(shared=False) for s in bucket.tensors] == [f"t{i}" for i in range(6)]
    with pytest.raises(Unpublished, match="version 1 was not published to its end"):
        list(old.again(shared=False))


def test_a_stream_that_breaks_off_is_not_sent_again():
    def broken():
        yield buckets()[0]
        raise RuntimeError("a rank died")

    stored = StoredWeights(version=2, shapes={}, buckets=deque())
    with pytest.raises(RuntimeError, match="a rank died"):
        send([Worker()], stored.fill(WeightStream(shapes={}, buckets=broken()), None, shared=False))
    with pytest.raises(Unpublished, match="version 2"):
        list(stored.again(shared=False))


def stream(value, count=6, size=4):
    tensors = ((f"t{i}", torch.full((size,), value + i)) for i in range(count))
    place = BucketPlace()
    return WeightStream(shapes={}, buckets=fill_buckets(tensors, limit=16, place=place), place=place)


def test_the_next_version_is_written_where_the_version_before_was():
    old, new, longer = (StoredWeights(version=i, shapes={}) for i in (1, 2, 3))
    first = [bucket.data for bucket in old.fill(stream(10.0), None, shared=True)]
    assert all(isinstance(memory, SharedMemory) for memory in first)
    assert len({id(memory) for memory in first}) == 6
    found = list(new.fill(stream(20.0), old, shared=True))
    assert [bucket.data for bucket in found] == first
    assert [b.named()[f"t{i}"].tolist() for i, b in enumerate(found)] == [[20.0 + i] * 4 for i in range(6)]
    assert not old.buckets
    larger = [bucket.data for bucket in longer.fill(stream(30.0, size=40), new, shared=True)]
    assert not {id(memory) for memory in larger} & {id(memory) for memory in first}, "buckets of other sizes"
    assert not new.buckets


def test_buckets_in_shared_memory_go_through_the_store_where_a_worker_is_elsewhere():
    stored, after = StoredWeights(version=1, shapes={}), StoredWeights(version=2, shapes={})
    list(stored.fill(stream(10.0), None, shared=True))
    assert all(isinstance(bucket.data, SharedMemory) for bucket in stored.again(shared=True))
    away = list(stored.again(shared=False))
    assert all(isinstance(bucket.data, list) for bucket in away)
    assert [b.named()[f"t{i}"].tolist() for i, b in enumerate(away)] == [[10.0 + i] * 4 for i in range(6)]
    assert [type(bucket.data) for bucket in after.fill(stream(20.0), stored, shared=False)] == [list] * 6
    assert not stored.buckets
