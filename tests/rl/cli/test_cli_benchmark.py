"""`thinkvl eval MODEL --benchmark`: a local model, any server with chat completions, and a kill in the middle."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from rl.run.benchmarks.results import read_results


@pytest.fixture
def charts(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(buffer, format="PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    rows = [{"type": "human_test", "question": f"Number {n}?", "answer": str(n), "image": image} for n in range(20)]
    path = tmp_path / "test.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def server():
    """Chat completions that answer `Number N?` with N, as a thinking model does; `seen` are the requests."""
    seen, settings = [], {"seconds": 0.0, "status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(request)
            time.sleep(settings["seconds"])
            asked = request["messages"][-1]["content"][-1]["text"]
            message = {"role": "assistant", "content": asked.split("?")[0].split()[-1], "reasoning_content": "hm"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()
            self.send_response(settings["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.handle_error = lambda *_: None  # clients are killed, and a late reply would print a traceback into other tests
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/v1", seen, settings
    made.shutdown()
    made.server_close()


def test_a_server_as_the_model(thinkvl, charts, server, tmp_path):
    url, seen, _ = server
    arguments = ["--benchmark", f"chartqa={charts}", "--server", url, "--output", tmp_path / "out"]
    code, output, errors = thinkvl("eval", "some/model", *arguments)
    assert code == 0, errors
    (result,) = read_results(tmp_path / "out")
    assert (result["accuracy"], result["answered"], result["thinking_share"], result["mean_tokens"]) == (1, 20, 1, 7)
    assert "100.0" in output
    assert (seen[0]["model"], seen[0]["max_tokens"], seen[0]["temperature"]) == ("some/model", 4096, 0.0)
    assert seen[0]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert "| ChartQA (test) | relaxed accuracy | 100.0 |" in (tmp_path / "out" / "results.md").read_text()
    assert thinkvl("eval", "some/model", *arguments)[0] == 0
    assert len(seen) == 20  # nothing is generated again


def test_a_server_that_is_away_ends_the_evaluation(thinkvl, charts, server, tmp_path):
    url, _, settings = server
    settings["status"] = 400
    code, _, errors = thinkvl("eval", "m", "--benchmark", f"chartqa={charts}", "--server", url, "--output", tmp_path)
    assert code == 1
    assert "several requests in a row failed: status 400" in errors
    settings["status"] = 200
    assert thinkvl("eval", "m", "--benchmark", f"chartqa={charts}", "--server", url, "--output", tmp_path)[0] == 0
    assert read_results(tmp_path)[0]["answered"] == 20


def test_a_killed_evaluation_goes_on(charts, server, tmp_path):
    url, seen, settings = server
    settings["seconds"] = 0.2
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "rl.cli.main", "eval", "m", "--benchmark", f"chartqa={charts}", "--server", url),
        *("--connections", "2", "--output", str(out)),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 120
        lines = []
        while len(lines) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
            lines = (out / "chartqa.jsonl").read_bytes().splitlines() if (out / "chartqa.jsonl").exists() else []
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    assert 5 <= len(lines) < 21
    settings["seconds"] = 0.0
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert read_results(out)[0]["answered"] == 20
    assert len((out / "chartqa.jsonl").read_bytes().splitlines()) == 21
    assert len(seen) <= 20 + 2 + 1  # those under way at the kill, and one that was between the answer and the disk


def test_ctrl_c_waits_for_no_server(charts, server, tmp_path):
    url, seen, settings = server
    settings["seconds"] = 60.0
    command = [sys.executable, "-m", "rl.cli.main", "eval", "m", "--benchmark", f"chartqa={charts}", "--server", url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not seen and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=30)
    assert (started.returncode, errors) == (130, "stopped; the same command continues\n")


def test_a_run_and_its_card(thinkvl, run_folder, charts):
    code, _, errors = thinkvl(
        "eval", run_folder, "--benchmark", f"chartqa={charts}", "--tasks", 3, "--max-new-tokens", 4
    )
    assert code == 0, errors
    (result,) = read_results(run_folder / "benchmarks")
    assert (result["answered"], result["settings"]["stage"], result["settings"]["engine"]) == (3, "rl", "transformers")
    assert result["mean_tokens"] <= 4
    assert thinkvl("export", run_folder)[0] == 0
    card = (run_folder / "export" / "README.md").read_text()
    assert "## Benchmarks\n\n| benchmark | metric | value |" in card
    assert "| ChartQA (test) | relaxed accuracy |" in card
    assert "answers of at most 4 tokens" in card


def test_frames_of_a_video_reach_the_model(thinkvl, run_folder, tmp_path):
    folder = tmp_path / "VideoMMMU"
    (folder / "videos").mkdir(parents=True)
    frames = [Image.new("RGB", (56, 56), color) for color in ("red", "green", "blue", "white")]
    clip = folder / "videos" / "validation_Art_1.webp"
    frames[0].save(clip, save_all=True, append_images=frames[1:], duration=1500, lossless=True)
    (folder / "Perception").mkdir()
    row = {"id": "validation_Art_1", "question": "Which colour is last?", "options": ["red", "white"], "answer": "B"}
    parquet.write_table(pa.Table.from_pylist([row]), folder / "Perception" / "test-00000.parquet")
    code, _, errors = thinkvl(
        *("eval", run_folder, "--benchmark", f"videommmu={folder}", "--frames", 3, "--max-new-tokens", 2)
    )
    assert code == 0, errors
    (result,) = read_results(run_folder / "benchmarks")
    assert (result["answered"], result["groups"]["track"]["Perception"]["questions"]) == (1, 1)


ENGINE = """
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import family_at


class Mine(TransformersEngine):
    def __init__(self, spec, *, note, times):
        model = family_at(spec.model_path).load_model(spec.model_path, dtype="auto")
        super().__init__(model, stop_ids=spec.stop_ids, barred_ids=spec.barred_ids)
        open(note, "w").write(str(times + 1))
"""


def test_an_engine_of_ones_own(thinkvl, run_folder, charts, tmp_path):
    (tmp_path / "mine.py").write_text(ENGINE)
    arguments = ["--tasks", 2, "--max-new-tokens", 3, "--engine", "mine.py:Mine"]
    options = ["--engine-option", f"note={tmp_path / 'note'}", "--engine-option", "times=2"]
    code, _, errors = thinkvl("eval", run_folder, "--benchmark", f"chartqa={charts}", *arguments, *options)
    assert code == 0, errors
    assert (tmp_path / "note").read_text() == "3"
    assert read_results(run_folder / "benchmarks")[0]["settings"]["engine"] == "mine.py:Mine"
    code, _, errors = thinkvl("eval", run_folder, "--benchmark", f"chartqa={charts}", "--tasks", 2)
    assert (code, "engine was 'mine.py:Mine' and is 'transformers'" in errors) == (1, True)


def test_mistakes_are_told(thinkvl, charts, tmp_path):
    code, _, errors = thinkvl("eval", "m", "--benchmark", "chart", "--server", "http://127.0.0.1:1/v1")
    assert (code, "did you mean" in errors) == (1, True)
    code, _, errors = thinkvl("eval", "m", "rl.steps=2", "--benchmark", f"chartqa={charts}")
    assert (code, "leave out rl.steps=2" in errors) == (1, True)
    twice = ["--benchmark", f"chartqa={charts}"] * 2
    code, _, errors = thinkvl("eval", "m", *twice, "--server", "http://127.0.0.1:1/v1")
    assert (code, "given twice" in errors) == (1, True)
