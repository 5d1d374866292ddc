"""A chat endpoint on this machine that behaves as each test tells it to, well or badly."""

import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def verdict(request, equivalent):
    """What an honest judge replies: it repeats the word that stands in the user message."""
    word = json.loads(request["messages"][1]["content"])["word"]
    return completion(json.dumps({"equivalent": equivalent, "word": word}))


class JudgeServer:
    """`answers`: one function a request, the last one for all that follow; (request) -> bytes, or (status, bytes)."""

    def __init__(self, *answers):
        self.answers, self.requests, self.headers = list(answers), [], []
        self.at_once = self.most = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._lock:
                    outer.requests.append(json.loads(body))
                    outer.headers.append((self.path, dict(self.headers)))
                    answer = outer.answers[min(len(outer.requests), len(outer.answers)) - 1]
                    outer.at_once += 1
                    outer.most = max(outer.most, outer.at_once)
                try:
                    made = answer(json.loads(body))
                finally:  # before the reply: a client that has read it may call again at once
                    with outer._lock:
                        outer.at_once -= 1
                with contextlib.suppress(OSError):
                    outer.reply(self, made)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def reply(self, handler, made):
        status, body = made if isinstance(made, tuple) else (200, made)
        handler.send_response(status)
        if isinstance(body, bytes):
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for piece in [body] if isinstance(body, bytes) else body:
            handler.wfile.write(piece)
            handler.wfile.flush()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def honest(request):
    """Equivalent where the two answers have a word in common."""
    data = json.loads(request["messages"][1]["content"])
    same = set(re.findall(r"\w+", data["reference"])) & set(re.findall(r"\w+", data["student_answer"]))
    return verdict(request, bool(same))


def drip(_):
    """A valid start, then a byte now and then, for ever: each read succeeds in time."""

    def pieces():
        while True:
            yield b" "
            time.sleep(0.05)

    return 200, pieces()
