"""Kinds of prompts, balance of tags and levels, and patterns of thinking, against hand-made cases and numbers."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.types import Task
from rl.curation.balance import LEVELS, Candidate, cap_levels, cap_tags, level_cap
from rl.curation.kinds import kind_of
from rollouts.thinking_patterns import PATTERNS, count_patterns, shows_patterns


@pytest.mark.parametrize(
    ("question", "answer", "more", "kind"),
    [
        ("Which one?", "A", {"choices": ("1", "2")}, "multiple_choice"),
        ("Which one?", "B", {"verifier": "choice"}, "multiple_choice"),
        ("Which? (A) one (B) two (C) three", "C", {}, "multiple_choice"),
        ("哪个? A、一 B、二 C、三", "B", {}, "multiple_choice"),
        ("Points A. B. and C. are given. Name the centre.", "O", {}, "open"),
        ("In triangle ABC, which vertex is right-angled?", "C", {}, "open"),
        ("Is it red?", "Yes.", {}, "true_false"),
        ("Is it red?", "1", {"verifier": "yesno"}, "true_false"),
        ("True or false: 7 is prime", "1", {}, "true_false"),
        ("图中是圆吗?", "是", {}, "true_false"),
        ("Prove that the sum is even.", "2n", {}, "proof"),
        ("Let n be odd. Show that n^2 is odd.", "done", {}, "proof"),
        ("证明三角形ABC是等边三角形", "见解析", {}, "proof"),
        ("What does the chart show that grew most?", "coal", {}, "open"),
        ("How many improved?", "4", {}, "open"),
        ("What is 3+4?", "7", {}, "open"),
    ],
)
def test_kinds(question, answer, more, kind):
    assert kind_of(Task(id="t", source="s", question=question, answer=answer, **more)) == kind


def candidates(*rows):
    return [Candidate(key=f"{tag}{i}", tags=(tag,), pass_rate=rate) for i, (tag, rate) in enumerate(rows)]


def test_levels_are_fifths_of_the_pass_rate():
    rates = {0.0: 0, 0.1: 0, 0.2: 1, 0.3: 1, 0.6: 3, 0.7: 3, 0.8: 4, 1.0: 4}
    found = {rate: Candidate(key="", tags=(), pass_rate=rate).level for rate in rates}
    assert found == rates
    assert len(LEVELS) == 5


class TestTags:
    def test_a_tag_keeps_at_most_so_many(self):
        pool = candidates(*[("a", 0.5)] * 7, *[("b", 0.5)] * 2)
        kept = cap_tags(pool, caps={"": 3}, seed=0)
        assert Counter(key[0] for key in kept) == {"a": 3, "b": 2}
        assert Counter(key[0] for key in cap_tags(pool, caps={"": 3, "a": 5}, seed=0)) == {"a": 5, "b": 2}
        assert Counter(key[0] for key in cap_tags(pool, caps={"b": 1}, seed=0)) == {"a": 7, "b": 1}

    def test_levels_take_turns(self):
        pool = candidates(*[("a", 0.9)] * 50, *[("a", 0.1)] * 3)
        kept = cap_tags(pool, caps={"": 6}, seed=1)
        assert Counter(c.pass_rate for c in pool if c.key in kept) == {0.9: 3, 0.1: 3}

    def test_every_tag_needs_room(self):
        pool = [Candidate(key=str(i), tags=("x", "y") if i < 4 else ("y",), pass_rate=0.5) for i in range(8)]
        kept = cap_tags(pool, caps={"": 2, "y": 5}, seed=0)
        assert sum(int(key) < 4 for key in kept) <= 2
        assert len(kept) == 5

    def test_the_seed_decides_and_the_order_does_not(self):
        pool = candidates(*[("a", 0.5)] * 30)
        assert cap_tags(pool, caps={"": 9}, seed=3) == cap_tags(pool[::-1], caps={"": 9}, seed=3)
        assert cap_tags(pool, caps={"": 9}, seed=3) != cap_tags(pool, caps={"": 9}, seed=4)


class TestLevels:
    @pytest.mark.parametrize(
        ("sizes", "share", "most"),
        [
            ((10, 10), 0.5, 10),
            ((30, 10), 0.5, 10),
            ((30, 10), 0.75, 30),
            ((90, 10, 10), 0.5, 20),
            ((100, 4, 3), 0.5, 7),
            ((8, 5, 2), 0.1, 2),  # three levels cannot each have a tenth
            ((6,), 0.4, 6),
            ((), 0.4, 0),
            ((5, 5), 1.0, 5),
        ],
    )
    def test_the_cap_by_hand(self, sizes, share, most):
        assert level_cap(sizes, share) == most

    def test_no_level_has_more_than_its_share(self):
        pool = candidates(*[("a", 0.9)] * 90, *[("a", 0.5)] * 10, *[("a", 0.1)] * 10)
        kept = cap_levels(pool, share=0.5, seed=0)
        assert Counter(c.pass_rate for c in pool if c.key in kept) == {0.9: 20, 0.5: 10, 0.1: 10}


WORDS = [word for words in PATTERNS.values() for word in words]
PIECES = [*WORDS, *map(str.upper, WORDS), *(word[:-1] for word in WORDS), *" _aé²7٣.,:'’\n首\u0301"]


class TestPatterns:
    def test_words_of_each_pattern_in_two_languages(self):
        english = "First, I add. Wait, that's wrong. Let me check: 7. Alternatively, suppose it is 8. Wait."
        assert count_patterns(english) == {"planning": 1, "evaluation": 1, "reflection": 3, "exploration": 2}
        chinese = "首先看图。等等，不对。我们验算一下。换一种方法试试。"
        assert count_patterns(chinese) == {"planning": 1, "evaluation": 1, "reflection": 2, "exploration": 2}

    def test_parts_of_words_do_not_count(self):
        assert not any(count_patterns("The waiter is supposed to await the headfirst, and 7+4=11").values())

    @given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
    def test_a_pattern_is_shown_where_its_words_are_counted(self, text):
        assert shows_patterns(text) == {name: count > 0 for name, count in count_patterns(text).items()}

    def test_every_pattern_has_words_of_both_languages(self):
        for words in PATTERNS.values():
            assert any(word.isascii() for word in words)
            assert any(not word.isascii() for word in words)
            assert len(set(words)) == len(words)
            assert all(word == word.casefold() for word in words)

    def test_the_page_lists_every_word(self):
        page = " ".join((Path(__file__).parents[3] / "docs" / "curation.md").read_text(encoding="utf-8").split())
        missing = [
            word for words in PATTERNS.values() for word in words if not re.search(rf"[ :]{re.escape(word)}[;.]", page)
        ]
        assert not missing
