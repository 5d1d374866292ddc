"""The parity check of a run catches weights that went wrong on their way into vLLM, and vLLM's error with experts."""

import pytest
from vllm_helpers import build_prompt, move

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.weight_sync import ParityError, WeightSync
from rollouts.engines import vllm_cpu

SAMPLING = SamplingConfig(temperature=0.8, top_p=0.9, max_new_tokens=30)
NORMS = [f"language_model.model.layers.{i}.post_attention_layernorm.weight" for i in (0, 1)]


class OneEngine:
    """A pool of the one engine; `fault(tensors)` changes what reaches vLLM under the hub's names."""

    def __init__(self, engine, monkeypatch):
        self.engine, self.worker_group, self.fault, self.sent, self.dtype = engine, self, None, 0, "float32"
        honest = engine.engine._names.to_hub

        def to_hub(weights):
            tensors = honest(weights)
            return self.fault(tensors) if self.fault else tensors

        monkeypatch.setattr(engine.engine._names, "to_hub", to_hub)

    def publish(self, weights, *, version):
        self.sent += 1
        whole = {name: tensor for bucket in weights.buckets for name, tensor in bucket.named().items()}
        self.engine.load_weights(whole, version=version)

    def generate_on_each(self, requests, sampling):
        return [self.engine.generate(requests, sampling)]

    def weight_checksums(self):
        return [self.engine.weight_checksums()]


@pytest.fixture
def made(rng, engine, model, ids, monkeypatch):
    """(sync, pool, what it said); the learner has moved since the engine got its weights."""
    config = LearnerConfig(
        loss=LossConfig(), optimizer=OptimizerConfig(), temperature=0.8, total_steps=10, max_new_tokens=30
    )
    learner = Learner(model, config, barred_ids=ids[1])
    move(model)
    learner.version = 4
    pool, said = OneEngine(engine, monkeypatch), []
    prompts = [build_prompt(rng, model.config), build_prompt(rng, model.config, grids=((4, 4),))]
    sync = WeightSync(pool=pool, learner=learner, prompts=prompts, sampling=SAMPLING, threshold=1e-3, say=said.append)
    return sync, pool, said


def test_honest_weights_pass(made):
    sync, pool, said = made
    assert 0 < sync.publish()["parity_gap"] < 1e-4
    assert (pool.sent, said) == (1, [])


def test_a_tensor_that_was_not_sent(made):
    sync, pool, said = made
    old = pool.engine.engine._names.to_hub(sync.learner.model.state_dict())  # the names, with values of another time
    pool.fault = lambda tensors: tensors | {name: old[name] * 0.5 for name in ["language_model.lm_head.weight"]}
    with pytest.raises(ParityError, match=r"still differ by \d\S* in a token's log-prob"):
        sync.publish()
    assert pool.sent == 2, "everything was sent once more"
    assert len(said) == 1


def test_a_tensor_that_was_left_out(made):
    """vLLM loads what it gets and keeps the rest, without a word."""
    sync, pool, _ = made
    pool.fault = lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("layers.1.mlp.gate.weight")}
    with pytest.raises(ParityError, match="still differ"):
        sync.publish()


def test_a_tensor_of_the_vision_tower_that_was_left_out(made):
    sync, pool, _ = made
    pool.fault = lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("vision_tower.patch_embed.proj")}
    with pytest.raises(ParityError, match="still differ"):
        sync.publish()


def test_two_tensors_swapped(made):
    sync, pool, _ = made
    a, b = NORMS
    pool.fault = lambda tensors: tensors | {a: tensors[b], b: tensors[a]}
    with pytest.raises(ParityError, match="still differ"):
        sync.publish()


def test_a_fault_that_passes_is_mended_by_sending_all_again(made):
    sync, pool, said = made
    a, b = NORMS

    def once(tensors):
        pool.fault = None
        return tensors | {a: tensors[b], b: tensors[a]}

    pool.fault = once
    assert sync.publish()["parity_gap"] < 1e-4
    assert pool.sent == 2
    assert "sending all again" in said[0]


def test_a_stale_engine(made, monkeypatch):
    """It kept the old weights, whether it says so or not."""
    sync, pool, _ = made
    monkeypatch.setattr(pool, "publish", lambda weights, *, version: None)
    with pytest.raises(ParityError, match="differ by inf"):
        sync.publish()
    monkeypatch.setattr(pool.engine.engine, "_version", 4)
    with pytest.raises(ParityError, match=r"differ by \d.*worker 0 holds other values"):
        sync.publish()


def test_the_error_with_experts(made, monkeypatch):
    """Without the way round, vLLM's CPU build keeps experts in the checkpoint's layout after any update."""
    sync, _, _ = made
    monkeypatch.setattr(vllm_cpu, "forget_packed_experts", lambda model: None)
    with pytest.raises(ParityError, match=r"all tensors are equal, so the two compute different things") as caught:
        sync.publish()
    gap = float(str(caught.value).split("differ by ")[1].split()[0])
    assert gap > 0.1
    monkeypatch.undo()
