"""Losses and gradients against TRL's own: its trainers' `_compute_loss` on a tiny random Qwen3, as in training."""

import pytest
import torch

from configs.algorithms import KLConfig, LossConfig
from configs.correction import CorrectionConfig
from rewards.shaping import overlong_penalty
from rl.algorithms.policy_loss import LossInputs, policy_loss

LENGTHS = torch.tensor([6, 1, 4, 3])
MASK = (torch.arange(6) < LENGTHS[:, None]).long()
ADVANTAGES = torch.tensor([1.0, -2.0, 0.5, -0.3])
LIMIT = 6


def make_trainer(folder, kind, arguments):
    """A TRL trainer on a model of one layer, that has not been asked to train."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    vocabulary = {f"t{i}": i for i in range(30)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), eos_token="t1", pad_token="t2"
    )
    torch.manual_seed(5)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=30,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=0.5,
        )
    )
    settings = arguments(
        output_dir=str(folder),
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.3,
        max_completion_length=LIMIT,
        num_generations=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    trainer = kind(
        model=model,
        args=settings,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["t3"] * 4}),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


@pytest.fixture(scope="module")
def grpo_trainer(tmp_path_factory):
    from trl import GRPOConfig, GRPOTrainer

    return make_trainer(tmp_path_factory.mktemp("grpo"), GRPOTrainer, GRPOConfig)


@pytest.fixture(scope="module")
def rloo_trainer(tmp_path_factory):
    from trl import RLOOConfig, RLOOTrainer

    return make_trainer(tmp_path_factory.mktemp("rloo"), RLOOTrainer, RLOOConfig)


class Answers:
    """Four padded answers of unlike length, the policy's log-probs of them, and those of three other policies."""

    def __init__(self, model, *, spread=0.5):
        generator = torch.Generator().manual_seed(1)
        self.prompt, self.answer = (torch.randint(3, 30, (4, n), generator=generator) for n in (3, 6))
        ids = torch.cat([self.prompt, self.answer], 1)
        mask = torch.cat([torch.ones_like(self.prompt), MASK], 1)
        table = model(ids, attention_mask=mask).logits[:, 2:-1].log_softmax(-1)[MASK.bool()]
        self.new = table.gather(-1, self.answer[MASK.bool()][:, None])[:, 0]
        self.entropy = -(table.exp() * table).sum(-1)
        self.old, self.reference, self.sampler = (
            self.new.detach() + spread * torch.randn(len(self.new), generator=generator) for _ in range(3)
        )

    def padded(self, flat):
        table = torch.zeros(4, 6)
        table[MASK.bool()] = flat.detach()
        return table

    def theirs(self):
        """What TRL's `_compute_loss` takes."""
        return {
            "prompt_ids": self.prompt,
            "prompt_mask": torch.ones_like(self.prompt),
            "completion_ids": self.answer,
            "completion_mask": MASK,
            "advantages": ADVANTAGES,
            "old_per_token_logps": self.padded(self.old),
            "ref_per_token_logps": self.padded(self.reference),
            "old_logps": self.padded(self.old).sum(1),
            "num_items_in_batch": MASK.sum(),
        }

    def ours(self, **more):
        return LossInputs(
            logprobs=self.new,
            old_logprobs=self.old,
            advantages=ADVANTAGES,
            sequence_ids=torch.repeat_interleave(torch.arange(4), LENGTHS),
            lengths=LENGTHS,
            step_sequences=4,
            step_tokens=int(LENGTHS.sum()),
            max_tokens=LIMIT,
            reference_logprobs=self.reference,
            sampler_logprobs=self.sampler,
            entropy=self.entropy,
            **more,
        )


def compare(trainer, answers, config, inputs=None):
    """One loss and one gradient; returns our metrics."""
    parameters = list(trainer.model.parameters())
    theirs = trainer._compute_loss(trainer.model, {**answers.theirs(), **(inputs or {})})
    their_gradient = torch.autograd.grad(theirs, parameters)
    output = policy_loss(answers.ours(), config)
    our_gradient = torch.autograd.grad(output.loss, parameters)
    assert output.loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    for ours, expected in zip(our_gradient, their_gradient, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max() + 1))
    return {name: value.item() for name, value in output.metrics.items()}


CLIP = {"clip_low": 0.2, "clip_high": 0.3}


@pytest.mark.parametrize(
    ("theirs", "config"),
    [
        ({"loss_type": "grpo"}, LossConfig(algorithm="grpo", **CLIP)),
        ({"loss_type": "dr_grpo"}, LossConfig(algorithm="dr_grpo", **CLIP)),
        ({"loss_type": "dapo"}, LossConfig(algorithm="dapo", **CLIP)),
        (
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.1},
            LossConfig(algorithm="gspo", clip_low=0.05, clip_high=0.1),
        ),
        ({"loss_type": "cispo", "epsilon_high": 1.3}, LossConfig(algorithm="cispo", clip_high=0.3)),
    ],
    ids=["grpo", "dr_grpo", "dapo", "gspo", "cispo"],
)
def test_a_loss_equals_trls(grpo_trainer, monkeypatch, theirs, config):
    """With ratios on both sides of the clip. TRL's bound for CISPO is 1 + ours."""
    for name, value in theirs.items():
        monkeypatch.setattr(grpo_trainer, name, value)
    metrics = compare(grpo_trainer, Answers(grpo_trainer.model), config)
    assert 0 < metrics["clip_fraction"] < 1


def test_rloo_equals_trls(rloo_trainer, monkeypatch):
    monkeypatch.setattr(rloo_trainer, "epsilon_low", 0.01)
    monkeypatch.setattr(rloo_trainer, "epsilon_high", 0.02)
    config = LossConfig(algorithm="rloo", clip_low=0.01, clip_high=0.02)
    metrics = compare(rloo_trainer, Answers(rloo_trainer.model, spread=0.2), config)
    assert 0 < metrics["clip_fraction"] < 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo"])
def test_the_kl_term_equals_trls(grpo_trainer, monkeypatch, algorithm, weighted):
    """k3 to a reference, with the importance weight that TRL calls bias correction, and without."""
    monkeypatch.setattr(grpo_trainer, "loss_type", algorithm)
    monkeypatch.setattr(grpo_trainer, "beta", 0.3)
    monkeypatch.setattr(grpo_trainer.args, "use_bias_correction_kl", weighted)
    kl = KLConfig(coef=0.3, estimator="k3", importance_weighted=weighted)
    compare(grpo_trainer, Answers(grpo_trainer.model), LossConfig(algorithm=algorithm, kl=kl, **CLIP))


def test_the_entropy_bonus_equals_trls(grpo_trainer, monkeypatch):
    monkeypatch.setattr(grpo_trainer, "loss_type", "grpo")
    monkeypatch.setattr(grpo_trainer, "_entropy_bonus_enabled", True)
    monkeypatch.setattr(grpo_trainer, "use_adaptive_entropy", False)
    monkeypatch.setattr(grpo_trainer, "entropy_coef", 0.2)
    compare(grpo_trainer, Answers(grpo_trainer.model), LossConfig(algorithm="grpo", entropy_bonus=0.2, **CLIP))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_mismatch_correction_enters_as_trls(grpo_trainer, monkeypatch, level):
    """TRL multiplies each token's loss by a ratio that its rollout code makes; given ours by hand, the losses agree."""
    monkeypatch.setattr(grpo_trainer, "loss_type", "dapo")
    monkeypatch.setattr(grpo_trainer, "use_vllm", True)
    monkeypatch.setattr(grpo_trainer, "vllm_importance_sampling_correction", True)
    answers = Answers(grpo_trainer.model)
    gap = answers.padded(answers.old) - answers.padded(answers.sampler)
    ratio = (gap if level == "token" else gap.sum(1, keepdim=True)).exp().clamp(max=1.2)
    config = LossConfig(algorithm="dapo", correction=CorrectionConfig(level=level, high=1.2), **CLIP)
    metrics = compare(grpo_trainer, answers, config, {"importance_sampling_ratio": ratio})
    assert 0 < metrics["correction_outside"] < 1


@pytest.mark.parametrize("length", [1, 80, 81, 90, 99, 100])
def test_the_overlong_penalty_equals_trls(length):
    from trl.rewards import get_soft_overlong_punishment

    [theirs] = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)([[1] * length])
    assert overlong_penalty(length, limit=100, buffer=20) == pytest.approx(theirs)
