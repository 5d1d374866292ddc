"""The comparison of runs in a browser: hostile names stay text, curves are drawn, and it fits a phone."""

import json
from pathlib import Path

import pytest
from page_helpers import HOSTILE

from configs.load import dump_recipe, load_recipe
from rl.cli.compare import compare_command
from rl.run.console import PlainConsole

pytestmark = pytest.mark.browser
QUICKSTART = Path(__file__).parents[3] / "configs" / "recipes" / "quickstart.yaml"


@pytest.fixture
def comparison(tmp_path):
    """Two seeds of a run and one with other keys, of which one has a hostile name of a data source."""
    folders = []
    for name, override in (("a", "seed=0"), ("b", "seed=1"), ("c", "rl.steps=77")):
        folder = tmp_path / name
        folder.mkdir()
        config = load_recipe(QUICKSTART, [override, f"output_dir={folder}"])
        (folder / "recipe.yaml").write_text(dump_recipe(config))
        rows = [
            {"stage": "rl", "step": at, "time": at, "reward": at / 9, f"accuracy/{HOSTILE}": 0.5} for at in range(9)
        ]
        rows += [{"stage": "validation/rl", "step": at, "time": at, "greedy_accuracy": at / 9} for at in (0, 8)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folders.append(str(folder))
    return compare_command(folders, output=tmp_path / "compare.html", console=PlainConsole())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_hostile_names_are_text_curves_are_drawn_and_a_phone_need_not_scroll_sideways(
    open_page, comparison, width, dark
):
    page = open_page(comparison, width=width, dark=dark)
    assert page.problems == []
    titles = page.locator("figure h3").all_text_contents()
    assert titles[:2] == ["Greedy accuracy on validation tasks", "Reward"]
    assert any("onerror" in title for title in titles), "the hostile source is shown as text"
    assert page.locator("figure svg").count() == len(titles)
    assert page.locator("figure img, figure script").count() == 0
    assert page.locator("figure").first.locator("svg path, svg polyline").count() >= 2, "two groups of runs, two lines"
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
