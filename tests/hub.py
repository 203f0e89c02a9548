"""A stand-in for the Hugging Face Hub: takes the commits of its clients, and serves the files that they wrote."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

Files = dict[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    files: Files
    """By repository and name."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = self.path.partition("?")[0].strip("/").split("/")
        url = f"http://{self.headers['Host']}"
        if path[-1] == "create":
            content = json.loads(body)
            self._answer({"url": f"{url}/{content['organization']}/{content['name']}"})
        elif path[-1] == "validate-yaml":
            self._answer({"warnings": []})
        elif path[-2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": name, **modes} for name in names]})
        else:
            repository = "/".join(path[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"{repository}/{line['value']['path']}"] = content
            self._answer({"commitUrl": f"{url}/{repository}/commit/{'0' * 40}", "commitOid": "0" * 40})

    def do_HEAD(self) -> None:
        repository, _, name = self.path.strip("/").partition("/resolve/main/")
        self._answer(self.files.get(f"{repository}/{name}"))

    def do_GET(self) -> None:
        self.do_HEAD()

    def _answer(self, content: Any) -> None:
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@contextmanager
def local_hub(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Files]:
    """Sends what the clients in this process ask of the Hub to a server of their own; yields the files it holds."""
    files: Files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(huggingface_hub.hf_api.api, "endpoint", endpoint)
    patch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
