"""The worker process: deadlines, kills, memory, threads, asyncio, forks, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rewards.math import MathVerifier
from rewards.pool import Worker, WorkerDied, WorkerTimeout
from rewards.types import Task, VerdictKind

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (  # passes the static limits, but its inverse has 9! terms
    "\\begin{pmatrix}"
    + "\\\\".join("&".join(f"a_{{{9 * i + j}}}" for j in range(9)) for i in range(9))
    + "\\end{pmatrix}^{-1}"
)
TASK = Task(id="p", source="unit", question="", answer="x+1")


def verify(worker, answer, gold="x+1"):
    return MathVerifier(worker)(f"\\boxed{{{answer}}}", gold, task=TASK).kind


def alive(pid):
    """True where the process runs; a zombie counts as running only for its parent to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid, seconds):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.fixture
def worker():
    made = Worker(seconds=1.0)
    yield made
    made.close()


def test_a_heavy_answer_is_killed_at_the_deadline_and_the_next_ones_are_right(worker):
    assert verify(worker, "1+x") is VerdictKind.CORRECT
    first = worker.pid
    start = time.monotonic()
    assert verify(worker, HEAVY) is VerdictKind.TIMEOUT
    assert time.monotonic() - start < 2.0
    assert worker.kills == 1
    assert not alive(first)
    worker.seconds = 10.0
    kinds = [verify(worker, a) for a in ("1+x", "x+2", "\\frac{x^2-1}{x-1}", "x-1")]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.CORRECT, VerdictKind.WRONG]
    assert worker.pid != first


def test_a_worker_that_dies_is_a_crash_and_the_next_call_gets_another(worker):
    worker.call({"gold": "x", "answer": "y"})
    os.kill(worker.pid, signal.SIGKILL)
    wait_gone(worker.pid, 5)
    assert verify(worker, "1+x") is VerdictKind.CORRECT
    with pytest.raises(WorkerDied):
        worker.call({"nonsense": 1})
    assert verify(worker, "1+x") is VerdictKind.CORRECT


def test_memory_and_files_are_limited(tmp_path, monkeypatch):
    (tmp_path / "hog.py").write_text(
        "from pathlib import Path\nfrom rewards.symbolic import serve_requests\n"
        "def handle(request):\n"
        "    if 'path' in request:\n        Path(request['path']).write_text('x')\n"
        "    return {'got': len(bytearray(request['size']))}\n"
        "def serve(memory):\n    serve_requests(handle, memory)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    worker = Worker("hog", seconds=10.0, memory_bytes=256 << 20)
    assert worker.call({"size": 1 << 20}) == {"got": 1 << 20}
    for request in ({"size": 1 << 29}, {"size": 1, "path": str(tmp_path / "written")}):
        with pytest.raises(WorkerDied):
            worker.call(request)
    assert worker.call({"size": 5}) == {"got": 5}
    assert (tmp_path / "written").read_text() == ""
    worker.close()


def test_a_module_that_cannot_start_says_how_to_see_why():
    worker = Worker("rewards.no_such_module")
    with pytest.raises(WorkerDied, match=r"import rewards\.no_such_module"):
        worker.call({})
    worker.close()


def test_threads_share_it(worker):
    worker.seconds = 20.0
    answers = ["1+x", "x+2", "x+1+0", "2x"] * 6
    with ThreadPoolExecutor(8) as threads:
        kinds = list(threads.map(lambda a: verify(worker, a), answers))
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG] * 12
    assert worker.kills == 0


def test_a_thread_that_started_it_may_end(worker):
    thread = threading.Thread(target=verify, args=(worker, "1+x"))
    thread.start()
    thread.join()
    pid = worker.pid
    assert verify(worker, "1+x") is VerdictKind.CORRECT
    assert worker.pid == pid


def test_asyncio_tasks(worker):
    worker.seconds = 20.0

    async def both():
        direct = verify(worker, "1+x")
        return [direct, *await asyncio.gather(*(asyncio.to_thread(verify, worker, a) for a in ("x+2", "1+x")))]

    assert asyncio.run(both()) == [VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.CORRECT]


def test_a_deadline_of_its_own(worker):
    worker.call({"gold": "x", "answer": "y"})
    with pytest.raises(WorkerTimeout, match=r"0\.2 s"):
        worker.call({"gold": "1", "answer": HEAVY}, seconds=0.2)


def script(body, **more):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **more)


def test_a_fork_gets_a_child_of_its_own():
    process = script(
        """
        import os
        from rewards.pool import Worker
        worker = Worker(seconds=20.0)
        ask = lambda: worker.call({"gold": "x+1", "answer": "1+x"})["outcome"]
        ask()
        mine = worker.pid
        child = os.fork()
        if child == 0:
            ok = ask() == "equal" and worker.pid != mine
            worker.close()
            os._exit(0 if ok else 1)
        print(os.waitpid(child, 0)[1], ask(), worker.pid == mine)
        """
    )
    assert process.communicate(timeout=60)[0].split() == ["0", "equal", "True"]


@pytest.mark.parametrize("busy", [False, True])
def test_nothing_outlives_an_owner_that_is_killed(busy):
    process = script(
        f"""
        import threading, time
        from rewards.pool import Worker
        worker = Worker(seconds=2.0)
        worker.call({{"gold": "x", "answer": "y"}}, seconds=20.0)
        print(worker.pid, flush=True)
        if {busy}:
            worker.call({{"gold": "1", "answer": {HEAVY!r}}})
        time.sleep(60)
        """,
        stderr=subprocess.DEVNULL,
    )
    pid = int(process.stdout.readline())
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert wait_gone(pid, 20)


def test_it_ends_with_its_owner_and_needs_no_main_guard(tmp_path):
    (tmp_path / "rewards.py").write_text("raise SystemExit('shadowed')\n")
    program = tmp_path / "program.py"
    program.write_text(
        "from rewards.pool import Worker\nworker = Worker()\n"
        "print(worker.call({'gold': 'x', 'answer': 'y'}, seconds=20.0)['outcome'], worker.pid)\n"
    )
    run = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    boot = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {run}"
    done = subprocess.run(
        [sys.executable, "-c", boot], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    outcome, pid = done.stdout.split()
    assert outcome == "different"
    assert wait_gone(int(pid), 5)


def test_the_child_sees_no_secret(monkeypatch, worker):
    monkeypatch.setenv("HF_TOKEN", "secret")
    worker.call({"gold": "x", "answer": "y"})
    assert b"secret" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
