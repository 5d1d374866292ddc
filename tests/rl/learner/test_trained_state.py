"""Checkpoints hold what training changes: under LoRA the adapters, never the frozen base."""

import io

import numpy as np
import pytest
import torch
from rl_helpers import build_model, make_learner, make_samples

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from rl.learner.lora import prepare_training
from rl.safe_load import load_state

EVERYTHING = LossConfig(
    algorithm="ppo", kl=KLConfig(coef=0.1), critic=CriticConfig(backbone="own"), reference="ema", reference_decay=0.5
)


def learner_of(model_config, loss=EVERYTHING):
    model = build_model()
    torch.manual_seed(0)
    prepare_training(model, model_config, base="")
    return make_learner(model, loss=loss, optimizer=OptimizerConfig(learning_rate=1e-2))


def saved(learner, folder):
    """What a checkpoint of the learner holds, as bytes."""
    file = io.BytesIO()
    torch.save(learner.write_checkpoint(folder)(), file)
    return file.getvalue()


def size(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


LORA = ModelConfig(lora=LoraConfig(rank=2))


def test_under_lora_a_checkpoint_is_as_small_as_the_adapters(rng, tmp_path):
    learner = learner_of(LORA, LossConfig(algorithm="grpo"))
    learner.update(make_samples(rng, learner.model))
    adapters = size(p for p in learner.model.parameters() if p.requires_grad)
    buffers = size(learner.model.buffers())
    names = 400 * len(learner.model.state_dict())  # of the archive: names and alignment of each tensor and its moments
    data = len(saved(learner, tmp_path))
    assert data < 3 * adapters + buffers + names, "weights and two moments"
    assert data < 0.7 * size(learner.model.parameters())
    names = load_state(io.BytesIO(saved(learner, tmp_path)))["model"].keys()
    assert {n for n in names if "lora_" not in n} <= {n for n, _ in learner.model.named_buffers()}


@pytest.mark.parametrize(
    "model_config",
    [ModelConfig(), LORA, ModelConfig(freeze=("vision_tower", "embed_tokens"))],
    ids=["weights", "adapters", "frozen"],
)
def test_reference_and_critic_go_on_to_the_bit(rng, tmp_path, model_config):
    """Their frozen parts, and a reference that never moves, come from the model's folder again."""
    for loss in (EVERYTHING, LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1))):
        whole = learner_of(model_config, loss)
        batches = [make_samples(rng, whole.model) for _ in range(3)]
        columns = {"old_values": 0.0, "returns": 1.0, "reference_logprobs": -2.0}
        for batch in batches:
            for sample in batch:
                for name, value in columns.items():
                    sample.columns[name] = np.full(len(sample.token_ids), value, np.float32)
        logged = [whole.update(batch) for batch in batches[:2]]
        data = saved(whole, tmp_path)
        logged.append(whole.update(batches[2]))
        resumed = learner_of(model_config, loss)
        resumed.read_checkpoint(tmp_path, load_state(io.BytesIO(data)))
        assert resumed.update(batches[2]) == logged[2]
        for name in ("model", "reference", "critic"):
            one, other = (flat(getattr(learner, name)) for learner in (whole, resumed))
            assert [n for n in one if not torch.equal(one[n], other[n])] == []


def flat(part):
    if part is None:
        return {}
    module = part if isinstance(part, torch.nn.Module) else getattr(part, "model", None) or part.backbone
    return module.state_dict()


def test_a_reference_that_never_moves_is_in_no_checkpoint():
    """It is the model that the stage started from, which the run reads anyway."""
    learner = learner_of(ModelConfig(), LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1)))
    parameters = {name for name, _ in learner.reference.model.named_parameters()}
    assert not parameters & learner.state_dict()["reference"]["model"].keys()


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path):
    state = learner_of(LORA).write_checkpoint(tmp_path)()
    other = learner_of(ModelConfig(lora=LoraConfig(rank=2, targets=("attention",))))
    with pytest.raises(RuntimeError, match=r"other trained parameters; they differ in .*lora_"):
        other.read_checkpoint(tmp_path, state)
