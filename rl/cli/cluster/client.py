"""A client of Ray Jobs over HTTP: submits a job and follows its log; a connection fails within seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import requires
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from configs.errors import UserError
from configs.text import one_line

CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 60.0  # how long a lost connection is tried again while a job is followed
_POLL_SECONDS = 0.5
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers them to the address that it is given
_LOST = (requests.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError, RuntimeError)

T = TypeVar("T")


class JobClient:
    """The job server of a cluster. Every method raises UserError where the cluster does not answer or refuses."""

    def __init__(self, address: str) -> None:
        self.address = _checked_address(address)
        self.ray_version = _probe(self.address)
        for name in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)  # their news are no news
        with _without(_OVERRIDES):
            self._client = self._ask(lambda: JobSubmissionClient(self.address))

    def submit(self, *, job: str, entrypoint: str, runtime_env: dict[str, Any], gpus: float) -> None:
        """Send the files and start the job named `job`."""
        options: dict[str, Any] = {"entrypoint_num_gpus": gpus} if gpus else {}
        self._ask(
            lambda: self._client.submit_job(
                entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env, **options
            )
        )

    def details(self, job: str) -> JobDetails:
        """Status, message and exit code of a job."""
        return self._ask(lambda: self._client.get_job_info(job))

    def follow(self, job: str, *, write: Callable[[str], None], say: Callable[[str], None]) -> JobDetails:
        """Pass the log of a job to `write`, and the reason of a wait to `say`, until it ends; return its final details.

        A broken connection is retried for a minute; the log then continues where it stopped.
        """
        seen, lost_since, told = 0, None, ""
        while True:
            try:
                details = self._client.get_job_info(job)
                lost_since = None
                if details.status.is_terminal():
                    seen += self._rest(job, seen, write)
                    return details
                if str(details.status) == "PENDING":
                    message = (details.message or "").strip()
                    if message != told:
                        told = message
                        say(f"waiting: {message}")
                else:
                    seen = asyncio.run(_tail(self._client, job, seen, write))
            except _LOST as error:
                if isinstance(error, _Interrupted):
                    seen = error.seen
                    with suppress(*_LOST):  # where a proxy lets no stream through, the log comes in pieces
                        seen += self._rest(job, seen, write)
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > _RETRY_SECONDS:
                    raise UserError(
                        f"the connection to {self.address} was lost ({one_line(error)}); the job {job} goes on if the "
                        "cluster lives"
                    ) from error
            time.sleep(_POLL_SECONDS)

    def _rest(self, job: str, seen: int, write: Callable[[str], None]) -> int:
        """The log from character `seen` on, which the stream did not deliver."""
        rest = self._client.get_job_logs(job)[seen:]
        if rest:
            write(rest)
        return len(rest)

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except AuthenticationError as error:
            raise UserError(_auth_text(self.address)) from error
        except (requests.RequestException, ConnectionError) as error:
            raise UserError(
                f"{self.address}: no answer from Ray ({one_line(error)}){_proxy_hint(self.address)}"
            ) from error
        except RuntimeError as error:
            raise UserError(f"{self.address}: Ray refused: {one_line(error)}") from error


class _Interrupted(RuntimeError):
    """The log's stream broke after `seen` characters."""

    def __init__(self, seen: int, cause: BaseException) -> None:
        super().__init__(one_line(cause))
        self.seen = seen


async def _tail(client: JobSubmissionClient, job: str, seen: int, write: Callable[[str], None]) -> int:
    """Pass on the log from character `seen` as it grows; return the position of its end. Raises _Interrupted."""
    place = 0
    try:
        async for chunk in client.tail_job_logs(job):  # Ray sends it from the beginning each time
            new = chunk[max(0, seen - place) :]
            place += len(chunk)
            if new:
                write(new)
    except _LOST as error:
        raise _Interrupted(max(seen, place), error) from error
    return max(seen, place)


def _checked_address(address: str) -> str:
    """Normalize a user's address to `http://HOST:PORT`; the default port is 8265. Raises UserError."""
    given = address.strip()
    parts = urlsplit(given if "://" in given else f"http://{given}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise UserError(
            f"--address {address!r}: must be the address of the cluster's dashboard, such as http://HEAD:8265 "
            "(`ray start --head` prints it)"
        )
    path = parts.path.rstrip("/")
    assumed = ":8265" if port is None and parts.scheme == "http" and not path else ""
    return f"{parts.scheme}://{parts.netloc}{assumed}{path}"


def _probe(address: str) -> str:
    """The cluster's version of Ray, with a time limit of seconds, which Ray's own client lacks. Raises UserError."""
    wrong_port = "the dashboard's port is wanted: 8265 by default, not 6379 (Ray itself) or 10001 (Ray Client)"
    hint = _proxy_hint(address)
    try:
        answer = requests.get(f"{address}/api/version", timeout=CONNECT_SECONDS)
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"{address}: no secure connection ({one_line(error)}); try http:// instead of https://{hint}"
        ) from error
    except requests.ConnectTimeout as error:
        raise UserError(
            f"{address}: nothing answers within {CONNECT_SECONDS:.0f} s; is the host reachable?{hint}"
        ) from error
    except requests.Timeout as error:
        raise UserError(f"{address}: connected, but there is no answer; {wrong_port}{hint}") from error
    except requests.RequestException as error:
        what = "connection refused" if "refused" in str(error) else one_line(error)
        raise UserError(
            f"{address}: cannot connect ({what}). Is the cluster up (`ray start --head` on its first node)? "
            f"And {wrong_port}{hint}"
        ) from error
    if answer.status_code in (401, 403):
        return ray.__version__  # checked again with the token, which Ray's client adds
    try:
        found = Version(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError, InvalidVersion) as error:
        raise UserError(
            f"{address}: this is not a Ray dashboard (HTTP {answer.status_code}); {wrong_port}{hint}"
        ) from error
    _check_version(address, found)
    return str(found)


def _proxy_hint(address: str) -> str:
    """Advice where requests to `address` go through a proxy of the environment; else an empty text."""
    proxy = requests.utils.select_proxy(address, requests.utils.get_environ_proxies(address))
    if not proxy:
        return ""
    host, through = urlsplit(address).hostname, urlsplit(proxy if "://" in proxy else f"//{proxy}")
    port = f":{through.port}" if through.port else ""  # without the password that may stand in front
    return (
        f". The request went through the proxy {through.hostname}{port}, which the environment names; to reach the "
        f"cluster directly, set NO_PROXY={host} (and no_proxy, where that is set)"
    )


def _check_version(address: str, found: Version) -> None:
    needed = next(need for need in map(Requirement, requires("thinkvl") or ()) if need.name == "ray")
    if not needed.specifier.contains(found, prereleases=True):
        raise UserError(
            f"{address}: the cluster runs Ray {found}, and ThinkVL needs {needed.specifier} "
            f"(here is {ray.__version__}); on every node: "
            f"pip install 'ray[default]=={ray.__version__}', then start the cluster again"
        )


def _auth_text(address: str) -> str:
    return (
        f"{address}: the cluster requires a token, and the one here is missing or wrong. On the head itself set "
        "RAY_AUTH_MODE=token. Elsewhere copy the head's ~/.ray/auth_token, set it and RAY_AUTH_TOKEN_PATH to that file "
        f"(or RAY_AUTH_TOKEN to its text){_proxy_hint(address)}"
    )


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
