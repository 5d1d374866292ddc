"""Plug-ins in processes of their own: whatever they do, the run goes on and the others get their rewards."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.rewards import RewardConfig
from rewards import Scorer, Task
from rewards.plugins.interface import PluginError
from rewards.types import VerdictKind

ROOT = Path(__file__).resolve().parents[3]
TASK = Task(id="i/1", source="unit", question="?", answer="19", images=(b"\x89PNG\xff",), choices=("a", "b"))
BAD = """
import os, signal, subprocess, sys, threading, time
import rewards.verifiers.math

kept = []

def bad(response, reference, *, task):
    if "hang" in response:
        while True:
            time.sleep(1)
    if "spin" in response:
        return 9 ** (9 ** 9)
    if "exit" in response:
        sys.exit(0)
    if "os._exit" in response or "vanish" in response:
        os._exit(0)
    if "kill" in response:
        os.kill(os.getpid(), signal.SIGKILL)
    if "stop" in response:
        os.kill(os.getpid(), signal.SIGSTOP)
    if "base" in response:
        class Odd(BaseException):
            def __str__(self):
                raise ValueError("no text")
        raise Odd
    if "memory" in response:
        kept.append(bytearray(4 << 30))
    if "leak" in response:
        kept.append(bytearray(60 << 20))
    if "fork" in response:
        os.fork()
    if "daemon" in response:
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    if "print" in response:
        print("garbage" * 10000)
        os.write(1, b"\\xff" * 100)
        sys.stderr.write("more")
    if "close" in response:
        os.closerange(0, 100)
    if "patch" in response:
        rewards.verifiers.math.MathVerifier.__call__ = lambda *a, **k: 1 / 0
    if "nan" in response:
        return float("nan")
    if "list" in response:
        return [1.0]
    return 0.75

def pid(response, reference, *, task):
    return float(os.getpid())

def key(response, reference, *, task):
    return {"mine": float(os.environ.get("MY_API_KEY") == "k"), "other": float("HF_TOKEN" in os.environ)}

def sees(response, reference, *, task):
    return float((task.images, task.choices, task.answer, reference) == ((b"\\x89PNG\\xff",), ("a", "b"), "19", "19"))

def group(responses, reference, *, task):
    return [len(responses) + i / 10 for i in range(len(responses))]

def imported(response, reference, *, task):
    return float("colorsys" in sys.modules)
"""


@pytest.fixture
def scorer(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    made = []

    def make(name, **more):
        settings = {"workers": 1, "seconds": 0.5, "memory_mb": 512} | more
        terms = (RewardConfig(), RewardConfig(use=f"bad.py:{name}", **settings))
        made.append(Scorer(terms, base=tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("does", "kind", "detail"),
    [
        ("hang", "timeout", "no answer within 0.5 s"),
        ("spin", "timeout", "no answer within 0.5 s"),
        ("stop", "timeout", "no answer within 0.5 s"),
        ("exit", "crash", "SystemExit: 0"),
        ("vanish", "crash", "the worker ended"),
        ("kill", "crash", "SIGKILL"),
        ("base", "crash", "Odd"),
        ("memory", "crash", "MemoryError"),
        ("close", "crash", "the worker ended"),
        ("nan", "crash", "nan"),
        ("list", "crash", "a list"),
    ],
)
def test_what_a_plugin_may_do_to_itself(scorer, does, kind, detail):
    texts = ["19", f"{does}\n19", "19", "18"]
    scores = scorer("bad").score(texts, [TASK] * 4)
    assert [s.reward for s in scores] == [1.75, None, 1.75, 0.75]
    failure = scores[1].failures["bad.py:bad"]
    assert failure.kind.value == kind
    assert detail in failure.detail
    assert scores[1].verdict.kind is VerdictKind.CORRECT  # the task's own verifier is untouched


@pytest.mark.parametrize("does", ["print", "fork", "daemon", "patch", "leak"])
def test_what_it_may_do_to_others_reaches_nobody(scorer, does, capfd):
    made = scorer("bad")
    texts = [f"{does}\n19"] * 12
    assert [s.reward for s in made.score(texts, [TASK] * 12)] == [1.75] * 12
    assert made.failures == {}
    assert capfd.readouterr().out == ""
    (plugin,) = made._plugins.values()
    fork_server = plugin.pool.fork_server_pid
    made.close()
    assert not Path(f"/proc/{fork_server}").exists()
    sleepers = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) == fork_server]
    assert sleepers == []


def _parent(process):
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def test_it_runs_elsewhere_unless_asked(scorer):
    (apart,) = scorer("pid").score(["19"], [TASK])
    assert apart.parts["bad.py:pid"] != os.getpid()
    (here,) = scorer("pid", workers=None, in_process=True).score(["19"], [TASK])
    assert here.parts["bad.py:pid"] == os.getpid()


def test_it_gets_the_variables_that_are_declared_and_no_others(scorer, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "k")
    monkeypatch.setenv("HF_TOKEN", "secret")
    (declared,) = scorer("key", env=("MY_API_KEY",)).score(["19"], [TASK])
    assert (declared.parts["bad.py:key/mine"], declared.parts["bad.py:key/other"]) == (1.0, 0.0)
    (bare,) = scorer("key").score(["19"], [TASK])
    assert bare.parts["bad.py:key/mine"] == 0.0


def test_it_sees_the_whole_task_and_its_imports(scorer):
    assert scorer("sees").score(["19"], [TASK])[0].parts["bad.py:sees"] == 1.0
    assert scorer("imported").score(["19"], [TASK])[0].parts["bad.py:imported"] == 0.0
    assert scorer("imported", imports=("colorsys",)).score(["19"], [TASK])[0].parts["bad.py:imported"] == 1.0


def test_a_group_is_the_neighbours_with_one_task(scorer):
    other = Task(id="i/2", source="unit", question="?", answer="19")
    again = Task(id="i/1", source="unit", question="?", answer="19", images=TASK.images, choices=("a", "b"))
    scores = scorer("group").score(["19"] * 6, [TASK, TASK, again, other, other, TASK])
    assert [s.parts["bad.py:group"] for s in scores] == [3.0, 3.1, 3.2, 2.0, 2.1, 1.0]


def test_as_the_verifier_of_tasks_it_runs_as_the_term_says(tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text(BAD)
    monkeypatch.setenv("MY_API_KEY", "k")
    mine, plain = (Task(id="v", source="unit", question="?", answer="19", verifier=v) for v in ("bad.py:key", "math"))
    terms = (RewardConfig(only_for=("bad.py:key",), env=("MY_API_KEY",), weight=2.0), RewardConfig(only_for=("math",)))
    with Scorer(terms, base=tmp_path) as scorer:
        scorer.check_tasks([mine, plain])
        first, second = scorer.score(["19", "19"], [mine, plain])
    assert (first.reward, first.verdict.kind, first.verdict.rule) == (2.0, VerdictKind.CORRECT, "plugin")
    assert second.reward == 1.0


def test_a_file_that_breaks_while_it_is_loaded_stops_the_run_before_it_starts(tmp_path):
    for body, message in (
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("import os\nos._exit(3)\n", "worker process"),
        ("1 / 0\n", "importing .* failed: ZeroDivisionError"),
        ("f = 333\n", "is an int, not a function"),
    ):
        (tmp_path / "mine.py").write_text(body)
        with pytest.raises(PluginError, match=message) as caught:
            Scorer((RewardConfig(use="mine.py:f"),), base=tmp_path)
        assert str(caught.value).startswith("reward 'mine.py:f'")


def test_it_works_from_another_folder_and_in_its_own(tmp_path, monkeypatch):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "prices.json").write_text("[0.25]")
    (tmp_path / "recipe" / "mine.py").write_text(
        "import json\ndef f(response, reference, *, task):\n    return json.load(open('prices.json'))[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    with Scorer((RewardConfig(use="mine.py:f"),), base=tmp_path / "recipe") as scorer:
        assert scorer.score(["19"], [TASK])[0].reward == 0.25


def test_nothing_of_it_outlives_a_run_that_is_killed(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    program = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from configs.rewards import RewardConfig
from rewards import Scorer, Task
task = Task(id="k", source="unit", question="?", answer="19")
scorer = Scorer((RewardConfig(use="bad.py:bad", workers=2, seconds=60),), base=Path({str(tmp_path)!r}))
scorer.score(["daemon"] * 2, [task] * 2)
scorer.submit(["hang"], task)
(plugin,) = scorer._plugins.values()
fork_server = plugin.pool.fork_server_pid
print(json.dumps([fork_server, *plugin.pool.pids]), flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pids = json.loads(process.stdout.readline())
    sleepers = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) in pids]
    assert len(sleepers) > len(pids) - 1  # the workers, and the daemons below them
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in (*pids, *sleepers)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in (*pids, *sleepers) if Path(f"/proc/{pid}").exists()]
