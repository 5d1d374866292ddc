"""Weights in buckets: every tensor once, in the type that is sent, without a copy where none is needed."""

import weakref

import numpy as np
import pytest
import torch
from engine_helpers import build_tiny_folder

from kimi_vl import load_model
from kimi_vl.family import hub_names
from rollouts.weight_checksums import checksums
from rollouts.weight_stream import LARGEST, SMALLEST, bucket_bytes, check_shapes, fill_buckets, stream_of


@pytest.fixture
def tensors(rng):
    shapes = {"a": (3, 5), "b": (), "c": (40, 10), "d": (2,), "e": (7, 2)}
    return {name: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}


def whole(buckets):
    return {name: tensor for bucket in buckets for name, tensor in bucket.named().items()}


@pytest.mark.parametrize("limit", [1, 64, 200, 1 << 20])
def test_every_tensor_comes_once_and_a_bucket_is_full(tensors, limit):
    buckets = list(fill_buckets(tensors.items(), limit=limit))
    assert [sent.name for bucket in buckets for sent in bucket.tensors] == list(tensors)
    for bucket in buckets[:-1]:
        *rest, _ = [data.nbytes for data in bucket.data]
        assert sum(rest) < limit <= sum(data.nbytes for data in bucket.data)
    found = whole(buckets)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert {s.name: s.checksum for bucket in buckets for s in bucket.tensors} == checksums(tensors)


def test_a_layer_stays_whole():
    names = ["model.embed.weight", "model.layers.0.a", "model.layers.0.mlp.3.b", "model.layers.1.a", "lm_head.weight"]
    buckets = fill_buckets(((name, torch.zeros(4)) for name in names), limit=1)
    sent = [[tensor.name for tensor in bucket.tensors] for bucket in buckets]
    assert sent == [names[:1], names[1:3], names[3:4], names[4:]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_any_type_arrives_with_its_bits(tensors, dtype):
    cast = {name: (10 * tensor).to(dtype) for name, tensor in tensors.items()}
    found = whole(stream_of(cast).buckets)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in cast.items())


def test_a_bucket_is_the_learners_own_memory(tensors):
    found = whole(fill_buckets(tensors.items(), limit=1 << 20))
    tensors["c"].fill_(3)
    assert (found["c"] == 3).all()


def test_the_last_tensor_of_a_bucket_is_released_before_the_next_is_gathered(tensors):
    """So that no process holds more than one bucket and the tensor that comes next."""
    alive = []

    def gathered():
        for name in "abcdef":
            assert sum(reference() is not None for reference in alive) <= 2
            tensor = torch.zeros(4)
            alive.append(weakref.ref(tensor))
            yield name, tensor
            del tensor

    for bucket in fill_buckets(gathered(), limit=16):
        del bucket


def test_the_size_of_a_bucket():
    assert bucket_bytes(1000) == SMALLEST
    assert bucket_bytes(375_000_000) == 375_000_000 // 16
    assert bucket_bytes(33_000_000_000) == LARGEST


def test_weights_that_do_not_fit(tensors):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(shapes, dict(shapes))
    with pytest.raises(ValueError, match=r"missing \['d'\], unexpected \['z'\]"):
        check_shapes(shapes, {**{n: s for n, s in shapes.items() if n != "d"}, "z": (1,)})
    with pytest.raises(ValueError, match=r"c: shape \(3, 3\), the engine has \(40, 10\)"):
        check_shapes(shapes, shapes | {"c": (3, 3)})


def test_the_names_of_a_hub_checkpoint_come_bucket_by_bucket(tmp_path):
    """Fused experts are one tensor here and many on the hub: each bucket can be renamed on its own."""
    model = load_model(build_tiny_folder(tmp_path / "tiny"))
    state = model.state_dict()
    in_pieces = {}
    for bucket in fill_buckets(state.items(), limit=1):
        in_pieces |= hub_names(model, bucket.named())
    at_once = hub_names(model, state)
    assert in_pieces.keys() == at_once.keys()
    assert all(torch.equal(in_pieces[name], tensor) for name, tensor in at_once.items())
