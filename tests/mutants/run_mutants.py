"""Plants faults, one at a time, in copies of the tree, and runs the tests that must notice: `make test-mutants`.

The lists beside this file say which text of which file becomes which, and which tests run. The tree itself is only
read. Exit code 1: fewer than 95 % of the faults were noticed, or tests fail without one. A patch that does not apply
is an error.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "kimi_vl", "rewards", "rollouts", "rl", "tests")
# Imported once: each run of the tests is a fork of this process, which holds none of our own modules.
SHARED = (
    "pytest",
    "torch",
    "transformers.modeling_utils",
    "transformers.generation",
    "ray",
    "pydantic",
    "pyarrow.parquet",
)
LEAST_KILLED = 0.95
DEADLINE = 600  # seconds; a fault that makes a test hang is noticed


@dataclass(frozen=True)
class Mutant:
    """A fault: `old` occurs exactly once in `file`, and becomes `new`; one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The text of the file with the fault. Raises ValueError where the patch does not apply."""
        if self.old == self.new or text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.name}: the old text occurs {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Run:
    """One run of some tests in a copy of the tree, with a fault or without any."""

    tests: tuple[str, ...]
    mutant: Mutant | None = None


def load_mutants(folder: Path = Path(__file__).parent) -> list[Mutant]:
    """All mutants of the lists in `folder`, in order."""
    return [
        Mutant(name=name, file=target["file"], old=old, new=new, tests=tuple(target["tests"]))
        for path in sorted(folder.glob("*.yaml"))
        for target in yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, old, new in target["mutants"]
    ]


def copy_tree(target: Path) -> Path:
    """The files that git knows or would add, copied. Bytecode is checked by content: a fault changes no date."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *PACKAGES]
    subprocess.run(command, cwd=target, check=True)
    return target


def run_tests(tree: Path, tests: Sequence[str]) -> int:
    """pytest's exit code. Runs in a fork that ends with it; the output goes to a file beside the tree."""
    with Path(f"{tree}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    ours = {str(ROOT), str(Path(__file__).parent)}
    sys.path[:] = [str(tree), *(p for p in sys.path if p not in ours)]
    pytest = importlib.import_module("pytest")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not chaos", *tests]))


def start(run: Run, tree: Path) -> int:
    """Plant the fault in `tree` and fork a process that runs the tests; its id."""
    if run.mutant is not None:
        path = tree / run.mutant.file
        path.write_text(run.mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
    process = os.fork()
    if process:
        return process
    code = 3
    try:
        os.setsid()
        code = run_tests(tree, run.tests)
    finally:
        os._exit(code)


def outcomes(runs: Sequence[Run], trees: list[Path]) -> Iterator[tuple[Run, int, float, str]]:
    """Each run with its exit code, its seconds and the end of its output, as they end; one in each tree at a time."""
    waiting, free = [*runs], [*trees]
    files = {run.mutant.file for run in runs if run.mutant is not None}
    texts = {tree / file: (tree / file).read_text(encoding="utf-8") for tree in trees for file in files}
    running: dict[int, tuple[Run, Path, float]] = {}
    while waiting or running:
        while waiting and free:
            run, tree = waiting.pop(0), free.pop()
            running[start(run, tree)] = (run, tree, time.monotonic())
        time.sleep(0.05)
        for process, (run, tree, began) in list(running.items()):
            seconds = time.monotonic() - began
            done, status = os.waitpid(process, os.WNOHANG)
            if not done and seconds < DEADLINE:
                continue
            if not done:
                os.killpg(process, 9)
                os.waitpid(process, 0)
            if run.mutant is not None:
                path = tree / run.mutant.file
                path.write_text(texts[path], encoding="utf-8")
            del running[process]
            free.append(tree)
            output = Path(f"{tree}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
            yield run, os.waitstatus_to_exitcode(status) if done else 1, seconds, output


def count_killed(mutants: Sequence[Mutant], trees: list[Path]) -> int:
    """Run all mutants and print a line for each; how many were noticed. -1 if the tests fail without a fault."""
    for run, code, _, output in outcomes([Run(t) for t in sorted({m.tests for m in mutants})], trees):
        if code:
            print(f"without a fault these end with {code}: {' '.join(run.tests)}\n{output}")
            return -1
    killed = 0
    for run, code, seconds, _ in outcomes([Run(m.tests, m) for m in mutants], trees):
        assert run.mutant is not None
        killed += code == 1
        outcome = {0: "SURVIVED", 1: "killed"}.get(code, f"ended with {code}")
        print(f"{outcome:9} {seconds:4.0f} s  {run.mutant.file:42} {run.mutant.name}", flush=True)
    return killed


def main() -> int:
    """Print a table of the mutants; 0 if enough were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose file or name holds this text")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    options = parser.parse_args()
    mutants = [m for m in load_mutants() if options.only in f"{m.file} {m.name}"]
    if not mutants:
        parser.error(f"--only {options.only!r}: no mutant has this text")
    for mutant in mutants:
        mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))
    os.environ |= {"OMP_NUM_THREADS": "1"}
    for name in SHARED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        killed = count_killed(mutants, [copy_tree(Path(folder) / str(number)) for number in range(options.jobs)])
    print(f"{killed} of {len(mutants)} killed ({killed / len(mutants):.1%}); at least {LEAST_KILLED:.0%} are wanted")
    return int(killed < LEAST_KILLED * len(mutants))


if __name__ == "__main__":
    sys.exit(main())
