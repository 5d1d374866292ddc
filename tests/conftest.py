"""Tests are offline, on one thread, and each draws its random numbers from a seed of its own."""

import importlib.util
import ipaddress
import os
import shutil
import signal
import socket
import sys
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: tests share their cores with Ray's workers
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# With a token of an earlier run in the home folder, `ray start` asks for it and a second node cannot join.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import settings

# These tests need another environment: `make test-vllm`. The folder is not named `vllm`, which libraries look for.
collect_ignore = [] if importlib.util.find_spec("vllm") else ["vllm_engine"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# A script that starts pytest in the background ignores Ctrl-C, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("thinkvl", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("thinkvl")


@pytest.fixture
def rng(request):
    """A numpy generator seeded by the test's name: the same numbers in every run, wherever its file lives."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="module")
def no_ray():
    """Ray is not running in this process: what other modules share for the whole session is ended."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        sys.modules["ray"].shutdown()


@pytest.fixture(autouse=True, scope="session")
def _offline():
    """Python sockets reach this machine and its own network only; a test that contacts the internet fails at once."""
    patch = pytest.MonkeyPatch()
    connect = socket.socket.connect

    def connect_nearby(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM and _is_far(address[0]):
            raise RuntimeError(f"tests are offline, and this one connects to {address[0]}:{address[1]}")
        return connect(self, address)

    patch.setattr(socket.socket, "connect", connect_nearby)
    yield
    patch.undo()


def _is_far(host):
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host not in ("localhost", socket.gethostname())
    return address.is_global and host not in socket.gethostbyname_ex(socket.gethostname())[2]


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; the test is skipped where playwright or a browser is missing."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: make test-browser installs it")
    found = os.environ.get("THINKVL_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium was found: apt install chromium, or set THINKVL_CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
