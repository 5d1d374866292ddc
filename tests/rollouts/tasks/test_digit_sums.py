"""Sums of handwritten digits: right answers, honest splits, readable tiles, the same task everywhere."""

import hashlib
import io
import itertools
import random
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rollouts.tasks.arithmetic import Expression, Step
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.handwriting import TILE, scan_split, warped

SCANS = load_digits().images  # [1797, 8, 8], ink from 0 to 16


def pixels(task):
    return np.asarray(Image.open(io.BytesIO(task.images[0])))


def tiles(task):
    """Gray tiles [symbols, 28, 28], ink as high values."""
    image = 255.0 - pixels(task)
    return np.stack(np.split(image, image.shape[1] // TILE, axis=1))


class TestArithmetic:
    @pytest.mark.parametrize("count", [2, 3])
    def test_every_small_expression_equals_pythons_own_evaluation(self, count):
        for digits in itertools.product(range(10), repeat=count):
            for operators in itertools.product("+-*", repeat=count - 1):
                expression = Expression(digits=digits, operators=operators)
                assert expression.steps()[-1].result == eval(str(expression)), str(expression)

    def test_longer_expressions_equal_pythons_own_evaluation(self):
        source = DigitSums("train", scans=[4, 5, 8])
        for index in range(300):
            task = source.task(index, 3)
            assert int(task.answer) == eval(task.solution.splitlines()[0])

    @pytest.mark.parametrize(
        ("digits", "operators", "lines"),
        [
            ((7, 4, 3), "+*", ["4*3=12", "7+12=10+7+2=10+9=19"]),
            ((7, 4, 3), "*+", ["7*4=28", "28+3=20+8+3=20+11=31"]),
            ((3, 7, 2), "-+", ["3-7=-4", "-4+2=-(4-2)=-2"]),
            ((1, 2, 9), "-*", ["2*9=18", "1-18=-(18-1)=-(10+8-1)=-(10+7)=-17"]),
            ((2, 3, 4, 5), "*-*", ["2*3=6", "4*5=20", "6-20=-(20-6)=-(10+10-6)=-(10+4)=-14"]),
        ],
    )
    def test_steps_follow_precedence_and_then_the_line(self, digits, operators, lines):
        assert [step.text() for step in Expression(digits=digits, operators=tuple(operators)).steps()] == lines

    @pytest.mark.parametrize(
        ("step", "text"),
        [
            ((13, "-", 9), "13-9=4"),
            ((72, "-", 5), "72-5=60+12-5=60+7=67"),
            ((6, "+", 72), "6+72=70+6+2=70+8=78"),
            ((40, "+", 7), "40+7=40+0+7=47"),
            ((-6, "-", 7), "-6-7=-(6+7)=-13"),
            ((-6, "+", 9), "-6+9=9-6=3"),
            ((0, "-", 16), "0-16=-16"),
            ((48, "*", 4), "48*4=40*4+8*4=160+32=192"),
            ((40, "*", 4), "40*4=160"),
        ],
    )
    def test_working_breaks_a_step_into_facts_of_single_digits(self, step, text):
        left, operator, right = step
        assert Step(left=left, operator=operator, right=right).text() == text

    def test_every_term_of_every_working_has_the_steps_value(self):
        for left in range(-90, 91):
            for operator in "+-*" if left >= 0 else "+-":
                for right in range(82 if operator != "*" else 10):
                    step = Step(left=left, operator=operator, right=right)
                    assert {eval(term) for term in step.text().split("=")} == {step.result}, step.text()

    @pytest.mark.parametrize(
        ("step", "check"), [((7, "+", 12), "19-12=7"), ((3, "-", 7), "-4+7=3"), ((4, "*", 3), "3*4=12")]
    )
    def test_a_check_is_a_true_equation_of_its_own(self, step, check):
        left, operator, right = step
        assert Step(left=left, operator=operator, right=right).check() == check

    def test_difficulty_grows_with_operators_and_with_their_kind(self):
        def label(*operators):
            return Expression(digits=(1,) * (len(operators) + 1), operators=operators).difficulty

        assert 0 < label("+") < label("-") < label("*") <= label("+", "+") < label("+", "*") < label("*", "*") < 1
        assert label("*", "*", "*", "*") == 1


class TestSolutions:
    @staticmethod
    def holds(chain):
        return len({eval(term) for term in chain.split("=")}) == 1

    def check(self, task):
        """Whether the solution has a check or a slip; asserts that it reads, reasons and ends right."""
        first, *lines = task.solution.splitlines()
        assert re.fullmatch(r"\d([-+*]\d)+", first)
        assert len(lines) == len(first) // 2
        special = []
        for line in lines:
            chains = re.split(r"\. (?:check: |wait, )", line)
            if "wait" in line:
                special.append("slip")
                assert [self.holds(chain) for chain in chains] == [False, True]
            else:
                special += ["check"] * ("check" in line)
                assert all(self.holds(chain) for chain in chains)
                assert len(chains) == 1 + ("check" in line)
        assert lines[-1].split(". check")[0].endswith(f"={task.answer}")
        return special

    def test_they_read_then_reason_and_end_with_the_answer(self):
        source = DigitSums("train", check_share=0.5)
        found = Counter(tuple(self.check(source.task(index, 0))) for index in range(1500))
        assert set(found) == {(), ("slip",), ("check",)}
        assert found[()] / 1500 == pytest.approx(0.5, abs=0.05)
        assert found["slip",] / 1500 == pytest.approx(0.25, abs=0.05)

    def test_the_default_share_of_checks_and_slips_is_a_tenth(self):
        source = DigitSums("train")
        found = sum(bool(self.check(source.task(index, 0))) for index in range(1500))
        assert found / 1500 == pytest.approx(0.1, abs=0.03)

    def test_no_share_gives_plain_steps(self):
        source = DigitSums("train", check_share=0)
        assert not any("." in source.task(index, 0).solution for index in range(300))

    def test_they_hold_no_think_marks(self):
        assert "think" not in DigitSums("train").task(0, 0).solution


class TestWarp:
    def test_it_changes_the_pixels_and_nothing_else_and_stays_readable(self):
        plain, moved = DigitSums("train", scans=[3]), DigitSums("train", scans=[3], warp=1.0)
        pairs = [(plain.task(i, 0), moved.task(i, 0)) for i in range(50)]
        assert all(pixels(b).shape == pixels(a).shape for a, b in pairs)
        assert pixels(moved.task(0, 0)).tobytes() == pixels(moved.task(0, 0)).tobytes()
        ink = [np.mean([tiles(t)[0].mean() for t in column]) for column in zip(*pairs, strict=True)]
        assert ink[1] == pytest.approx(ink[0], rel=0.15)  # the digits are still there, about as large

    def test_a_warped_digit_is_closer_to_its_own_scan_than_to_other_digits(self):
        rng, right = random.Random(0), 0
        rows = scan_split()["train"][:200]
        scans = np.stack([255 - enlarge(SCANS[row]).astype(float) for row in rows])
        target = load_digits().target[rows]
        for i in range(200):
            moved = 255.0 - warped((255 - scans[i]).astype(np.uint8), 1.0, rng)
            right += target[((scans - moved) ** 2).sum((1, 2)).argmin()] == target[i]
        assert right > 180

    def test_a_wrong_value_is_named(self):
        with pytest.raises(DataSetError, match=r"warp = -1: must be a number between 0 and 2"):
            DigitSums("train", warp=-1)


class TestSplit:
    def test_scans_are_disjoint_complete_and_stratified(self):
        split, digits = scan_split(), load_digits().target
        assert sorted([*split["train"], *split["held_out"]]) == list(range(1797))
        for digit in range(10):
            share = (digits[split["held_out"]] == digit).sum() / (digits == digit).sum()
            assert share == pytest.approx(0.2, abs=0.005)

    def test_no_scan_is_in_both_splits_under_two_numbers(self):
        split, scans = scan_split(), load_digits().images
        train, unseen = ({scans[row].tobytes() for row in split[name]} for name in ("train", "held_out"))
        assert not train & unseen

    def test_it_is_the_same_in_every_version_of_the_project(self):
        split = scan_split()
        assert split["held_out"][:8].tolist() == [8, 9, 39, 46, 47, 49, 50, 51]
        assert len(split["held_out"]) == 359

    def test_tasks_of_a_split_show_its_scans_only(self):
        """Every digit tile is, pixel by pixel, one of the split's scans scaled up three times."""
        for name, rows in scan_split().items():
            allowed = {enlarge(scan).tobytes() for scan in SCANS[rows]}
            source = DigitSums(name, scans=[3])
            for index in range(100):
                for tile in tiles(source.task(index, 0))[::2]:
                    places = [tile[y : y + 24, x : x + 24] for y in (1, 2, 3) for x in (1, 2, 3)]
                    assert any((255 - place).astype(np.uint8).tobytes() in allowed for place in places)


def enlarge(scan):
    gray = np.round(255 - scan * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(gray).resize((24, 24), Image.Resampling.BICUBIC))


def shrink(tile, down, right):
    """The 8x8 scan of a tile whose symbol is `down`, `right` pixels off the middle, as ink from 0 to 255."""
    return tile[2 + down : 26 + down, 2 + right : 26 + right].reshape(8, 3, 8, 3).mean((1, 3))


def distance(tile, rows):
    """Distance between a tile and each scan of `rows`, at the best place in the tile."""
    scans = SCANS[rows].reshape(len(rows), -1) * (255 / 16)
    places = [shrink(tile, down, right).ravel() for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return np.min([np.linalg.norm(scans - place, axis=1) for place in places], axis=0)


class TestImages:
    @pytest.mark.parametrize("scans", [2, 3, 4])
    def test_one_tile_a_symbol(self, scans):
        task = DigitSums("train", scans=[scans]).task(5, 0)
        assert pixels(task).shape == (28, 28 * (2 * scans - 1))
        assert Image.open(io.BytesIO(task.images[0])).format == "PNG"

    def test_unseen_handwriting_is_readable(self):
        """The nearest training scan names the digit of a held-out tile; operators are told by where their ink is."""
        split, target = scan_split(), load_digits().target
        source, right, total = DigitSums("held_out", scans=[3]), 0, 0
        for index in range(60):
            task = source.task(index, 0)
            symbols = list(task.solution.splitlines()[0])
            for symbol, tile in zip(symbols, tiles(task), strict=True):
                if symbol.isdigit():
                    found = str(target[split["train"]][distance(tile, split["train"]).argmin()])
                    right, total = right + (found == symbol), total + 1
                else:
                    assert read_operator(tile) == symbol
        assert right / total > 0.95

    def test_paper_is_white_and_ink_is_dark(self):
        image = pixels(DigitSums("train").task(0, 0))
        assert image[0].min() == 255
        assert image.min() < 60
        assert np.median(image) > 200

    def test_a_symbol_is_not_always_in_the_same_place(self):
        source, places = DigitSums("train", scans=[2], operators=["-"]), set()
        for index in range(60):
            ink = np.argwhere(tiles(source.task(index, 0))[1] > 128)
            places.add(tuple(ink.mean(0)))
        assert len(places) == 9


def read_operator(tile):
    """`-` has ink in a few rows only, `+` on the axes, `*` on the diagonals."""
    ink = np.argwhere(tile > 128)
    if np.ptp(ink[:, 0]) < 6:
        return "-"
    down, right = np.abs(ink - ink.mean(0)).T
    return "+" if np.minimum(down, right).mean() < 1.2 else "*"


class TestSequence:
    def test_a_task_depends_on_its_arguments_alone(self):
        first = [DigitSums("train").task(index, 7) for index in range(20)]
        again = DigitSums("train")
        assert first == [again.task(index, 7) for index in reversed(range(20))][::-1]

    def test_another_process_makes_the_same_tasks(self):
        code = (
            "import hashlib; from rollouts.tasks.digit_sums import DigitSums; t = DigitSums('train').task(11, 5);"
            "print(t.id, t.answer, hashlib.sha256(t.images[0]).hexdigest())"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        task = DigitSums("train").task(11, 5)
        assert out.split() == [task.id, task.answer, hashlib.sha256(task.images[0]).hexdigest()]

    def test_ids_are_unique_over_indices_seeds_splits_and_options(self):
        sources = [DigitSums(split, **options) for split in ("train", "held_out") for options in OPTIONS]
        ids = [source.task(index, seed).id for source in sources for seed in (0, 1) for index in range(50)]
        assert len(set(ids)) == len(ids)

    def test_seeds_and_indices_give_different_images(self):
        source = DigitSums("train")
        images = {source.task(index, seed).images[0] for seed in (0, 1) for index in range(200)}
        assert len(images) == 400

    def test_weights_of_scans_and_operators_are_kept(self):
        source = DigitSums("train", scans={2: 1, 3: 3, 5: 0}, operators=["+", "×"])
        firsts = [list(source.task(index, 0).solution.splitlines()[0]) for index in range(800)]
        assert Counter(len(first) for first in firsts)[5] / 800 == pytest.approx(0.75, abs=0.05)
        assert {len(first) for first in firsts} == {3, 5}
        assert {symbol for first in firsts for symbol in first[1::2]} == {"+", "*"}

    def test_scans_may_come_from_json_with_text_as_keys(self):
        assert DigitSums("train", scans={"3": 1}).task(0, 0) == DigitSums("train", scans=[3]).task(0, 0)

    def test_answers_cover_negatives_and_large_products(self):
        answers = [int(DigitSums("train", scans=[3]).task(index, 0).answer) for index in range(1000)]
        assert min(answers) < -40
        assert max(answers) > 300

    def test_thousands_are_made_in_a_second(self):
        source = DigitSums("train")
        source.task(0, 0)
        began = time.process_time()
        for index in range(300):
            source.task(index, 0)
        assert 300 / (time.process_time() - began) > 1000  # 3,000 to 5,000 on an idle core

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"split": "test"}, "held_out"),
            ({"scans": [1]}, "2 to 8"),
            ({"scans": []}, "2 to 8"),
            ({"scans": 3}, "2 to 8"),
            ({"scans": "many"}, "2 to 8"),
            ({"scans": {3: 0}}, "positive"),
            ({"scans": {3: -1, 2: 1}}, "0 or more"),
            ({"operators": ["/"]}, "some of"),
            ({"operators": []}, "some of"),
            ({"check_share": 1.5}, "between 0 and 1"),
            ({"check_share": "all"}, "between 0 and 1"),
        ],
    )
    def test_options_out_of_range_are_named(self, options, named):
        with pytest.raises(ValueError, match=named):
            DigitSums(**options)


OPTIONS = ({}, {"scans": [3]}, {"operators": ["+"]}, {"check_share": 0.2})
