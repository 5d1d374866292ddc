"""Which rank learns from which samples: every sample once, about as many tokens each, groups whole where they fit."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rl_helpers import new_id

from rewards.types import Task
from rl.learner.balanced_shares import balanced_shares
from rl.types import Sample
from rollouts.patches import Patches
from rollouts.types import Prompt


def group(prompt_tokens, lengths):
    prompt = Prompt(
        id=new_id(),
        task=Task(id="t", source="s", question="?", answer="1"),
        input_ids=np.zeros(prompt_tokens, np.int64),
        patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )
    return [
        Sample(
            id=new_id(),
            prompt=prompt,
            token_ids=np.zeros(n, np.int64),
            old_logprobs=np.zeros(n, np.float32),
            advantage=1.0,
        )
        for n in lengths
    ]


def packed(samples):
    prompts = {id(s.prompt): len(s.prompt.input_ids) for s in samples}
    return sum(prompts.values()) + sum(len(s.token_ids) - 1 for s in samples)


GROUPS = st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(1, 90), min_size=1, max_size=6)), max_size=8)


@given(groups=GROUPS, ranks=st.integers(1, 5), budget=st.integers(1, 400))
def test_every_sample_once_and_evenly(groups, ranks, budget):
    samples = [sample for g in groups for sample in group(*g)]
    shares = balanced_shares(samples, ranks=ranks, budget=budget)
    assert len(shares) == ranks
    given = Counter(id(s) for share in shares for part in share for s in part)
    assert given == Counter(id(s) for s in samples)
    assert all(packed(part) <= budget or len(part) == 1 for share in shares for part in share)
    if samples:
        every = [[s for part in share for s in part] for share in shares]
        longest = max(len(s.token_ids) + len(s.prompt.input_ids) for s in samples)
        fair = packed(samples) / ranks
        # Given out longest first, a rank's load passes the fair share by less than one piece; cutting repeats prompts.
        repeated = sum(map(packed, every)) - packed(samples)
        assert max(map(packed, every)) <= fair + repeated + max(fair + 1, longest) + longest
    assert shares == balanced_shares(samples, ranks=ranks, budget=budget)


def test_groups_stay_whole_where_they_fit():
    samples = [s for _ in range(8) for s in group(10, [6, 6, 6])]
    shares = balanced_shares(samples, ranks=4, budget=1000)
    assert [packed([s for part in share for s in part]) for share in shares] == [50] * 4
    owners = {id(s.prompt): rank for rank, share in enumerate(shares) for part in share for s in part}
    assert all(owners[id(s.prompt)] == r for r, share in enumerate(shares) for part in share for s in part)


@pytest.mark.parametrize(("ranks", "most"), [(2, 36), (4, 20)])
def test_a_lone_group_is_cut_so_that_no_rank_waits(ranks, most):
    """4 tokens of prompt and eight responses of 9: 4 + 8 x 8 packed tokens."""
    shares = balanced_shares(group(4, [9] * 8), ranks=ranks, budget=1000)
    assert [packed([s for part in share for s in part]) for share in shares] == [most] * ranks


def test_no_samples_make_empty_shares():
    assert balanced_shares([], ranks=3, budget=10) == [[], [], []]
