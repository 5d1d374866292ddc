"""A stand-in for the Hub's HTTP API on the loopback interface: keeps what it is sent, can refuse, can break off."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    def __init__(self, url, private):
        self.url = url
        self.private = private
        self.files = {}  # path -> bytes
        self.large = set()  # paths kept as LFS objects
        self.commits = 0

    @property
    def sha(self):
        return f"{self.commits:040x}"


class HubStandIn(ThreadingHTTPServer):
    """`endpoint` is its address; `requests` lists (method, path) in order; `uploads` the bytes of each whole PUT."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.tokens = {"hf_write": ("ann", "write"), "hf_read": ("ann", "read")}
        self.namespaces = {"ann", "team"}  # where ann may write; "others" exists and is not hers
        self.repositories, self.objects = {}, {}
        self.requests, self.uploads = [], []
        self.break_off = lambda oid: False  # True: close the connection in the middle of this upload
        self.fail_with = {}  # path prefix -> status

    def start(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def count(self, method, part):
        return sum(m == method and part in path for m, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.route("GET")

    def do_POST(self):
        self.route("POST")

    def do_PUT(self):
        hub, oid = self.server, self.path.rsplit("/", 1)[1]
        hub.requests.append(("PUT", self.path))
        size = int(self.headers["Content-Length"])
        if hub.break_off(oid):
            self.rfile.read(size // 2)
            self.connection.close()
            self.close_connection = True
            return
        data = self.rfile.read(size)
        if hashlib.sha256(data).hexdigest() != oid:
            self.answer({"error": "bytes do not have this hash"}, 400)
            return
        hub.uploads.append(data)
        hub.objects[oid] = data
        self.answer({})

    def route(self, method):
        hub = self.server
        hub.requests.append((method, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for prefix, status in hub.fail_with.items():
            if self.path.startswith(prefix):
                return self.answer({"error": "made to fail"}, status)
        self.user, self.role = hub.tokens.get(
            (self.headers.get("Authorization") or "").removeprefix("Bearer "), (None, None)
        )
        if self.path == "/api/validate-yaml":
            return self.validate(json.loads(body))
        if self.user is None:
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/whoami-v2":
            return self.answer({"type": "user", "name": self.user, "auth": {"accessToken": {"role": self.role}}})
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path.endswith("/objects/batch"):
            return self.batch(json.loads(body))
        if self.path.startswith("/verify/"):
            return self.answer({}, 200 if json.loads(body)["oid"] in hub.objects else 404)
        name, _, rest = self.path.removeprefix("/api/models/").partition("?")[0].partition("/")
        owner, (name, _, rest) = name, rest.partition("/")
        repository = hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        action = rest.partition("/")[0]
        if action == "preupload":
            return self.preupload(repository, json.loads(body))
        if action == "commit":
            return self.commit(repository, body)
        if action == "tree":
            return self.tree(repository)
        return self.answer(
            {"id": f"{owner}/{name}", "private": repository.private, "sha": repository.sha, "siblings": []}
        )

    def validate(self, body):
        front = yaml.safe_load(body["content"].split("---\n")[1])
        wrong = [] if isinstance(front, dict) and front.get("license") else [{"message": "license is missing"}]
        self.answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def create(self, body):
        hub, name = self.server, f"{body['organization'] or self.user}/{body['name']}"
        if body["organization"] not in {None, "others", *hub.namespaces}:
            return self.answer({"error": "Namespace does not exist"}, 404)
        if body["organization"] not in hub.namespaces:
            return self.answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
        url = f"{hub.endpoint}/{name}"
        if name in hub.repositories:
            return self.answer({"error": "You already created this model repo", "url": url}, 409)
        hub.repositories[name] = Repository(url, private=body["visibility"] == "private")
        return self.answer({"url": url, "name": name})

    def preupload(self, repository, body):
        found = []
        for file in body["files"]:
            large = file["path"].endswith((".safetensors", ".model"))
            there = repository.files.get(file["path"])
            oid = None
            if there is not None:
                oid = hashlib.sha256(there).hexdigest() if file["path"] in repository.large else git_hash(there)
            found.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self.answer({"files": found})

    def batch(self, body):
        hub = self.server
        objects = []
        for item in body["objects"]:
            if item["oid"] not in hub.objects:
                upload = {"href": f"{hub.endpoint}/storage/{item['oid']}", "header": {}}
                verify = {"href": f"{hub.endpoint}/verify/{item['oid']}", "header": {}}
                item = {**item, "actions": {"upload": upload, "verify": verify}}
            objects.append(item)
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repository, body):
        hub = self.server
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in hub.objects:
                    return self.answer({"error": "no such object"}, 400)
                repository.files[value["path"]] = hub.objects[value["oid"]]
                repository.large.add(value["path"])
            elif entry["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        return self.answer({"commitUrl": f"{repository.url}/commit/{repository.sha}", "commitOid": repository.sha})

    def tree(self, repository):
        self.answer(
            [
                {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
                for path, data in repository.files.items()
            ]
        )

    def answer(self, content, status=200, headers=()):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
