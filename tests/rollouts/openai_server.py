"""A server with OpenAI's completions API in this process."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Counts up from the prompt's last token, as far as seed and sample say. A seed of 666 is an error, 99 waits."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append((self.path, body))
        seed, sample = divmod(body["seed"], 1_000_003)
        if seed == 99:
            self.server.released.wait(30)
        if seed == 666:
            self.send_error(500)
            return
        ids = [body["prompt"][-1] + 1 + i for i in range(seed + sample)]
        logprobs = {"tokens": [f"token_id:{i}" for i in ids], "token_logprobs": [-0.5 * i for i in range(len(ids))]}
        reply = json.dumps({"choices": [{"finish_reason": "stop", "logprobs": logprobs}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@contextmanager
def openai_server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.bodies, found.released = [], threading.Event()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.released.set()
    found.shutdown()
    found.server_close()
