"""A chat server in this process that answers as a function says, and a file of sums."""

import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        question = content if isinstance(content, str) else next(part["text"] for part in content if "text" in part)
        self.server.bodies.append({**body, "question": question})
        message, reason = self.server.answer(question, body["seed"])
        status = 200 if isinstance(message, dict) else message
        choice = {"message": message, "finish_reason": reason}
        reply = json.dumps({"choices": [choice]} if status == 200 else {"error": reason}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@contextmanager
def chat_server(answer):
    """`answer(question, seed)` gives (message or status, finish reason). `bodies` are the requests."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.bodies, found.answer = [], answer
    found.url = f"http://127.0.0.1:{found.server_port}/v1"
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def says(content, *, thought=None, reason="stop"):
    """An answer, with thinking where there is any."""
    return {"role": "assistant", "content": content, "reasoning_content": thought}, reason


def square(colour, kind="PNG", size=64):
    """An encoded image of one colour with a black corner."""
    image = Image.new("RGB", (size, size), colour)
    image.paste("black", (0, 0, size // 4, size // 4))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_rows(path, rows):
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
