"""Problems of `reasoning-gym`: worked solutions that hold, disjoint splits, errors that say what to do."""

import importlib.util
import re
import sys

import pytest
from package_helpers import fake_package, needs
from source_checks import check_source

from configs.errors import UserError
from rollouts.tasks import worked_math
from rollouts.tasks.text_math import TextMath

FAKE = """
class Problems:
    def __init__(self, name, size, limit):
        self.name, self.size, self.limit = name, size, limit

    def __getitem__(self, index):
        assert 0 <= index < self.size
        left, right = index % self.limit, index // 1000 % self.limit
        facts = {"expression": f"{left} + {right}", "numbers": [left + 1, right + 1]}
        return {"question": f"{self.name} {left} {right}\\n", "answer": left + right, "metadata": facts}


def create_dataset(name, seed, size, limit=50):
    if limit < 1:
        raise ValueError("limit must be positive")
    return Problems(name, size, limit)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    fake_package(tmp_path, "reasoning_gym", {"__init__.py": FAKE})
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("reasoning_gym", None)


class TestSolutions:
    @pytest.mark.parametrize(
        ("expression", "lines"),
        [
            ("50 + 86 - 56", ["50+86=136", "136-56=80"]),
            ("2 + 3 * 4", ["3*4=12", "2+12=14"]),
            ("-( 20 - 22 ) / 1", ["20-22=-2", "-(-2)=2", "2/1=2"]),
            ("6 * -8", ["6*(-8)=-48"]),
        ],
    )
    def test_operations_come_in_the_order_in_which_they_are_done(self, expression, lines):
        assert worked_math.arithmetic({"expression": expression}).splitlines() == lines

    @pytest.mark.parametrize("expression", ["7 / 2", "7 / 0", "7"])
    def test_what_is_not_exact_or_has_no_step_has_no_solution(self, expression):
        assert worked_math.arithmetic({"expression": expression}) is None

    def test_euclid(self):
        solution = worked_math.greatest_divisor({"numbers": [60, 663, 603]})
        assert solution.splitlines()[0] == "663=11*60+3"
        assert solution.splitlines()[-1] == "gcd(3, 603)=3"
        assert worked_math.least_multiple({"numbers": [4, 6]}).splitlines()[-1] == "lcm(4, 6)=4*6/2=12"

    def test_linear_equations(self):
        assert worked_math.linear_equation({"equation": "75*i - 9 = 7191"}) == "75*i=7191+9=7200\ni=7200/75=96"
        assert worked_math.linear_equation({"equation": "62 - 28*z = -1926"}) is None


class TestSource:
    OPTIONS = {"generators": ["chain_sum", "products"]}  # noqa: RUF012

    @pytest.mark.parametrize("split", ["train", "held_out"])
    def test_it_keeps_what_every_source_promises(self, package, split):
        check_source(lambda: TextMath(split, **self.OPTIONS))

    def test_no_question_is_in_both_splits(self, package):
        train, held_out = (
            {source.task(i, 0).question for i in range(1500)}
            for source in (TextMath(split, **self.OPTIONS) for split in ("train", "held_out"))
        )
        assert not train & held_out
        assert len(held_out) > 100

    def test_the_generator_is_the_tag_and_weights_are_kept(self, package):
        tags = [TextMath(generators={"gcd": 1, "lcm": 3}).task(i, 0).tags[0] for i in range(400)]
        assert 0.65 < tags.count("lcm") / 400 < 0.85

    def test_its_contents_are_those_of_the_package(self, package, tmp_path):
        before = TextMath(**self.OPTIONS).contents
        assert before == TextMath("held_out").contents
        (tmp_path / "reasoning_gym" / "more.py").write_text("x = 1")
        assert TextMath(**self.OPTIONS).contents != before

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"generators": ["sudoku"]}, "generators = 'sudoku': must be one of basic_arithmetic, chain_sum"),
            ({"generators": {"gcd": -1}}, "weights must be 0 or more"),
            ({"generators": []}, "one positive"),
            ({"generators": ["gcd"], "parameters": {"lcm": {}}}, "parameters = 'lcm': must be gcd"),
            ({"generators": ["gcd"], "parameters": {"gcd": {"limit": 0}}}, "limit must be positive"),
            ({"generators": ["gcd"], "parameters": {"gcd": {"wide": 1}}}, "wide"),
        ],
    )
    def test_options_out_of_range_are_named(self, package, options, named):
        with pytest.raises(UserError, match=named):
            TextMath(**options)

    def test_parameters_that_leave_no_question_are_an_error(self, package):
        source = [TextMath(s, generators=["gcd"], parameters={"gcd": {"limit": 1}}) for s in ("train", "held_out")]
        with pytest.raises(UserError, match=r"gcd has no question for split .*: widen its parameters"):
            [one.task(0, 0) for one in source]

    def test_the_missing_package_is_named(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs the package reasoning-gym: pip install 'thinkvl\[data\]'"):
            TextMath()


@needs("reasoning_gym")
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_real_package(split):
    tasks = check_source(lambda: TextMath(split), count=300)
    for task in tasks:
        if task.solution and task.tags != ("count_bits",):
            assert re.search(rf"=\(?{re.escape(task.answer)}$", task.solution), task
