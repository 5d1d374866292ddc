"""The calculator of docs/scaling.md: counts by hand, what holds for every number of cards, and the page's tables."""

import runpy

import pytest

from rl.plan import memory, roofline
from rl.plan.hardware import GPUS
from rl.plan.scaling import (
    StepWork,
    best_split,
    engine_cards,
    exchanged_bytes,
    expert_break_even,
    gathered_bytes,
    shards_needed,
)

WORK = StepWork()


@pytest.fixture(scope="module")
def script(root_folder):
    return runpy.run_path(str(root_folder / "benchmarks" / "scaling.py"))


@pytest.fixture(scope="module")
def root_folder(request):
    return request.config.rootpath


@pytest.fixture(scope="module")
def a3b(script):
    return script["sizes_of"](script["A3B"])


@pytest.fixture(scope="module")
def k25(script):
    return script["sizes_of"](script["K25"])


def test_the_larger_model_has_the_published_numbers_of_parameters(k25):
    p = roofline.products(k25.config)
    assert k25.parameters == pytest.approx(1.03e12, rel=0.01)  # Kimi K2: 1.04 trillion, 32 billion active
    assert p.active + p.head == pytest.approx(32e9, rel=0.03)


def test_cards_of_an_engine(a3b, k25):
    """85 % of a card, 30 % of that for the cache: 50.9 GB of an H100 and 89.7 GB of an H200 for weights."""
    assert engine_cards(a3b, GPUS["h100"]) == 1  # 32.8 GB
    assert engine_cards(k25, GPUS["h100"]) == 64  # 2,054 GB / 50.9 = 40.4
    assert engine_cards(k25, GPUS["h200"]) == 32  # 2,054 GB / 89.7 = 22.9


def test_one_copy_of_the_learner_is_the_smallest_that_fits(a3b, k25):
    """Ten bytes a parameter: weights 2, gradients summed in fp32 4, moments 4."""
    assert shards_needed(a3b, GPUS["h100"], WORK) == (4, 1)  # 41 GB each, 82 on two
    assert shards_needed(a3b, GPUS["h200"], WORK) == (2, 1)  # 82 GB each, 164 on one
    shards, experts = shards_needed(k25, GPUS["h200"], WORK)
    assert experts > 1  # a layer and its gradient are 170 GB
    assert 10 * k25.parameters / shards < GPUS["h200"].memory < 20 * k25.parameters / shards + 80e9


def test_a_step_on_sixteen_cards_by_hand(a3b):
    """8,192 x 8,192 and 512 x 1,200 tokens, 6 operations a parameter and token at 8 % of 989 TFLOP/s a card."""
    split = best_split(a3b, GPUS["h100"], 16, WORK)
    p = roofline.products(a3b.config)
    tokens = 8192 * 8192 + 512 * 1200
    assert split.compute == pytest.approx(6 * (p.active + p.head) * tokens / (989e12 * 0.08 * split.learner))
    assert (split.learner, split.shards, split.engine) == (8, 4, 1)
    passes = -(-tokens // (33_968 * 8))  # micro-batches of a card: weights twice, gradients once, a quarter is its own
    moved = passes * (2 + 2 + 4) * a3b.parameters * 3 / 4 / 450e9 + 2 * 4 * a3b.parameters / 4 / 50e9
    assert split.traffic == pytest.approx(moved)
    assert split.sync == pytest.approx(2 * a3b.parameters / 8.25e9)
    assert split.step == pytest.approx(max(split.compute, split.decode + split.tail) + split.sync)


def test_experts_exchange_hidden_states_there_and_back_three_times(k25):
    assert exchanged_bytes(k25, 1000) == 3 * 2 * 1000 * 8 * 7168 * 2 * 60


def test_where_expert_parallelism_moves_fewer_bytes(a3b, k25, root_folder):
    """26 layers of 64 experts of 3 x 2,048 x 1,408 numbers, against 6 of them for each token, there and back."""
    experts, token = 26 * 64 * 3 * 2048 * 1408, 3 * 2 * 6 * 2048 * 2 * 26
    assert gathered_bytes(experts) == (2 + 2 + 4) * experts == pytest.approx(115e9, rel=0.01)
    assert exchanged_bytes(a3b, 1) == token == pytest.approx(3.8e6, rel=0.01)
    assert expert_break_even(a3b) == 8 * experts / token
    page = (root_folder / "docs" / "scaling.md").read_text(encoding="utf-8")
    for sizes in (a3b, k25):
        assert f"at {expert_break_even(sizes):,.0f} tokens" in page


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_more_cards_are_never_slower_and_everything_fits(a3b, gpu):
    found = [split for power in range(11) if (split := best_split(a3b, GPUS[gpu], 2**power, WORK))]
    assert len(found) >= 8
    assert [s.step for s in found] == sorted((s.step for s in found), reverse=True)
    for split in found:
        assert split.learner % split.shards == 0
        assert split.cards == 1 or split.learner + split.engine <= split.cards
        assert split.learner_bytes < GPUS[gpu].memory
        assert split.tail == found[-1].tail  # no card shortens the longest completion


def test_too_few_cards_have_no_split(a3b, k25):
    assert best_split(a3b, GPUS["h100"], 1, WORK) is None
    assert best_split(k25, GPUS["h200"], 128, WORK) is None
    assert best_split(k25, GPUS["h200"], 1, WORK) is None


def test_the_limit_is_the_part_that_more_cards_must_shorten(a3b):
    long = StepWork(completions=16, answer=1024, longest=32768)
    assert best_split(a3b, GPUS["h200"], 64, long).limit == "longest completion"
    assert best_split(a3b, GPUS["h200"], 4, WORK).limit == "learner's operations"


def test_dividing_experts_leaves_room_for_a_layer(k25):
    from rl.plan.scaling import _learner

    whole, divided = _learner(k25, WORK, 256, 1), _learner(k25, WORK, 256, 32)
    assert whole["units"] > 25 * divided["units"]
    assert memory.total(divided) < memory.total(whole)


def test_the_page_has_the_tables_of_today(script, root_folder):
    page = (root_folder / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert script["render"](page) == page, "run python benchmarks/scaling.py --write"
