"""One question to an OpenAI-compatible chat endpoint: deadline, retries with back-off, a limit of calls at a time.

Redirects are not followed, so a key goes nowhere but where the recipe says.

Why not OpenAI's client: it would save 88 of 135 lines. But its timeout is for each read, so a server that sends one
byte at a time can hold a call for any time. It retries no truncated or malformed reply and bounds no reply's size.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

_ATTEMPTS = 4
_FIRST_WAIT = 0.5  # seconds; doubled after each attempt
_LONGEST_WAIT = 20.0
_LARGEST = 1 << 20  # bytes of a reply
_AGAIN = frozenset({408, 409, 425, 429})


class JudgeTimeout(Exception):
    """No attempt was answered in its time."""


class JudgeFailed(Exception):
    """The endpoint failed or answered something else; the message says what, without the key."""


class _Retry(Exception):
    def __init__(self, detail: str, *, timed_out: bool = False, after: float | None = None) -> None:
        super().__init__(detail)
        self.timed_out, self.after = timed_out, after


class ChatEndpoint:
    """`POST {url}/chat/completions`. Thread-safe; at most `concurrent` calls are under way, the others wait.

    `seconds` is the limit of one attempt from connecting to the last byte, whatever the server sends in between.
    """

    def __init__(
        self, url: str, *, key: str | None, seconds: float, concurrent: int, first_wait: float = _FIRST_WAIT
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url = {url!r}: must be like https://HOST/v1 or http://127.0.0.1:8000/v1")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/chat/completions"
        self._key, self._seconds, self._first_wait = key, seconds, first_wait
        self._slots = threading.BoundedSemaphore(concurrent)

    def complete(self, request: Mapping[str, Any]) -> str:
        """The text of the first choice. Raises JudgeTimeout or JudgeFailed once all attempts are spent."""
        content = self._retried(request, _needs_text)["choices"][0]["message"]["content"]
        assert isinstance(content, str)
        return content

    def reply(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The whole reply, whose first choice has a message, perhaps without a text. Raises as `complete` does."""
        return self._retried(request, _needs_message)

    def _retried(self, request: Mapping[str, Any], check: Callable[[Any], bool]) -> Mapping[str, Any]:
        body = json.dumps(request).encode()
        with self._slots:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return self._attempt(body, check)
                except _Retry as error:
                    detail = f"{self.without_key(str(error))} ({attempt} attempts)"
                    if attempt == _ATTEMPTS:
                        raise (JudgeTimeout if error.timed_out else JudgeFailed)(detail) from error
                    time.sleep(self._wait(attempt, error.after))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, body: bytes, check: Callable[[Any], bool]) -> Mapping[str, Any]:
        status, headers, reply = self._post(body)
        text = reply.decode("utf-8", "replace")
        if status in _AGAIN or status >= 500:
            raise _Retry(f"status {status}: {text[:200]}", after=_seconds(headers.get("Retry-After")))
        if status != 200:
            raise JudgeFailed(self.without_key(f"status {status}: {text[:200]}"))
        try:
            value = json.loads(text)
            has_text = check(value["choices"][0]["message"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise _Retry(f"the reply is no chat completion: {text[:200]!r}") from error
        if not has_text:
            raise _Retry("the reply's message has no text")
        return value

    def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """One request. A timer shuts the socket at the deadline: a limit for each read would let a slow drip go on."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._seconds)
        late = threading.Event()
        opened: list[socket.socket] = []  # the connection forgets its socket when the server is to close it

        def cut() -> None:
            late.set()
            for link in opened:  # none before it is connected, which has a limit of its own
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(link, socket.SHUT_RDWR)  # SSLSocket's own would race with the read

        timer = threading.Timer(self._seconds, cut)
        timer.daemon = True
        headers = {"Content-Type": "application/json", "Connection": "close"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timer.start()
        try:
            connection.connect()
            opened.append(connection.sock)
            if late.is_set():
                raise TimeoutError
            connection.request("POST", self._path, body, headers)
            reply = connection.getresponse()
            data = reply.read(_LARGEST + 1)
            if late.is_set():
                raise TimeoutError
            if len(data) > _LARGEST:
                raise _Retry(f"the reply is larger than {_LARGEST} bytes")
            return reply.status, dict(reply.headers), data
        except (OSError, http.client.HTTPException) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise _Retry(f"no answer within {self._seconds} s", timed_out=True) from error
            raise _Retry(f"{type(error).__name__}: {error}") from error
        finally:
            timer.cancel()
            connection.close()

    def _wait(self, attempt: int, after: float | None) -> float:
        wait = self._first_wait * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
        return min(max(wait, after or 0.0), _LONGEST_WAIT)

    def without_key(self, text: str) -> str:
        """`text` with the key blanked out, should a server echo it."""
        return text.replace(self._key, "***") if self._key else text


def _needs_text(message: Any) -> bool:
    return isinstance(message["content"], str)


def _needs_message(message: Any) -> bool:
    return isinstance(message, dict)


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdigit() and len(value) < 6 else None
