"""A spec whose engine lacks the way round vLLM's rotary kernel; sent by value, as workers cannot import it."""

import sys
from dataclasses import dataclass

import ray

from rollouts.build import EngineSpec


@dataclass(frozen=True, kw_only=True)
class BrokenRotary(EngineSpec):
    def build(self):
        from rollouts.engines import vllm_cpu

        vllm_cpu.compilation_config = dict
        return EngineSpec.build(self)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
