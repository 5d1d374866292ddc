"""rl/metrics_table.py declares exactly the metrics that the code writes; docs/metrics.md is generated from it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from rl_helpers import build_model, make_learner, make_prompt, make_samples, make_scored

from configs.algorithms import KLConfig, LossConfig
from configs.correction import CorrectionConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rl import RLConfig
from rl import metrics_table
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig
from rl.metrics_table import undeclared
from rl.plan.sizes import measure_sizes
from rl.run.evaluate import EvalResult
from rl.samples import make_samples as samples_of
from rl.samples import sample_metrics
from rl.step_metrics import StepRollouts, Stopwatch, step_metrics
from rl.throughput import ModelWork, Throughput, supervised_passes
from rl.throughput_table import SPEED
from rl.token_accounting import discarded_metrics
from rollouts.resource_use import CacheUse, EngineUse, PoolUse, ProcessUse, memory_metrics, process_use
from rollouts.sources.group_building import group_metrics, make_groups
from rollouts.sources.source import SourceReport
from rollouts.sources.staleness import staleness_metrics

ROOT = Path(__file__).parents[2]


def declared(metrics):
    """Names of a table, with placeholders such as SOURCE as they are."""
    return sorted(metric.name for metric in metrics)


def general(names, *, sources=(), parts=()):
    """Names with the source's and the part's own name replaced by the table's placeholders."""
    found = set()
    for name in names:
        head, _, tail = name.partition("/")
        found.add(f"{head}/SOURCE" if tail in sources else f"{head}/PART" if tail in parts else name)
    return found


def all_of_a_card(model):
    """What `rl/throughput.py` writes where learner and workers compute on a known card."""
    card = ProcessUse(device="NVIDIA H100 80GB HBM3", memory=1, cuda_memory=1)
    engine = EngineUse(busy=0.5, cache=CacheUse(full=0.5, prompt_tokens=2, computed_tokens=1))
    use = PoolUse(seconds=1.0, workers=1, gpus=1.0, engines=[engine], processes=[card])
    sizes = measure_sizes(model.config, ModelConfig(path="tiny"))
    speed = Throughput(work=ModelWork(sizes=sizes, passes=supervised_passes(sizes)))
    scored = make_scored(make_prompt(np.random.default_rng(0), model), 1.0)
    samples = make_samples(np.random.default_rng(0), model)
    found = speed.learner(samples, 1.0, [card]) | speed.rollouts([[scored]], 1.0, use) | use.metrics()
    return set(found) | set(memory_metrics("driver", [process_use("cpu")]))


RECIPES = [  # between them, all that an algorithm can write
    LossConfig(algorithm="kimi_k15", balance_coef=0.1),
    LossConfig(algorithm="grpo", correction=CorrectionConfig(), sft_coef=0.1),
    LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1)),
]


def test_the_table_declares_what_the_rl_stage_writes(rng, model):
    prompt = make_prompt(rng, model, source="sums")
    groups = make_groups([prompt], [[make_scored(prompt, r, parts={"verifier": r}) for r in (1.0, 0.0)]])
    written = general(group_metrics(groups, RLConfig(steps=1)), sources=["sums"], parts=["verifier"])
    for loss in RECIPES:
        learner, config = make_learner(model, loss=loss), RLConfig(steps=1, loss=loss)
        samples = samples_of(groups, config, learner.model_outputs(groups))
        written |= set(sample_metrics(samples)) | set(learner.update(samples))
    loop = (ROOT / "rl" / "step.py").read_text(encoding="utf-8")
    written |= {f"seconds/{name}" for name in re.findall(r'watch\.phase\("(\w+)"\)', loop)}
    assert '"version": ' in loop
    written |= set(Stopwatch().metrics()) | all_of_a_card(model)
    rollouts = StepRollouts(groups=tuple(groups), scored=((),), report=SourceReport(skipped={"too long": 1}))
    assert {"skipped/too long", "skipped/quarantine"} <= step_metrics(rollouts, [], RLConfig(steps=1)).keys()
    for file in (
        "rollouts/tasks/success_rates.py",
        "rollouts/tasks/task_samplers.py",
        "rollouts/workers/pool.py",
        "rl/weight_sync.py",
    ):
        code = (ROOT / file).read_text(encoding="utf-8")
        written |= set(re.findall(r'"((?:task_sampler|workers)/\w+|parity_gap|publish_gb_per_second)":', code))
    for file, names in (
        ("rollouts/sources/partial", r'"(partial/\w+)"'),
        ("rl/learner/router_replay", r'"(experts/flipped)"'),
    ):
        code = (ROOT / f"{file}.py").read_text(encoding="utf-8")
        written |= set(re.findall(names, code))
    written |= set(sample_metrics([replace(s, mask=np.arange(len(s.token_ids)) > 0) for s in samples]))
    written = {re.sub("^patterns/.*", "patterns/PATTERN", name) for name in written}
    written |= {f"workers/{kind}s" for kind in ("death", "exception", "hang")}
    written |= set(discarded_metrics([], [], {"stale": 1}))
    ages = [make_scored(prompt, 1.0).rollout.completion]  # of version 0
    written |= {re.sub(r"/\d+", "/LAG", name) for name in staleness_metrics(ages, version=0)}
    ahead = (ROOT / "rollouts" / "sources" / "window.py").read_text(encoding="utf-8")
    written |= set(re.findall(r'"(queue/\w+)":', ahead))
    assert declared(metrics_table.RL) == sorted(written | {"skipped/REASON", "version"})


def test_the_table_declares_what_evaluation_writes():
    result = EvalResult(
        tasks=1,
        greedy_accuracy=1.0,
        sampled_accuracy=1.0,
        thinking_share=1.0,
        mean_tokens=1.0,
        truncated_share=0.0,
        verifier_failures=0,
        failure_reasons={},
        by_source={"sums": 1.0},
    )
    written = general(result.metrics(), sources=["sums"])
    assert declared(metrics_table.EVALUATION) == sorted(
        written
        | {"explained_variance", "perplexity/SOURCE"}  # with a critic: tests/rl/stages/test_rl_stage.py
        | {"before/greedy_accuracy", "before/mean_tokens"}  # tests/integration/test_long2short.py
        | {"needles/KIND", "needles/KIND/LENGTH"}  # tests/integration/test_long_context.py
        | {"before/needles/KIND", "before/needles/KIND/LENGTH"}
        | {f"{way}_{k}/SOURCE" for way in ("image_to_text", "text_to_image") for k in (1, 5)}
        | {"pairs/SOURCE", "before/RECALL/SOURCE"}  # tests/rl/stages/test_vit_stage.py
    )


def test_the_table_declares_what_the_supervised_stages_write():
    model = build_model()
    optimizer = OptimizerConfig(learning_rate=1e-3)
    config = SupervisedLearnerConfig(optimizer=optimizer, total_steps=2, balance_coef=0.1)
    written = SupervisedLearner(model, config).update(make_samples(np.random.default_rng(0), model))
    speed = {metric.name for metric in SPEED}
    assert declared(metrics_table.SUPERVISED) == sorted(general(written, sources=["made"]) | speed)


def test_names_of_sources_and_lags_are_declared_and_others_are_not():
    names = {"accuracy/org/set", "staleness/3", "reward/checks.py:f", "accuracy", "acuracy", "seconds/sleep"}
    assert undeclared(names, metrics_table.RL) == {"acuracy", "seconds/sleep"}
