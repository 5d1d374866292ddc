"""The packages' source, read once: each module's name, text, syntax tree and imports."""

import ast
import dataclasses
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "kimi_vl", "rewards", "rollouts", "rl")


@dataclasses.dataclass(frozen=True)
class Module:
    name: str  # such as `rl.algorithms.policy_loss`
    path: Path
    text: str
    tree: ast.Module

    def where(self, node):
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def modules():
    """Every module of the packages, by name; a package's own name stands for its `__init__.py`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, text, ast.parse(text))
    return found


@pytest.fixture(scope="session")
def tracked():
    """The files that a fresh clone has, and new ones that git does not ignore, as paths relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # not a git checkout, such as an unpacked archive
        pytest.skip("needs a git checkout to tell the project's files from others")
    return {Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()}
