"""The faults that `make test-mutants` plants still apply to the code, each in one place."""

import ast
import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def mutants(root):
    spec = importlib.util.spec_from_file_location("run_mutants", root / "tests" / "mutants" / "run_mutants.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.load_mutants()
    del sys.modules[spec.name]


def test_every_fault_applies_and_is_python(mutants, root):
    """After a change of the code, change the text in tests/mutants/*.yaml with it."""
    for mutant in mutants:
        ast.parse(mutant.applied((root / mutant.file).read_text(encoding="utf-8")))


def test_every_fault_has_tests_that_are_there(mutants, root):
    assert [test for m in mutants for test in m.tests if not (root / test).is_file()] == []


def test_no_fault_is_there_twice(mutants):
    assert len({(m.file, m.old, m.new) for m in mutants}) == len(mutants) >= 100
