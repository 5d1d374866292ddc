"""Imports point one way, have no cycles, and are light where a worker or a plug-in needs it."""

import ast
import subprocess
import sys

import pytest

ALLOWED = {  # package: what of ours it may import; a dotted name allows that module only
    "configs": {"configs"},
    "kimi_vl": {"kimi_vl"},
    "rewards": {"rewards", "configs"},
    "rollouts": {"rollouts", "configs", "kimi_vl.family", "rewards"},
    "rl": {"rl", "rollouts", "configs", "rewards"},
}
HEAVY = {"ray", "trl", "datasets", "pydantic"}
LIGHT = {  # a module, or every module under a package: what importing it must not bring along, even through others
    "configs": {"torch", "ray", "trl", "datasets", "transformers"},
    "configs.schema": {"pydantic", "yaml", *HEAVY},
    "configs.rl": {"pydantic", "yaml", *HEAVY},
    "kimi_vl": HEAVY,
    "rewards": {"torch", "transformers", *HEAVY},
    "rollouts.types": {"torch", *HEAVY},
    "rollouts.engines": HEAVY,
    "rollouts.workers.actor": {"vllm"},
    "rollouts.engines.transformers": {"vllm"},
    "rl": {"vllm"},
    "rl.algorithms": HEAVY,
    "rl.doctor": {"torch", "transformers", "ray", "trl", "datasets"},
    "rl.cli.main": {"torch", "numpy", "yaml", "transformers", *HEAVY},
    "rl.learner": HEAVY,
    "rl.distributed.sharded": HEAVY,
    "rl.run": {"trl"},
    "rl.types": HEAVY,
}


def imported(module, modules, *, at_import_time=False):
    """(line, dotted name) of each import; `from a import b` is `a.b` where that is a module of ours, else `a`."""
    for node in statements(module.tree) if at_import_time else ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in modules else base


def absolute(module, node):
    """The module that `from ... import` names, with leading dots resolved."""
    if not node.level:
        return node.module
    is_package = module.path.name == "__init__.py"
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def statements(tree):
    """The statements that run on import: not in functions, not under `if TYPE_CHECKING`."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        yield node
        todo.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler))


def edges(modules, *, at_import_time=True):
    """Module -> our modules that it imports by name: while it is imported, or anywhere, TYPE_CHECKING blocks too."""
    return {
        name: {found for _, found in imported(module, modules, at_import_time=at_import_time) if found in modules}
        - {name}
        for name, module in modules.items()
    }


def may_import(package, name):
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[package])


def test_imports_point_one_way(modules):
    wrong = [
        f"{module.path.name}:{line}: {module.name} imports {name}"
        for module in modules.values()
        for line, name in imported(module, modules)
        if name.split(".")[0] in ALLOWED and not may_import(module.name.split(".")[0], name)
    ]
    assert not wrong, "\n".join(wrong)


FAMILY_TABLE = "rollouts.model_family"
FAMILY_FREE = {  # files that may name a family's package without importing it
    "rl.cli.cluster.bundle": "sends our packages to the cluster",
    "rollouts.tasks.rows": "rows are read without a model, and none may hold an image placeholder as text",
    "rl.cli.model_commands": "published models in the examples of its help",
}


def test_only_the_table_of_model_families_names_one(modules):
    """A second family is one package and one line: nothing else in `rollouts` or `rl` knows a family's parts."""
    words = ("kimi_vl", "KimiVL", "Kimi-VL", "moonshotai", "<|im_", "<|media_", "14, 14", "14 x 14")
    wrong = [
        f"{name}: {word}"
        for name, module in modules.items()
        if name.split(".")[0] in {"rollouts", "rl"} and name != FAMILY_TABLE and name not in FAMILY_FREE
        for word in words
        if word in module.text
    ]
    assert not wrong, "ask the family (rollouts.model_family) instead:\n" + "\n".join(wrong)


def test_no_module_imports_the_tests(modules):
    outside = {"tests", "benchmarks", "examples"}
    wrong = [
        f"{module.name}:{line}"
        for module in modules.values()
        for line, name in imported(module, modules)
        if name.split(".")[0] in outside
    ]
    assert not wrong


def circles(modules, *, at_import_time):
    """The modules in an import cycle, and those that import one of them."""
    left = edges(modules, at_import_time=at_import_time)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    return ", ".join(f"{name} -> {sorted(needs & left.keys())}" for name, needs in sorted(left.items()))


@pytest.mark.parametrize("at_import_time", [True, False], ids=["run", "written"])
def test_no_import_cycles(modules, at_import_time):
    """Neither in imports that run, nor in those inside functions and under TYPE_CHECKING."""
    assert not circles(modules, at_import_time=at_import_time)


def reached(start, modules, graph):
    """Every module of ours that importing `start` runs, parent packages included, with the way there."""
    ways, todo = {start: start}, [start]
    while todo:
        name = todo.pop()
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        for needed in (graph[name] | parents) & modules.keys() - ways.keys():
            ways[needed] = f"{ways[name]} -> {needed}"
            todo.append(needed)
    return ways


@pytest.mark.parametrize("light", LIGHT)
def test_light_modules_stay_light(light, modules):
    assert light in modules, f"{light} is listed as light and does not exist: mend the list above"
    graph = edges(modules)
    wrong = set()
    for start in (name for name in modules if name == light or name.startswith(f"{light}.")):
        for name, way in reached(start, modules, graph).items():
            for line, found in imported(modules[name], modules, at_import_time=True):
                if found.split(".")[0] in LIGHT[light]:
                    wrong.add(f"{way} imports {found} on line {line}")
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("configs, configs.schema", "torch, ray, pydantic, yaml"),
        ("configs, configs.load", "torch, ray, transformers"),
        ("configs, rewards, rewards.types", "torch, ray, transformers"),
    ],
)
def test_a_fresh_interpreter_loads_only_what_it_should(names, absent):
    code = f"import sys, {names}; print([name for name in {absent.split(', ')!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def invented(modules):
    """Modules made from text, to see the checks above fail."""

    def invent(**texts):
        kind, path = type(modules["rl"]), modules["rl"].path
        named = {name.replace("__", "."): text for name, text in texts.items()}
        return {name: kind(name, path.with_name(f"{name}.py"), text, ast.parse(text)) for name, text in named.items()}

    return invent


@pytest.mark.parametrize(
    "text", ["import rl", "from rl import x", "def f():\n    import rl.losses", "from ..rl import x"]
)
def test_the_check_sees_an_import_against_the_direction(invented, text):
    with pytest.raises(AssertionError, match=r"rewards\.a imports rl"):
        test_imports_point_one_way(invented(rewards__a=text))


def test_the_check_sees_a_circle(invented):
    made = invented(rl__a="import rl.b", rl__b="from rl import c", rl__c="from .a import x", rl="")
    assert circles(made, at_import_time=True) == "rl.a -> ['rl.b'], rl.b -> ['rl.c'], rl.c -> ['rl.a']"


@pytest.mark.parametrize(
    "text",
    ["from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rl.a", "def f():\n    import rl.a"],
    ids=["type checking", "function"],
)
def test_the_check_sees_a_circle_that_does_not_run_on_import(invented, text):
    made = invented(rl__a="import rl.b", rl__b=text)
    assert circles(made, at_import_time=True) == ""
    assert circles(made, at_import_time=False) == "rl.a -> ['rl.b'], rl.b -> ['rl.a']"


def test_the_check_sees_weight_that_comes_through_another_module(invented):
    made = invented(
        rl="", rl__learner="from rl.types import x", rl__types="try:\n    import ray\nexcept ImportError: pass"
    )
    with pytest.raises(AssertionError, match=r"rl\.learner -> rl\.types imports ray on line 2"):
        test_light_modules_stay_light("rl.learner", made)
    with pytest.raises(AssertionError, match=r"rl\.learner -> rl imports datasets\.x on line 1"):
        test_light_modules_stay_light("rl.learner", invented(rl="import datasets.x", rl__learner=""))
