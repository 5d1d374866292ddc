"""Specs whose engines lack one way round an error of vLLM's; sent by value, as workers cannot import them."""

import sys
from dataclasses import dataclass

import ray

from rollouts.engines.engine_spec import EngineSpec


@dataclass(frozen=True, kw_only=True)
class BrokenRotary(EngineSpec):
    def build(self):
        from rollouts.engines import vllm_cpu

        vllm_cpu.compilation_config = dict
        return EngineSpec.build(self)


@dataclass(frozen=True, kw_only=True)
class AnyAttention(EngineSpec):
    def build(self):
        from rollouts.engines import vllm_cpu

        vllm_cpu.ATTENTION = None
        return EngineSpec.build(self)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
