"""Addresses that no cluster answers, each with its reason within seconds; a log that breaks off; what a job is told."""

import contextlib
import http.server
import json
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import ray
from ray.job_submission import JobStatus

from configs.errors import UserError
from rl.cli.cluster import client
from rl.cli.cluster.client import JobClient
from rl.cli.submit import entrypoint, failure_hint, job_environment


@contextlib.contextmanager
def server(status, text):
    """An HTTP server that answers everything alike; gives its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://head:port", "ftp://head:8265", ""])
def test_what_is_no_address(address):
    with pytest.raises(UserError, match="must be the address of the cluster's dashboard, such as http://HEAD:8265"):
        JobClient(address)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("head", "http://head:8265"),
        ("head:8266/", "http://head:8266"),
        ("http://10.0.0.5", "http://10.0.0.5:8265"),
        ("https://ray.example.org/team", "https://ray.example.org/team"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_what_is_an_address(given, meant):
    assert client._checked_address(given) == meant


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.5)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="there is no answer"):
        JobClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began < 5


def test_a_server_that_is_not_ray():
    for status, text in ((200, "<html>hello"), (404, "{}"), (200, "[]"), (200, '{"ray_version": "soon"}')):
        with server(status, text) as address, pytest.raises(UserError, match=rf"not a Ray dashboard \(HTTP {status}\)"):
            JobClient(address)


def test_an_old_cluster():
    with server(200, json.dumps({"ray_version": "2.9.3"})) as address, pytest.raises(UserError) as caught:
        JobClient(address)
    assert f"the cluster runs Ray 2.9.3, and ThinkVL needs >=2.60 (here is {ray.__version__})" in str(caught.value)
    assert f"pip install 'ray[default]=={ray.__version__}'" in str(caught.value)


def test_the_environment_does_not_replace_the_address(monkeypatch):
    """Ray's client would prefer RAY_ADDRESS to the address that it is given."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with server(200, json.dumps({"ray_version": ray.__version__})) as address:
        assert JobClient(address).ray_version == ray.__version__
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


class Jobs:
    """Stands in for Ray's client: a log whose stream breaks, and a status that changes with each question."""

    def __init__(self, log, breaks_after, statuses):
        self.log, self.breaks, self.statuses = log, list(breaks_after), list(statuses)

    def get_job_info(self, _):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return SimpleNamespace(status=JobStatus(status), message="full")

    def get_job_logs(self, _):
        return self.log

    async def tail_job_logs(self, _):
        end = self.breaks.pop(0)
        for place in range(0, min(end, len(self.log)), 3):
            yield self.log[place : min(place + 3, end)]
        if self.breaks:
            raise RuntimeError("WebSocket connection closed unexpectedly")


@pytest.fixture
def followed(monkeypatch):
    """`followed(jobs)` gives the log as it was shown, and what was said beside it."""
    monkeypatch.setattr(client, "_POLL_SECONDS", 0)

    def follow(jobs):
        cluster = object.__new__(JobClient)
        cluster.address, cluster._client = "http://head:8265", jobs
        shown, said = [], []
        cluster.follow("job", write=shown.append, say=said.append)
        return "".join(shown), said

    return follow


def test_a_log_is_shown_once_though_its_stream_breaks(followed):
    log = "".join(f"line {number}\n" for number in range(20))
    statuses = ["PENDING", "PENDING", "RUNNING", ConnectionError("lost"), "RUNNING", "RUNNING", "SUCCEEDED"]
    shown, said = followed(Jobs(log, [50, 10, 100], statuses))
    assert shown == log
    assert said == ["waiting: full"]


def test_a_connection_that_stays_lost(followed, monkeypatch):
    monkeypatch.setattr(client, "_RETRY_SECONDS", 0.05)
    with pytest.raises(UserError, match=r"connection to http://head:8265 was lost \(gone\); the job job goes on"):
        followed(Jobs("", [], [ConnectionError("gone")]))


def test_the_jobs_command(tmp_path):
    bundle = SimpleNamespace(folder="job/here", recipe="my recipe.yaml")
    assert entrypoint(bundle, ["rl.steps=3", "name=a b"], tmp_path) == (
        "cd job/here && exec python -P -m rl.cli.cluster.entry run "
        f"'my recipe.yaml' rl.steps=3 'name=a b' output_dir={tmp_path}"
    )


def test_variables_are_sent_on_request_only():
    here = {"HF_TOKEN": "secret", "HF_HOME": "/home/me", "HOME": "/home/me", "https_proxy": "http://proxy:1"}
    always = {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    assert job_environment([], here) == always
    wanted = ["HF_TOKEN", "HF_HUB_OFFLINE=1", "https_proxy"]
    sent = {"HF_TOKEN": "secret", "HF_HUB_OFFLINE": "1", "https_proxy": "http://proxy:1"}
    assert job_environment(wanted, here) == always | sent
    with pytest.raises(UserError, match=r"--env HOME: not sent to clusters; allowed are http_proxy, .* HF_, "):
        job_environment(["HOME"], here)
    with pytest.raises(UserError, match="--env HF_ENDPOINT: is not set here; set it, or write --env HF_ENDPOINT=VALUE"):
        job_environment(["HF_ENDPOINT"], here)


def test_what_may_help_a_failed_job():
    assert "has no trl: install ThinkVL on every node" in failure_hint("ModuleNotFoundError: No module named 'trl'\n")
    assert failure_hint("ModuleNotFoundError: No module named 'of_the_plugin'\n") == ""
    for log in ("/bin/sh: 1: exec: python: not found", "unknown option -P", "Unknown option: -P"):
        assert "must be 3.11 or newer" in failure_hint(log)


@pytest.mark.parametrize("lower", [True, False])
def test_a_proxy_that_cannot_reach_the_cluster_is_named(monkeypatch, lower):
    """A proxy of the environment takes requests to this machine too, unless NO_PROXY says otherwise."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("http_proxy" if lower else "HTTP_PROXY", f"http://me:secret@{proxy}")
        with pytest.raises(UserError, match=f"through the proxy {proxy}.*set NO_PROXY=localhost") as error:
            JobClient("http://localhost:8265")
        assert "secret" not in str(error.value)
    with server(502, "bad gateway") as gateway:
        monkeypatch.setenv("http_proxy", gateway)
        with pytest.raises(UserError, match=r"HTTP 502.*set NO_PROXY=127\.0\.0\.1"):
            JobClient("http://127.0.0.1:8265")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(UserError) as error:
            JobClient(gateway)
        assert "NO_PROXY" not in str(error.value)
