"""An engine that misbehaves as a file tells it; sent to the workers by value, since they cannot import the tests."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.workers.actor import EngineSpec


@dataclass(frozen=True, kw_only=True)
class HostileSpec(EngineSpec):
    """Orders are files in `folder`, named KIND-TASK; a file `once-KIND-TASK` is removed when it is obeyed."""

    folder: str

    def build(self):
        return EngineDriver(HostileEngine(EngineSpec.build(self).engine, Path(self.folder)))


class HostileEngine(TransformersEngine):
    def __init__(self, engine, folder):
        self.__dict__.update(engine.__dict__)
        self.folder = folder

    def add(self, index, request, sampling):
        for kind, act in ACTS.items():
            order = self.folder / f"{kind}-{request.prompt.task.id}"
            once = order.with_name(f"once-{order.name}")
            if once.exists():
                once.unlink()
                act()
            if order.exists():
                act()
        TransformersEngine.add(self, index, request, sampling)

    share_weights = None  # it copies, so that it can leave tensors out

    def load_weights(self, weights):
        weights = dict(weights)
        for death in sorted(self.folder.glob("die-of-weights-*"))[:1]:  # each is obeyed once
            death.unlink()
            ACTS["kill"]()
        if (self.folder / "unsent").exists():
            weights.pop("lm_head.weight", None)
        if (self.folder / "swapped").exists():
            a, b = (f"model.language_model.layers.{i}.input_layernorm.weight" for i in (0, 1))
            weights[a], weights[b] = weights[b], weights[a]  # in one bucket, as small as the model is
        if not (self.folder / "unloaded").exists():
            TransformersEngine.load_weights(self, weights)

    def finish_load(self, version):
        if not (self.folder / "stale").exists():
            TransformersEngine.finish_load(self, version)


def a_named_place():
    threading.Event().wait()


def refuse():
    raise MemoryError("no room for this image")


ACTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": a_named_place,
    "freeze": lambda: (os.kill(os.getpid(), signal.SIGSTOP), time.sleep(1)),
    "raise": refuse,
}

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
