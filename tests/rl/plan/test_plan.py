"""Counts computed by hand for Kimi-VL-A3B, what fits and what does not, and that every recipe can be planned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import configs
from configs.errors import UserError
from configs.load import load_recipe
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from rl.cli.plan import PlanOptions, as_json, cluster_of
from rl.plan import memory
from rl.plan.changes import smallest_change
from rl.plan.data_check import check_data
from rl.plan.hardware import GPUS, Cluster, gpu_named
from rl.plan.placement import place
from rl.plan.plan import make_plan
from rl.plan.sizes import config_of, measure_sizes
from rl.plan.workloads import training_of

RECIPES = Path(configs.__file__).parent / "recipes"
A3B = ModelConfig(path="moonshotai/Kimi-VL-A3B-Instruct", dtype="bfloat16")
PARAMETERS = 16_407_656_048  # what the hub's own code prints


@pytest.fixture(scope="module")
def sizes():
    return measure_sizes(config_of(A3B), A3B)


def test_parameters_of_kimi_vl_by_hand(sizes):
    assert sizes.parameters == PARAMETERS
    assert sizes.trained == PARAMETERS - 26 * 64  # the routers' biases are buffers
    assert sizes.vision == 416_866_032 + 30_679_808
    assert sizes.largest_tensor == 64 * 2816 * 2048  # gate and up of all experts of a layer


def test_a_cached_token_of_latent_attention_by_hand(sizes):
    assert memory.kv_bytes(sizes, 1, "bfloat16") == 27 * (512 + 64) * 2 == 31_104
    assert memory.kv_bytes(sizes, 131_072, "bfloat16") == pytest.approx(4.08e9, rel=0.01)


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [
        (OptimizerConfig(), 2 * 2),
        (OptimizerConfig(state="bfloat16"), 2 * 2),
        (OptimizerConfig(state="float32"), 2 * 4),
        (OptimizerConfig(state="8bit"), 2 * (1 + 4 / 256)),
    ],
)
def test_moments_of_adamw(sizes, optimizer, bytes_each):
    training = memory.Training(sizes=sizes, dtype="bfloat16", optimizer=optimizer)
    assert memory.moments_bytes(training) == bytes_each * sizes.trained


def test_muon_keeps_one_momentum_of_its_matrices(sizes):
    training = memory.Training(sizes=sizes, dtype="bfloat16", optimizer=OptimizerConfig(name="muon"))
    assert memory.moments_bytes(training) == 2 * sizes.matrices + 4 * (sizes.trained - sizes.matrices)


def test_shards_are_equal_parts_and_whole_units_are_not(sizes):
    load = memory.Workload(tokens=1024, predicted=1024)
    alone, eight = (
        memory.learner_bytes(
            memory.Training(sizes=sizes, dtype="bfloat16", optimizer=OptimizerConfig(), shards=ranks), load
        )
        for ranks in (1, 8)
    )
    for part in ("weights", "gradients", "moments"):
        assert alone[part] == 8 * eight[part]
    assert eight["units"] == 2 * 2 * 584_847_872 + 584_847_872 * (2 + 4)
    assert "units" not in alone


def test_replicas_divide_the_weights_among_fewer_ranks(sizes):
    def of(rows=2, **mesh):
        training = memory.Training(sizes=sizes, dtype="bfloat16", optimizer=OptimizerConfig(), **mesh)
        return memory.learner_bytes(training, memory.Workload(tokens=1024, predicted=1024, rows=rows))

    assert of(shards=8, replicas=4) == of(shards=8)
    assert of(shards=8, replicas=4)["gradients"] == 4 * sizes.trained / 8, "summed over rows in fp32"
    assert of(shards=8, replicas=4, rows=1)["gradients"] == 2 * sizes.trained / 8


def test_shared_rows_have_a_part_of_the_activations(sizes):
    config = load_recipe(RECIPES / "kimi_vl_a3b" / "8xh100.yaml", ["rl.ranks.sequence=4"])
    stage = next(s for s in config.trained_stages if s.name == "rl")
    training = training_of(config, stage, sizes)
    assert (training.shards, training.sequence) == (4, 4)
    load = memory.Workload(tokens=65_536, predicted=65_536)
    shared = memory.learner_bytes(training, load)
    parts = memory.learner_bytes(replace(training, sequence=1), memory.Workload(tokens=16_384, predicted=16_384))
    assert shared == parts | {"rows": 4 * 65_536 * 2048 * 2}


def test_adapters_are_the_only_trained_parameters_and_float32():
    lora = ModelConfig(path=A3B.path, dtype="bfloat16", lora=LoraConfig(rank=8, targets=("attention",)))
    found = measure_sizes(config_of(lora), lora)
    layer = 8 * ((2048 + 3072) + (2048 + 576) + (512 + 4096) + (2048 + 2048))  # q, kv_a, kv_b and o
    assert found.adapters == found.trained == 27 * layer
    training = memory.Training(sizes=found, dtype="bfloat16", optimizer=OptimizerConfig())
    assert memory.moments_bytes(training) == 8 * found.adapters
    parts = memory.learner_bytes(training, memory.Workload(tokens=1024, predicted=1024))
    assert parts["gradients"] == 4 * found.adapters


def test_a_weight_sync_travels_in_the_engines_type(sizes):
    layer = 2 * sizes.largest_unit
    assert layer == pytest.approx(1.17e9, rel=0.01), "more than the 512 MiB that fill a bucket"
    assert memory.sync_bytes(sizes, "bfloat16") == {"three buckets": 3 * layer, "object store": 2 * PARAMETERS}
    assert memory.sync_bytes(sizes, "float32") == {"three buckets": 6 * layer, "object store": 4 * PARAMETERS}


@pytest.mark.parametrize(
    ("cards", "workers", "ranks", "share", "beside"),
    [(1, 1, 1, 0.5, 1), (2, 1, 1, 1.0, 0), (2, 2, 1, 2 / 3, 1), (8, 4, 4, 1.0, 0)],
)
def test_workers_and_learner_share_cards_as_a_run_does(cards, workers, ranks, share, beside):
    config = load_recipe(RECIPES / "quickstart.yaml", [f"rl.workers={workers}", f"rl.ranks.count={ranks}"])
    found = place(config, Cluster(gpu=GPUS["h100"], gpus=cards))
    assert (found.worker_share, found.workers_beside, found.missing) == (share, beside, 0)


def test_cards_that_are_missing_are_a_problem():
    config = load_recipe(RECIPES / "kimi_vl_a3b" / "8xh100.yaml")
    plan = make_plan(config, Cluster(gpu=GPUS["h100"], gpus=6))
    assert plan.problems == ["4 workers and 4 ranks need 8 cards, and there are 6"]


CARDS = {
    "h200_lora": ("h200", 1, 1),
    "rtx4090_qlora": ("rtx4090", 1, 1),
    "8xh100": ("h100", 8, 1),
    "4x8xh100": ("h100", 8, 4),
    "pretraining": ("h100", 8, 8),
}


@pytest.mark.parametrize("name", CARDS)
def test_the_recipes_of_the_published_size_fit(name):
    gpu, gpus, nodes = CARDS[name]
    config = load_recipe(RECIPES / "kimi_vl_a3b" / f"{name}.yaml")
    plan = make_plan(config, Cluster(gpu=GPUS[gpu], gpus=gpus, nodes=nodes))
    assert plan.problems == []
    assert plan.cached > plan.context or not plan.placement.workers


def test_a_base_in_4_bits_by_hand():
    config = load_recipe(RECIPES / "kimi_vl_a3b" / "rtx4090_qlora.yaml")
    cluster = Cluster(gpu=GPUS["rtx4090"], gpus=1)
    plan = make_plan(config, cluster)
    attention = 16 * 192 * 2048 + 576 * 2048 + 16 * 256 * 512 + 16 * 128 * 2048
    packed = 27 * attention + 3 * 2048 * 11264 + 26 * 66 * 3 * 2048 * 1408
    assert plan.sizes.quantized == packed == 15_285_485_568
    rest, adapters = PARAMETERS - packed, plan.sizes.adapters
    parts = plan.stages[0].learner.parts
    assert parts["weights"] == packed / 2 + packed / 64 + packed / 64 / 256 * 4 + 2 * rest + 4 * adapters
    assert parts["unpacked"] == 64 * 2816 * 2048 * 2
    assert 17e9 < plan.stages[0].learner.used < 18e9
    whole = replace(config, model=replace(config.model, lora=replace(config.model.lora, quantization=None)))
    assert make_plan(whole, cluster).problems[0].startswith("long_cot: learner: 39.6 GB of 23.8 GB")
    found = smallest_change(whole, cluster, lambda changed: make_plan(changed, cluster))
    assert found is not None
    assert found[0] == ("model.lora.quantization=nf4",)


def test_a_run_that_generates_nothing_has_no_workers():
    """Without an evaluation; RL, and stages that sample or search, need them all the same."""
    found = {}
    for kind in ("sft, steps: 1", "rl, steps: 1", "long2short, method: dpo"):
        for tasks in (0, 5):
            changes = [f"stages=[{{kind: {kind}}}]", f"evaluation.tasks={tasks}"]
            config = load_recipe(RECIPES / "quickstart.yaml", changes)
            plan = make_plan(config, Cluster(gpu=GPUS["h100"], gpus=1))
            printed = as_json(plan, None, [])
            assert (printed["worker"] is None) == (plan.placement.workers == 0)
            found[kind.partition(",")[0], tasks] = bool(plan.placement.workers)
    assert [key for key, workers in found.items() if not workers] == [("sft", 0)]


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_planned(path):
    config = load_recipe(path)
    plan = make_plan(config, cluster_of(config, PlanOptions(gpu="h200")))
    assert [stage.name for stage in plan.stages] == [stage.name for stage in config.trained_stages]
    printed = json.loads(json.dumps(as_json(plan, None, [])))
    assert [stage["steps"] for stage in printed["stages"]] == [stage.steps for stage in config.trained_stages]


def test_prompts_times_samples_are_sequences():
    config = load_recipe(RECIPES / "kimi_vl_a3b" / "8xh100.yaml")
    stage = make_plan(config, Cluster(gpu=GPUS["h100"], gpus=8), answer=1000).stages[-1]
    assert (stage.counts.prompts, stage.counts.sequences) == (300 * 64, 300 * 64 * 8)
    assert stage.counts.optimizer_steps == 300 * 4
    assert stage.counts.tokens == 64 * (1200 + 8 * 1000)


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (["model.gradient_checkpointing=false"], "model.gradient_checkpointing=true"),
        (["rl.micro_batch_tokens=262144"], "rl.micro_batch_tokens=20480"),
        (["rl.ranks.replicas=4"], "rl.ranks.replicas=1"),
    ],
)
def test_the_smallest_change_is_named_and_fits(overrides, first):
    path, cluster = RECIPES / "kimi_vl_a3b" / "8xh100.yaml", Cluster(gpu=GPUS["h100"], gpus=8)
    config = load_recipe(path, overrides)
    assert make_plan(config, cluster).problems
    found = smallest_change(config, cluster, lambda changed: make_plan(changed, cluster))
    assert found is not None
    assert first in found[0]
    assert not make_plan(load_recipe(path, [*overrides, *found[0]]), cluster).problems


def test_engines_that_sleep_leave_their_memory_to_the_learner():
    """On one H200: the learner's limit, what both hold while the engines generate, and what asks for it."""
    path, cluster = RECIPES / "kimi_vl_a3b" / "h200_lora.yaml", Cluster(gpu=GPUS["h200"], gpus=1)
    apart, turns = (
        make_plan(load_recipe(path, [f"rl.colocate={turn}"]), cluster).stages[-1] for turn in ("false", "true")
    )
    share = cluster.gpu.memory * 0.85 / 2
    assert apart.rollouts is None
    assert turns.rollouts is not None
    assert apart.learner.capacity == pytest.approx(cluster.gpu.memory - 2e9 - share)
    assert turns.learner.capacity == pytest.approx(cluster.gpu.memory - 2e9 - 2e9)
    assert set(turns.rollouts.parts) == {"weights", "moments", "engines"}
    assert turns.rollouts.parts["engines"] == pytest.approx(share)
    assert turns.rollouts.used < turns.rollouts.capacity == cluster.gpu.memory - 2e9


def test_an_engine_that_is_too_large_beside_the_waiting_learner_is_a_problem():
    path, cluster = RECIPES / "kimi_vl_a3b" / "h200_lora.yaml", Cluster(gpu=GPUS["h200"], gpus=1)
    options = ["rl.colocate=true", "rl.engine_options={gpu_memory_utilization: 0.8}"]
    found = make_plan(load_recipe(path, options), cluster).problems
    assert [line.partition(":")[0] for line in found] == ["long_cot", "rl"]  # the first has no turns
    assert "learner and engines" in found[1]


def test_turns_are_named_where_they_make_it_fit():
    path, cluster = RECIPES / "kimi_vl_a3b" / "h200_lora.yaml", Cluster(gpu=GPUS["h200"], gpus=1)
    long = ["rl.sampling.max_new_tokens=98304", "rl.micro_batch_tokens=102400"]
    config = load_recipe(path, [*long, "rl.engine_options={gpu_memory_utilization: 0.55}"])
    assert make_plan(config, cluster).problems
    found = smallest_change(config, cluster, lambda changed: make_plan(changed, cluster))
    assert found is not None
    assert found[0] == ("rl.colocate=true",)


def test_an_engine_on_two_cards_has_half_of_the_weights_on_each(sizes):
    """The latent cache has one head, so each card holds all of it."""
    path, cluster = RECIPES / "kimi_vl_a3b" / "8xh100.yaml", Cluster(gpu=GPUS["h100"], gpus=8)
    whole, split = (
        make_plan(
            load_recipe(path, [f"rl.workers={workers}", f"rl.engine_options={{tensor_parallel_size: {size}}}"]), cluster
        )
        for workers, size in ((4, 1), (2, 2))
    )
    assert (split.problems, split.placement.map) == ([], ["node 0: ranks 0-3, workers 0-1"])
    assert split.worker.parts["weights"] == whole.worker.parts["weights"] / 2 == sizes.parameters
    assert split.worker.capacity == whole.worker.capacity
    gained = (split.cached - whole.cached) * memory.kv_bytes(sizes, 1, "bfloat16")
    assert gained == pytest.approx(sizes.parameters, rel=1e-4)
    two = ["rl.engine_options={tensor_parallel_size: 2}"]
    short = make_plan(load_recipe(path, two), cluster)
    assert short.problems == ["4 workers of 2 cards and 4 ranks need 12 cards, and there are 8"]
    found = smallest_change(load_recipe(path, two), cluster, lambda changed: make_plan(changed, cluster))
    assert found is not None
    assert not found[1].problems


def test_unknown_cards_and_models_say_what_there_is():
    with pytest.raises(UserError, match=r"--gpu b300: unknown; did you mean h200 or h100"):
        gpu_named("b300")
    with pytest.raises(UserError, match=r"--gpus 0: must be 1 or more"):
        Cluster(gpu=GPUS["h100"], gpus=0)
    with pytest.raises(UserError, match=r"'some/model': its sizes are not known here; must be tiny, a folder, or one"):
        config_of(ModelConfig(path="some/model"))


def test_data_that_is_here_is_read_and_data_of_the_hub_is_named(tmp_path):
    row = {"question": "1 + 1?", "answer": "2"}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for _ in range(2)) + "\n{}\n", encoding="utf-8")
    config = load_recipe(
        RECIPES / "quickstart.yaml",
        ["data.train=[{use: rows.jsonl}, {use: some/set}, {use: gone.jsonl}]", "stages=[{kind: rl, steps: 1}]"],
    )
    found = [(f.source, f.problem, f.text) for f in check_data(config, base=tmp_path)]
    assert ("some/set", False, "on the Hub: not read") in found
    texts = " / ".join(text for _, problem, text in found if problem)
    assert "2 x duplicate" not in texts
    assert "1 x duplicate" in texts
    assert "gone.jsonl: no such file" in texts
    assert "question is" in texts


@pytest.mark.parametrize(
    ("row", "dtype", "optimizer"),
    [
        ("`dtype: bfloat16`, AdamW:", "bfloat16", OptimizerConfig()),
        ("`dtype: bfloat16`, Muon:", "bfloat16", OptimizerConfig(name="muon")),
        ("`dtype: float32`, with or without", "float32", OptimizerConfig()),
    ],
)
def test_the_table_of_the_docs_is_what_is_counted(sizes, row, dtype, optimizer):
    page = (Path(__file__).parents[3] / "docs" / "scaling.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith(f"| {row}")]
    counted = []
    for ranks in (1, 2, 4, 8, 16):
        training = memory.Training(sizes=sizes, dtype=dtype, optimizer=optimizer, shards=ranks)
        parts = memory.learner_bytes(training, memory.Workload(tokens=1, predicted=1))
        counted.append(f"{(parts['weights'] + parts['gradients'] + parts['moments']) / 1e9:.0f}")
    assert [cell.strip() for cell in line.split("|")[3:8]] == counted
