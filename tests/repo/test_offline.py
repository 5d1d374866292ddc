"""The fixtures of all tests: no internet, one thread, a seed from the test's name."""

import os
import socket

import pytest


def test_the_internet_is_out_of_reach():
    with socket.socket() as caller, pytest.raises(RuntimeError, match=r"tests are offline, .* 8\.8\.8\.8:53"):
        caller.connect(("8.8.8.8", 53))
    with pytest.raises(RuntimeError, match="tests are offline"):
        socket.create_connection(("8.8.4.4", 443), timeout=5)


def test_this_machine_is_within_reach():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        assert caller.getpeername() == server.getsockname()


def test_one_thread_and_no_hub():
    assert {"OMP_NUM_THREADS", "HF_HUB_OFFLINE", "RAY_AUTH_MODE"} <= os.environ.keys()


@pytest.mark.parametrize("name", ["one", "other"])
def test_each_test_has_a_seed_of_its_own(rng, name):
    assert int(rng.integers(1000)) == {"one": 956, "other": 627}[name]
