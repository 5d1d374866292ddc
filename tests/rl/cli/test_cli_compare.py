"""`thinkvl compare`: seeds become one line with a band, recipes show their differences, and mistakes are named."""

import json

import pytest
from cli_helpers import RECIPE

from configs.load import dump_recipe, load_recipe
from rl.cli.compare import _read
from rl.pages.compare import group_by_recipe, line_of


@pytest.fixture
def make_run(tmp_path):
    def make(name, *overrides, steps=4, offset=0.0, metric="reward", checks=()):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(output_dir=folder))
        recipe.write_text(dump_recipe(load_recipe(recipe, overrides)))
        rows = [{"stage": "rl", "step": at, "time": at, metric: at / 10 + offset} for at in range(1, steps + 1)]
        rows += [{"stage": "validation/rl", "step": at, "time": at, "greedy_accuracy": found} for at, found in checks]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def test_seeds_are_one_line_with_a_band(make_run):
    a, b, c = make_run("a"), make_run("b", "seed=1", steps=2, offset=0.2), make_run("c", "rl.steps=77")
    groups = group_by_recipe([_read(path.name, path) for path in (a, b, c)])
    assert [[run.name for run in group] for group in groups] == [["a", "b"], ["c"]]
    line = line_of(groups[0], "rl", "reward")
    assert line.ys == pytest.approx([0.2, 0.3, 0.3, 0.4]), "where one run is shorter the other goes on alone"
    assert list(line.high) == pytest.approx([0.3, 0.4, 0.3, 0.4])
    assert not line_of(groups[1], "rl", "reward").low


def test_the_page_and_the_table(thinkvl, make_run, tmp_path):
    a, b = make_run("a"), make_run("b", "rl.steps=77", metric="entropy")
    code, output, errors = thinkvl("compare", a, b, a, "--output", tmp_path / "c.html")
    assert (code, errors) == (0, "")
    assert "is the same run as" in output
    assert "in rl, step 4" in output
    assert "no run has held-out figures yet" in output
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "rl.steps" in page
    assert "77" in page
    assert page.count("<svg") == 2, "a metric that only one run has is drawn for it; what no run has is not drawn"


def test_validation_is_drawn_before_the_stages_own_curves(thinkvl, make_run, tmp_path):
    a, b = make_run("a", checks=[(0, 0.2), (4, 0.5)]), make_run("b", "rl.steps=77", checks=[(0, 0.2), (4, 0.4)])
    assert thinkvl("compare", a, b, "--output", tmp_path / "c.html")[0] == 0
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert page.index("Greedy accuracy on validation tasks") < page.index("<h3>Reward")
    assert "Sampled accuracy on validation tasks" not in page


def test_mistakes(thinkvl, make_run, tmp_path):
    a = make_run("a")
    assert "no run is there" in thinkvl("compare", a, tmp_path)[2]
    assert "name at least two different ones" in thinkvl("compare", a, a)[2]
    assert not (tmp_path / "compare.html").exists()
