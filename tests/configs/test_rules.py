"""Combinations of keys that cannot be meant are refused, whoever builds the config."""

import pytest

from configs.algorithms import ALGORITHMS, KLConfig, LossConfig
from configs.load import ConfigError, load_recipe
from configs.model import ModelConfig, TinyConfig
from configs.optimizer import OptimizerConfig
from configs.rewards import LengthRewardConfig, RewardConfig
from configs.rl import RanksConfig, RLConfig
from configs.schema import RunConfig
from configs.task_sampler import TaskSamplerConfig

RULES = [
    ("model.tiny.hidden_size=0", "model.tiny.hidden_size = 0: must be a multiple of 32: heads are 32 wide"),
    ("model.tiny.hidden_size=48", "model.tiny.hidden_size = 48: must be a multiple of 32: heads are 32 wide"),
    ("model.tiny.num_hidden_layers=1", "model.tiny.num_hidden_layers = 1: must be 2 or more"),
    ("model.path=''", "model.path = '': must be `tiny`, a folder, or a hub name"),
    (
        "model={path: org/x, tiny: {hidden_size: 64}}",
        "model.path = 'org/x': must be tiny where sizes are given under tiny; other weights have their own",
    ),
    ("rl.rewards.0.weight=0", "rl.rewards.0.weight = 0.0: must be anything but 0: leave the term out instead"),
    ("rl.rewards=[]", "rl.rewards = (): must be at least one term"),
    (
        "rl.length_reward={weight: -1}",
        "rl.length_reward.weight = -1.0: must be greater than 0 (length_reward: null for none)",
    ),
    ("rl.length_reward={weight: 1, warmup_steps: -1}", "rl.length_reward.warmup_steps = -1: must be 0 or more"),
    ("rl.optimizer={betas: [0.9, 1]}", "rl.optimizer.betas = (0.9, 1.0): must be two numbers in [0, 1)"),
    ("rl.optimizer.weight_decay=-1", "rl.optimizer.weight_decay = -1.0: must be 0 or more"),
    ("rl.optimizer.final_fraction=0.1", "rl.optimizer.final_fraction = 0.1: must be 0 where schedule is constant"),
    ("rl.loss={algorithm: grpo, tau: 0.5}", "rl.loss.tau = 0.5: must be left at 0.1: grpo does not read it"),
    ("rl.loss.clip_low=0.1", "rl.loss.clip_low = 0.1: must be left out: kimi_k15 does not clip"),
    ("rl.loss.clip_high=0.3", "rl.loss.clip_high = 0.3: must be left out: kimi_k15 does not clip"),
    (
        "rl.loss.advantage=group_std",
        "rl.loss.advantage = 'group_std': must be group_mean with kimi_k15: the square compares A with tau times the "
        "log-ratio, so A keeps the reward's unit",
    ),
    (
        "rl.loss={algorithm: grpo, advantage: gae}",
        "rl.loss.advantage = 'gae': must be group_std or group_mean or leave_one_out or group_global_std with grpo: "
        "the baseline comes from the group: global_std is reinforce_pp's, and only ppo has the critic for gae",
    ),
    (
        "rl.loss={algorithm: ppo, advantage: group_std}",
        "rl.loss.advantage = 'group_std': must be gae with ppo: PPO's advantage comes from its critic; grpo and "
        "reinforce_pp are PPO's clip without one",
    ),
    (
        "rl.loss={algorithm: dr_grpo, normalization: sequence}",
        "rl.loss.normalization = 'sequence': must be fixed with dr_grpo: Dr.GRPO is GRPO without the division by the "
        "completion's length",
    ),
    (
        "rl.loss={algorithm: grpo, normalization: sum}",
        "rl.loss.normalization = 'sum': must be sequence or token or fixed with grpo: with sum, long completions "
        "outweigh the others; only sequence-level losses take it",
    ),
    ("rl.loss={algorithm: ppo, critic: {pretrain_steps: -1}}", "rl.loss.critic.pretrain_steps = -1: must be 0 or more"),
    (
        "rl={steps: 4, loss: {algorithm: ppo, critic: {pretrain_steps: 4}}}",
        "rl.loss.critic.pretrain_steps = 4: must be below steps = 4: until then the policy waits for its critic",
    ),
    (
        "rl.loss={algorithm: ppo, critic: {value_learning_rate: 0.05}}",
        "rl.loss.critic.value_learning_rate = 0.05: must be greater than 0 and at most 0.01: the head learns ten times "
        "as fast, and diverges above",
    ),
    (
        "rl={steps: 4, task_sampler: {name: dynamic}, loss: {algorithm: reinforce_pp, kl: {coef: 0}}}",
        "rl.task_sampler.name = 'dynamic': must be another with reinforce_pp: groups of equal rewards are trained on "
        "there, so none is replaced",
    ),
    (
        "rl={steps: 4, task_sampler: {name: dynamic}, loss: {algorithm: grpo, advantage: group_global_std}}",
        "rl.task_sampler.name = 'dynamic': must be another with grpo and group_global_std: groups of equal rewards are "
        "trained on there, so none is replaced",
    ),
    (
        "rl={steps: 4, task_sampler: {name: dynamic}, loss: {algorithm: rloo, kl: {coef: 0.1, placement: reward}}}",
        "rl.task_sampler.name = 'dynamic': must be another with rloo and a KL in the reward: groups of equal rewards "
        "are trained on there, so none is replaced",
    ),
    (
        "rl={steps: 4, colocate: true, asynchronous: {max_staleness: 2}}",
        "rl.colocate = True: must be false where asynchronous.max_staleness is above 0 (2): the workers generate while "
        "the learner works",
    ),
    (
        "rl={steps: 4, colocate: true, ranks: {count: 2}}",
        "rl.colocate = True: must be false where ranks.count is above 1 (2): each rank has a GPU that no worker uses",
    ),
    (
        "rl={steps: 4, task_sampler: {rounds: 5}}",
        "rl.task_sampler.rounds = 5: must be left out: uniform replaces no groups",
    ),
    ("rl.loss={algorithm: grpo, critic: {gamma: 0.9}}", "must be left out: grpo does not read it"),
    (
        "rl.loss={algorithm: kimi_k15, kl: {coef: 0.1}}",
        "rl.loss.kl.coef = 0.1: must be left out with kimi_k15: its squared log-ratio holds the policy to the "
        "reference already, with weight tau",
    ),
    (
        "rl.loss={algorithm: grpo, kl: {coef: 0.1, estimator: k1}}",
        "rl.loss.kl.estimator = 'k1': must be k2 or k3 in the loss: the mean gradient of k1 is 0 there, unless "
        "importance_weighted is true",
    ),
    (
        "rl.loss={algorithm: grpo, kl: {coef: 0.1, placement: reward, importance_weighted: true}}",
        "rl.loss.kl.importance_weighted = True: must be false where placement is reward: the reward has no gradient",
    ),
    (
        "rl.loss={algorithm: grpo, reference: ema}",
        "rl.loss.reference = 'ema': must be left out: grpo compares with no reference unless kl is given",
    ),
    (
        "rl.loss={algorithm: reinforce_pp, reference: iteration}",
        "rl.loss.reference = 'iteration': must be frozen or ema where the KL is in the reward: the policy that sampled "
        "is at distance 0 from itself",
    ),
    (
        "rl.loss={algorithm: grpo, kl: {coef: 0.1}, reference: iteration}",
        "rl.loss.reference = 'iteration': must be frozen or ema with one update a step: the KL is measured from the "
        "policy of that update, so its gradient is 0 (k1: noise); or give epochs or minibatches above 1",
    ),
    (
        "rl.loss={algorithm: grpo, kl: {coef: 0.1, estimator: k1, importance_weighted: true}, reference: iteration}",
        "rl.loss.reference = 'iteration': must be frozen or ema with one update a step: the KL is measured from the "
        "policy of that update, so its gradient is 0 (k1: noise); or give epochs or minibatches above 1",
    ),
    (
        "rl.loss={algorithm: kimi_k15, tau: 0.5}",
        "rl.loss.tau = 0.5: must be left at 0.1 with one update a step: it has no effect without epochs or minibatches "
        "above 1, or loss.reference frozen or ema",
    ),
    (
        "rl.loss={algorithm: kimi_k15, reference_decay: 0.5}",
        "rl.loss.reference_decay = 0.5: must be left at 0.99 where reference is not ema",
    ),
    (
        "rl.loss={algorithm: gspo, correction: {level: token}}",
        "rl.loss.correction.level = 'token': must be sequence with gspo: it weighs whole completions by their own "
        "log-probability",
    ),
    (
        "rl.loss={algorithm: grpo, correction: {high: 0.5}}",
        "rl.loss.correction.high = 0.5: must be 1 or more, the weight where engine and learner agree",
    ),
    (
        "rl.loss={algorithm: ppo, critic: {value_coef: 1}}",
        "rl.loss.critic.value_coef = 1.0: must be left at 0.5: a critic of its own shares no gradient with the policy, "
        "value_learning_rate sets its pace",
    ),
    ("rl.sampling.temperature=0.0099", "rl.sampling.temperature = 0.0099: must be 0 (greedy), or 0.01 or more"),
    ("rl.sampling.temperature=1.0e-44", "rl.sampling.temperature = 1e-44: must be 0 (greedy), or 0.01 or more"),
    ("rl.engine=vlm", "rl.engine = 'vlm': must be transformers, vllm or `file.py:Class` (did you mean 'vllm'?)"),
    ("rl.engine=mine.py", "rl.engine = 'mine.py': must be transformers, vllm or `file.py:Class`"),
    (
        "rl={steps: 1, engine: vllm, engine_options: {sampler: native}, sampling: {top_p: 0.9}}",
        "rl.engine_options.sampler = 'native': must be exact where sampling has top_p, top_k or min_p: vLLM's own "
        "sampler returns log-probs after these filters",
    ),
    (
        "rl={steps: 1, engine: vllm, router_replay: true}",
        "rl.router_replay = True: must be false where engine is vllm, except with engine_options.sampler: native, "
        "which returns experts",
    ),
    ("rl.loss.sft_coef=-1", "rl.loss.sft_coef = -1.0: must be 0 or more"),
    (
        "rl={steps: 1, shuffle_rewards: true, loss: {sft_coef: 0.1}}",
        "rl.shuffle_rewards = True: must be false where loss.sft_coef is above 0: the supervised term would show the "
        "control what is correct",
    ),
    (
        "rl.overlong_buffer=1024",
        "rl.overlong_buffer = 1024: must be from 0 (none) to below sampling.max_new_tokens = 1024",
    ),
    ("rl.samples_per_prompt=1", "rl.samples_per_prompt = 1: must be 2 or more (a group)"),
    ("threads=0", "threads = 0: must be 1 or more, or left out"),
    ("output_dir=''", "output_dir = '': must be a folder's name"),
    (
        "stages.1={kind: sft, steps: 1, batch_size: 4, micro_batch_tokens: 0}",
        "sft.micro_batch_tokens = 0: must be 1 or more",
    ),
]


@pytest.mark.parametrize(("override", "expected"), RULES, ids=[override for override, _ in RULES])
def test_a_rule(tmp_path, override, expected):
    path = tmp_path / "r.yaml"
    path.write_text("name: q\noutput_dir: x\nstages: [{kind: rl, steps: 3}]\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, [override])
    assert str(caught.value).startswith("command line: rl" if expected.startswith("must") else "command line: ")
    assert str(caught.value).endswith(expected)


@pytest.mark.parametrize(
    ("ranks", "state", "expected"),
    [
        (
            RanksConfig(count=2, compute_dtype="bfloat16"),
            None,
            "rl.ranks.compute_dtype = 'bfloat16': must be left out where model.dtype is bfloat16 already",
        ),
        (
            RanksConfig(count=2),
            "8bit",
            "rl.optimizer.state = '8bit': must be bfloat16 or float32 where ranks.count is above 1 and model.dtype "
            "is bfloat16: torchao's 8-bit moments of such weights cannot be sharded",
        ),
    ],
)
def test_rules_between_the_model_and_the_ranks(ranks, state, expected):
    stage = RLConfig(steps=1, ranks=ranks, optimizer=OptimizerConfig(state=state))
    RunConfig(name="q", output_dir="x", stages=(stage,))
    with pytest.raises(ValueError, match="must be") as caught:
        RunConfig(name="q", output_dir="x", stages=(stage,), model=ModelConfig(dtype="bfloat16"))
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("stage", "model", "expected"),
    [
        ({}, "float32", "float32"),
        ({}, "bfloat16", "bfloat16"),
        ({"ranks": RanksConfig(compute_dtype="bfloat16")}, "float32", "bfloat16"),
        ({"ranks": RanksConfig(compute_dtype="bfloat16"), "engine_dtype": "float32"}, "float32", "float32"),
        ({"engine_dtype": "bfloat16"}, "float32", "bfloat16"),
    ],
)
def test_the_type_that_engines_serve(stage, model, expected):
    config = RunConfig(name="q", output_dir="x", stages=(RLConfig(steps=1, **stage),), model=ModelConfig(dtype=model))
    assert config.engine_dtype == expected


def test_stages_share_the_type_that_engines_serve():
    """Also where it follows from what a stage computes in."""
    first = RLConfig(name="first", steps=1, ranks=RanksConfig(compute_dtype="bfloat16"))
    with pytest.raises(ValueError, match="must be") as caught:
        RunConfig(name="q", output_dir="x", stages=(first, RLConfig(name="last", steps=1)))
    assert str(caught.value) == (
        "first.engine_dtype = 'bfloat16': must be float32, as in stage last: the stages of a run share the workers"
    )
    RunConfig(name="q", output_dir="x", stages=(first, RLConfig(name="last", steps=1, engine_dtype="bfloat16")))


def test_what_is_meant_passes():
    assert OptimizerConfig(name="muon", schedule="cosine", final_fraction=0.1)
    assert LossConfig(algorithm="grpo", clip_high=0.28, advantage="group_mean", reset_optimizer=True)
    assert LossConfig(algorithm="kimi_k15", tau=0.5, reset_optimizer=True, reference="ema", reference_decay=0.5)
    assert LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1, estimator="k1", importance_weighted=True))
    assert LossConfig(algorithm="gspo", kl=KLConfig(coef=0.1), reference="iteration")
    assert RLConfig(steps=1, samples_per_prompt=1, loss=LossConfig(algorithm="ppo"))
    assert ModelConfig(path="org/x", tiny=TinyConfig())
    assert RewardConfig(weight=-0.1)  # a penalty
    assert RLConfig(steps=1, length_reward=LengthRewardConfig(weight=0.1))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_takes_what_its_row_allows(name):
    """And `resolved` says the first of each where nothing is given."""
    row, parts = ALGORITHMS[name], LossConfig(algorithm=name).resolved()
    assert (parts.advantage, parts.normalization) == (row.advantages[0], row.normalizations[0])
    assert (parts.clip_low, parts.clip_high) == (row.clip or (None, 0.0))
    assert (parts.critic is not None) == (name == "ppo")
    for advantage in row.advantages:
        for normalization in row.normalizations:
            given = LossConfig(algorithm=name, advantage=advantage, normalization=normalization).resolved()
            assert (given.advantage, given.normalization) == (advantage, normalization)


def test_an_algorithms_own_kl_can_be_switched_off():
    assert LossConfig(algorithm="reinforce_pp").resolved().kl == KLConfig(coef=0.01, estimator="k1", placement="reward")
    assert LossConfig(algorithm="reinforce_pp", kl=KLConfig(coef=0)).resolved().kl is None


@pytest.mark.parametrize(
    ("loss", "name", "expected"),
    [
        ({"algorithm": "dapo"}, None, "dynamic"),
        ({"algorithm": "dapo"}, "uniform", "uniform"),
        ({"algorithm": "dapo", "advantage": "group_global_std"}, None, "uniform"),
        ({"algorithm": "grpo"}, None, "uniform"),
        ({"algorithm": "grpo"}, "prioritized", "prioritized"),
    ],
)
def test_dapo_samples_dynamically_unless_the_recipe_says_otherwise(loss, name, expected):
    config = RLConfig(steps=1, loss=LossConfig(**loss), task_sampler=TaskSamplerConfig(name=name))
    assert config.decided_task_sampler.name == expected
