"""An engine that serves from shared memory: no copy, the same tokens, and a way back to memory of its own."""

import pickle

import numpy as np
import torch
from engine_helpers import build_prompt, requests_for, tokens_of
from rl_helpers import build_model

from configs.rl import SamplingConfig
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.shared_memory import SharedMemory
from rollouts.weight_checksums import checksums
from rollouts.weight_stream import BucketPlace, fill_buckets

SAMPLING = SamplingConfig(max_new_tokens=12)


def driver_of(model):
    return EngineDriver(TransformersEngine(model, stop_ids=(), barred_ids=()))


def changed(seed):
    return build_model(seed=seed).state_dict()


def publish(driver, weights, version, made, exact=True):
    """As a worker receives them: the memory of the version before, mapped."""
    spare = list(made)
    made.clear()

    def memory(nbytes):
        made.append(spare.pop(0) if spare else SharedMemory(nbytes))
        return made[-1]

    driver.start_load({name: tuple(tensor.shape) for name, tensor in weights.items()})
    for bucket in fill_buckets(weights.items(), limit=1 << 16, place=BucketPlace(memory=memory)):
        found = driver.load_bucket(bucket)
        assert not exact or found == {sent.name: sent.checksum for sent in bucket.tensors}
    driver.finish_load(version)


def test_it_serves_from_the_memory_itself_version_after_version(rng):
    model = build_model(seed=1)
    driver, made = driver_of(model), []
    requests = requests_for([build_prompt(rng, model.config, text=9)])
    for version in (2, 3):
        weights = changed(seed=version)
        publish(driver, weights, version, made)
        held = dict(model.named_parameters()) | dict(model.named_buffers())
        places = [(m.array().ctypes.data, m.nbytes) for m in made]
        assert all(any(0 <= held[name].data_ptr() - at < size for at, size in places) for name in weights)
        assert driver.weight_checksums() == checksums(weights)
        own = driver_of(build_model(seed=version))
        assert tokens_of(driver.generate(requests, SAMPLING)) == tokens_of(own.generate(requests, SAMPLING))
    before = made[0].array().copy()
    weights = changed(seed=4)
    driver.load_weights(weights, version=4)
    assert driver.weight_checksums() == checksums(weights)
    assert np.array_equal(before, made[0].array()), "memory of others is never written to"
    assert driver.engine._shared == set()


def test_tensors_of_another_type_are_copied():
    model = build_model(seed=1).to(torch.bfloat16)
    driver = driver_of(model)
    name = next(name for name, _ in model.named_parameters())
    weights = changed(seed=2)
    publish(driver, weights, 2, [], exact=False)
    held = model.get_parameter(name)
    assert (held.dtype, driver.version) == (torch.bfloat16, 2)
    assert torch.equal(held, weights[name].bfloat16())
    assert name not in driver.engine._shared


def test_a_bit_that_differs_in_the_mapped_memory_is_seen():
    driver, weights = driver_of(build_model(seed=1)), changed(seed=2)
    driver.start_load({name: tuple(tensor.shape) for name, tensor in weights.items()})
    [bucket] = fill_buckets(weights.items(), limit=1 << 40, place=BucketPlace(memory=SharedMemory))
    bucket.data.array()[0] ^= 1
    found = driver.load_bucket(bucket)
    assert [sent.name for sent in bucket.tensors if found[sent.name] != sent.checksum] == [bucket.tensors[0].name]
    assert pickle.loads(pickle.dumps(bucket)).tensors == bucket.tensors
