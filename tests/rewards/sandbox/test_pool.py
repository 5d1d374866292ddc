"""The worker processes: deadlines, kills, limits, threads, asyncio, forks, Ray actors, and nothing left behind."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from rewards.sandbox.pool import Flow, WorkerClass, WorkerDied, WorkerPool, WorkerTimeout
from rewards.types import Task, VerdictKind
from rewards.verifiers.math import MathVerifier

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (  # passes the static limits, but its inverse has 9! terms
    "\\begin{pmatrix}"
    + "\\\\".join("&".join(f"a_{{{9 * i + j}}}" for j in range(9)) for i in range(9))
    + "\\end{pmatrix}^{-1}"
)
REAL = r"1+\Re(x)"  # what our own grammar does not read, so that a worker must
TASK = Task(id="p", source="unit", question="", answer=REAL)
TOY = """
import os, signal, subprocess, sys, time
from pathlib import Path

def answer(request):
    what, value = request["do"], request.get("value")
    if what == "echo":
        return value
    if what == "spin":
        end = time.process_time() + value
        while time.process_time() < end:
            pass
        return "done"
    if what == "sleep":
        time.sleep(value)
        return "done"
    if what == "eat":
        return len(bytearray(value))
    if what == "write":
        Path(value).write_text("x")
    if what == "open":
        return len([open("/dev/null") for _ in range(value)])
    if what == "recurse":
        return answer(request)
    if what == "exit":
        os._exit(value)
    if what == "signal":
        os.kill(os.getpid(), value)
    if what == "print":
        os.write(1, b"garbage" * 1000)
        print("garbage", file=sys.stderr, flush=True)
        return "printed"
    if what == "fork":  # and forget to end the child
        return [os.fork() and os.getpid(), os.getpid()]
    if what == "daemon":  # a child that leaves the process group and outlives its parent
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid
    if what == "garbage":
        for fd in range(3, 64):
            try:
                os.write(fd, value.encode("latin-1"))
            except OSError:
                pass
        time.sleep(60)
    if what == "environment":
        return [dict(os.environ), sorted(os.listdir("/proc/self/fd")), sys.argv[1:]]
    raise ValueError(what)
"""


def verify(pool, answer, gold=REAL):
    return MathVerifier(pool)(f"\\boxed{{{answer}}}", gold, task=TASK).kind


def alive(pid):
    """True where the process runs; a zombie counts as running only for its parent to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(*pids, seconds=10):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, pids))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Makes pools of a toy module, which starts in a fraction of a second."""
    (tmp_path / "toy_worker.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(*, kind=None, **more):
        limits = {"memory_bytes": 512 << 20} | (kind or {})
        made.append(WorkerPool(WorkerClass(module="toy_worker", **limits), **{"workers": 2, "seconds": 20.0} | more))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def algebra():
    with_room = WorkerPool(workers=2, seconds=20.0)
    yield with_room
    with_room.close()


def test_a_heavy_answer_ends_at_its_deadline_and_the_next_ones_are_right(algebra):
    assert verify(algebra, r"\Re(x)+1") is VerdictKind.CORRECT
    before, kills = set(algebra.pids), algebra.kills
    algebra.seconds = 0.3
    assert verify(algebra, HEAVY) is VerdictKind.TIMEOUT
    killed = [pid for pid in before if not alive(pid)]
    assert len(killed) == 1
    assert algebra.kills == kills + 1
    algebra.seconds = 20.0
    kinds = [verify(algebra, a) for a in (r"\Re(x)+1", r"\Re(x)+2", r"\Re(x)+3-2", r"\Re(x)-1")]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.CORRECT, VerdictKind.WRONG]
    assert killed[0] not in algebra.pids


def test_the_limit_is_processor_time_so_that_a_busy_machine_changes_no_verdict(toy):
    pool = toy(seconds=0.3, wall_factor=30)
    assert pool.call({"do": "sleep", "value": 0.6}) == "done"  # of a verifier that was not given the processor
    with pytest.raises(WorkerTimeout, match=r"0\.3 s of processor time"):
        pool.call({"do": "spin", "value": 60})


def test_the_wall_clock_is_limited_too(toy):
    pool = toy(seconds=0.2, wall_factor=2)
    with pytest.raises(WorkerTimeout, match=r"no answer within 0\.4 s"):
        pool.call({"do": "sleep", "value": 60})
    assert pool.kills == 1


def test_a_stopped_worker_is_killed_and_replaced(toy):
    pool = toy(seconds=0.5, wall_factor=1)
    pool.call({"do": "echo"})
    (stopped,) = pool.pids
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(WorkerTimeout):
        pool.call({"do": "echo"})
    assert not alive(stopped)
    assert pool.call({"do": "echo", "value": 5}) == 5


def test_a_stopped_fork_server_is_replaced_with_its_workers(toy, monkeypatch):
    monkeypatch.setattr("rewards.sandbox.dispatcher._KILL_SECONDS", 0.3)
    monkeypatch.setattr("rewards.sandbox.fork_server_client._END_SECONDS", 0.1)
    pool = toy(seconds=0.5, wall_factor=1)
    pool.call({"do": "echo"})
    fork_server, (worker,) = pool.fork_server_pid, pool.pids
    os.kill(fork_server, signal.SIGSTOP)
    with pytest.raises(WorkerTimeout):
        pool.call({"do": "sleep", "value": 60})
    waiting = pool.submit({"do": "echo", "value": 6})  # not at fault, so it waits for the next fork server
    assert pool.call({"do": "echo", "value": 5}) == 5
    assert waiting.result(20)["answer"] == 6
    assert wait_gone(fork_server, worker)
    assert pool.fork_server_pid != fork_server


@pytest.mark.parametrize("victim", ["worker", "fork_server"])
def test_what_is_killed_from_outside_is_replaced(toy, victim):
    pool = toy()
    pool.call({"do": "echo"})
    killed = pool.pids[0] if victim == "worker" else pool.fork_server_pid
    os.kill(killed, signal.SIGKILL)
    wait_gone(killed)
    assert pool.call({"do": "echo", "value": 5}) == 5


def test_a_job_goes_on_elsewhere_when_the_fork_server_dies_under_it(toy):
    pool = toy()
    pool.call({"do": "echo"})
    future = pool.submit({"do": "sleep", "value": 0.5})
    time.sleep(0.1)
    os.kill(pool.fork_server_pid, signal.SIGKILL)
    assert future.result(20)["answer"] == "done"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"do": "exit", "value": 0}, "the worker ended"),
        ({"do": "exit", "value": 7}, "exit status 7"),
        ({"do": "signal", "value": signal.SIGSEGV.value}, "SIGSEGV"),
        ({"do": "signal", "value": signal.SIGKILL.value}, "SIGKILL"),
        ({"do": "nonsense"}, "ValueError: nonsense"),
        ({"do": "garbage", "value": "\0\0\0\5hello"}, "sent garbage: JSONDecodeError"),
        ({"do": "garbage", "value": "\xff\xff\xff\xff"}, "sent garbage: ValueError"),
        ({"do": "garbage", "value": "\0\0\0\2[]"}, "sent garbage: TypeError"),
        ({"do": "garbage", "value": "\0\0\0\2{}"}, "sent garbage: KeyError"),
        ({"do": "recurse"}, "RecursionError"),
        ({"do": "eat", "value": 600 << 20}, "MemoryError"),
        ({"do": "open", "value": 100}, "Too many open files"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_and_the_next_gets_a_fresh_one(toy, request_, message):
    pool = toy()
    with pytest.raises(WorkerDied, match=message):
        pool.call(request_)
    assert pool.call({"do": "echo", "value": 5}) == 5


def test_limits_leave_room_for_what_is_honest_and_no_file_can_grow(toy, tmp_path):
    pool = toy()
    assert pool.call({"do": "eat", "value": 100 << 20}) == 100 << 20
    with pytest.raises(WorkerDied, match="File too large"):
        pool.call({"do": "write", "value": str(tmp_path / "written")})
    assert (tmp_path / "written").read_text() == ""


def test_a_worker_that_leaks_is_replaced_before_it_fails(tmp_path, monkeypatch, toy):
    (tmp_path / "toy_worker.py").write_text(
        "kept = []\ndef answer(request):\n    kept.append(bytearray(20 << 20))\n    return len(kept)\n"
    )
    pool = toy(kind={"memory_bytes": 300 << 20}, workers=1)
    counts = [pool.call({}) for _ in range(30)]  # twice the limit in all
    assert counts.count(1) > 1
    assert max(counts) < 15


def test_it_sees_no_secret_and_no_descriptor(toy, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("MY_API_KEY", "key")
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    environment, descriptors, arguments = toy().call({"do": "environment"})
    assert not {"HF_TOKEN", "MY_API_KEY"} & environment.keys()
    assert "hf_0123456789" not in str(arguments)
    assert str(inherited) not in descriptors or inherited < 10
    assert len(descriptors) <= 5  # three standard ones, its channel, and the listing itself
    os.close(inherited)
    environment, *_ = toy(kind={"environment": ("MY_API_KEY",)}).call({"do": "environment"})
    assert environment["MY_API_KEY"] == "key"
    assert "HF_TOKEN" not in environment


def test_printing_and_forking_disturb_no_answer(toy):
    pool = toy(workers=1)
    assert pool.call({"do": "print"}) == "printed"
    first, second = pool.call({"do": "fork"})
    assert first == second
    assert [pool.call({"do": "echo", "value": i}) for i in range(5)] == list(range(5))


def test_a_daemon_that_a_worker_leaves_behind_ends_with_the_worker(toy):
    pool = toy(workers=1)
    daemon = pool.call({"do": "daemon"})
    assert alive(daemon)
    with pytest.raises(WorkerDied):
        pool.call({"do": "exit", "value": 1})
    assert wait_gone(daemon)


def test_a_module_that_cannot_start_says_why(toy, tmp_path):
    with pytest.raises(WorkerDied, match=r"did not start: ModuleNotFoundError: .*no_such_module"):
        WorkerPool("rewards.no_such_module").call({})
    (tmp_path / "toy_worker.py").write_text("def open(options):\n    raise SystemExit('no licence')\n")
    pool = toy()
    futures = [pool.submit({}) for _ in range(5)]
    assert all("SystemExit: no licence" in str(future.exception(20)) for future in futures)
    (tmp_path / "toy_worker.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(WorkerDied, match="ended while it started"):
        toy().call({})


def test_large_messages_pass_both_ways(toy):
    text = "x\ud800" * (3 << 20)  # a lone surrogate, which a model's text may hold, has no UTF-8
    assert toy().call({"do": "echo", "value": text}) == text


def test_it_starts_only_what_is_needed_and_runs_as_many_at_once_as_it_has_workers(toy):
    pool = toy(workers=3, interrupts=False)
    assert pool.pids == []
    pool.call({"do": "echo"})
    assert len(pool.pids) == 1
    futures = [pool.submit({"do": "sleep", "value": 0.3}) for _ in range(3)]
    wait(futures)
    assert len(pool.pids) == 3
    with pytest.raises(ValueError, match="workers = 0: must be 1 or more"):
        WorkerPool(workers=0)


def test_short_ones_pass_a_burst_of_long_ones(toy):
    pool = toy(workers=2, seconds=0.2)
    burst = Flow()
    long = [pool.submit({"do": "spin", "value": 60}, flow=burst) for _ in range(24)]  # 5 s of processor time
    flow = Flow()
    short = [pool.submit({"do": "echo", "value": i}, flow=flow) for i in range(200)]
    alone = [pool.submit({"do": "echo", "value": i}) for i in range(50)]
    assert [future.result(20)["answer"] for future in short] == list(range(200))
    assert [future.result(20)["answer"] for future in alone] == list(range(50))
    assert sum(future.done() for future in long) < 12
    assert all(isinstance(future.exception(60), WorkerTimeout) for future in long)


def test_threads_share_it(algebra):
    answers = [r"\Re(x)+1", r"\Re(x)+2", r"\Re(x)+1+0", r"2\Re(x)"] * 6
    with ThreadPoolExecutor(8) as threads:
        kinds = list(threads.map(lambda a: verify(algebra, a), answers))
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG] * 12


def test_a_thread_that_started_it_may_end(toy):
    pool = toy()
    thread = threading.Thread(target=pool.call, args=({"do": "echo"},))
    thread.start()
    thread.join()
    pids = pool.pids
    time.sleep(0.1)
    assert pool.call({"do": "echo", "value": 1}) == 1
    assert pool.pids == pids


def test_asyncio_tasks(algebra):
    async def both():
        direct = verify(algebra, r"\Re(x)+1")
        return [
            direct,
            *await asyncio.gather(*(asyncio.to_thread(verify, algebra, a) for a in (r"\Re(x)+2", r"\Re(x)+1"))),
        ]

    assert asyncio.run(both()) == [VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.CORRECT]


def test_waiting_in_a_callback_is_refused(toy):
    pool = toy()
    seen = []

    def callback(_):
        try:
            pool.call({"do": "echo"})
        except RuntimeError as error:
            seen.append(str(error))

    future = pool.submit({"do": "sleep", "value": 0.05})
    future.add_done_callback(callback)
    future.result()
    pool.call({"do": "echo"})
    assert "would wait for itself" in seen[0]


def test_closing_ends_what_is_under_way_and_a_later_call_starts_anew(toy):
    pool = toy()
    pool.call({"do": "echo"})
    future, pids = pool.submit({"do": "sleep", "value": 60}), [*pool.pids, pool.fork_server_pid]
    pool.close()
    assert isinstance(future.exception(), WorkerDied)
    assert not any(map(alive, pids))
    assert pool.call({"do": "echo", "value": 2}) == 2


def test_a_pool_that_is_dropped_leaves_nothing(toy, tmp_path):
    pool = WorkerPool(WorkerClass(module="toy_worker"))
    pool.call({"do": "echo"})
    pids = [*pool.pids, pool.fork_server_pid]
    del pool
    gc.collect()
    assert not any(map(alive, pids))


def script(body, **more):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **more)


def in_a_fork(pool, mine, results):
    answer = pool.call({"do": "echo", "value": "fork"})
    results.put((answer, pool.pids != mine))
    pool.close()


def test_a_fork_gets_processes_of_its_own_and_the_parent_keeps_its(toy):
    pool = toy(workers=1)
    pool.call({"do": "echo"})
    mine = pool.pids
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=in_a_fork, args=(pool, mine, results))
    process.start()
    assert results.get(timeout=20) == ("fork", True)
    process.join()
    assert process.exitcode == 0
    assert pool.call({"do": "echo", "value": 3}) == 3
    assert pool.pids == mine


def spawned(results):
    pool = WorkerPool(workers=1, seconds=20.0)
    results.put(pool.call({"gold": "x+1", "answer": "1+x"})["outcome"])
    pool.close()


def test_a_spawned_process_may_have_one():
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=spawned, args=(results,))
    process.start()
    assert results.get(timeout=60) == "equal"
    process.join()


def test_inside_a_ray_actor_which_then_is_killed(tmp_path):
    process = script(
        """
        import logging, os, ray
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                 runtime_env={"env_vars": {"PYTHONPATH": sys.path[0]}})
        @ray.remote
        class Actor:
            def __init__(self):
                from rewards import Scorer
                self.scorer = Scorer((), seconds=20.0)
            def kinds(self):
                from rewards import Task
                tasks = [Task(id="r", source="unit", question="", answer="1+\\\\Re(x)")] * 2
                scores = self.scorer.score([r"\\\\boxed{\\\\Re(x)+1}", r"\\\\boxed{\\\\Re(x)+3}"], tasks)
                pool = self.scorer.pool
                return [s.verdict.kind.value for s in scores], [*pool.pids, pool.fork_server_pid]
        actor = Actor.remote()
        kinds, pids = ray.get(actor.kinds.remote())
        ray.kill(actor)
        print(*kinds, *pids, flush=True)
        sys.stdin.read()
        ray.shutdown()
        """,
        stdin=subprocess.PIPE,
    )
    first, second, *pids = process.stdout.readline().split()
    gone = wait_gone(*map(int, pids))
    process.communicate(timeout=60)
    assert (first, second) == ("correct", "wrong")
    assert len(pids) >= 2
    assert gone


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_nothing_outlives_an_owner_that_is_killed(busy, stopped):
    process = script(
        f"""
        import os, threading, time
        from rewards.sandbox.pool import WorkerPool
        pool = WorkerPool(workers=2, seconds=20.0)
        futures = [pool.submit({{"gold": "x", "answer": f"y+{{i}}"}}) for i in range(8)]
        [future.result() for future in futures]
        if {busy}:
            [pool.submit({{"gold": "1", "answer": {HEAVY!r}}}) for _ in range(4)]
        if os.fork() == 0:  # a fork that lives on must not keep them alive
            time.sleep(8)
            os._exit(0)
        print(pool.fork_server_pid, *pool.pids, flush=True)
        time.sleep(60)
        """,
        stderr=subprocess.DEVNULL,
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) >= 2
    assert set(pids[1:]) <= set(children(pids[0]))
    time.sleep(0.3)
    if stopped:  # as by a debugger or a job scheduler: it cannot see that its owner is gone
        # The server first, so that it replaces no worker while the others are stopped. A heavy
        # answer may have ended a worker by now: those that live count, the new ones too.
        os.kill(pids[0], signal.SIGSTOP)
        pids = [pids[0], *children(pids[0])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert wait_gone(*pids, seconds=5)


def test_it_ends_with_its_owner_and_needs_no_main_guard(tmp_path):
    for name in ("rewards", "configs", "rollouts", "rl", "sandbox", "symbolic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    program = tmp_path / "program.py"
    program.write_text(
        "from rewards.sandbox.pool import WorkerPool\npool = WorkerPool(seconds=20.0)\n"
        "print(pool.call({'gold': 'x', 'answer': 'y'})['outcome'], pool.fork_server_pid, *pool.pids)\n"
    )
    run = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    boot = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {run}"
    paths = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", boot], cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=60, check=True
    )
    outcome, *pids = done.stdout.split()
    assert outcome == "different"
    assert not any(alive(int(pid)) for pid in pids)
