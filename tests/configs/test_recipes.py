"""Every recipe that comes with the project is valid, names itself, and can be shortened from the command line."""

from pathlib import Path

import pytest

import configs
from configs.load import dump_recipe, load_recipe

RECIPES = sorted((Path(configs.__file__).parent / "recipes").rglob("*.yaml"))


def test_the_quickstart_is_there():
    assert "quickstart.yaml" in [path.name for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(path, tmp_path):
    config = load_recipe(path)
    assert config.name == path.stem
    written = tmp_path / "written.yaml"
    written.write_text(dump_recipe(config), encoding="utf-8")
    assert load_recipe(written) == config
    assert load_recipe(path, ["seed=7"]).seed == 7


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_starts_by_saying_what_it_is_for(path):
    assert path.read_text(encoding="utf-8").startswith("# ")
