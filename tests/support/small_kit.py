"""A kit whose engine is a page of Python with one small wheel, in the way that a test wants it to behave."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from comity.rules.kits.cases import KitCases
from comity.rules.kits.description import (
    BOM_FILE,
    KIT_FILE,
    LOCK_FILE,
    SAMPLES_FILE,
    SELFTEST_FILE,
    Kit,
    KitEngine,
    KitNeeds,
    KitPart,
    KitPlatform,
)
from comity.trust.encoding import Json, canonical, sha256

ENGINE: Final = """
import http.server, json, os, pathlib, socket, sys, time
import small_words

mode, host, port = sys.argv[1:]
if mode == "exit":
    print("no weights here", file=sys.stderr)
    sys.exit(3)
if mode == "outside":
    socket.create_connection(("192.0.2.1", 443), timeout=5)
if mode == "silent":
    time.sleep(600)

class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def say(self, found):
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        looked = {"/environment": lambda: dict(os.environ), "/network": reaches, "/processes": os.getpid}
        if self.path.startswith("/file/"):
            self.say(reads(self.path.removeprefix("/file")))
        else:
            self.say(looked.get(self.path, lambda: {"status": "ok"})())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if mode == "huge":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" " * 1024 * 1024)
        if mode == "slow":
            time.sleep(600)
        if mode == "dies":
            os._exit(4)
        question = asked["messages"][-1]["content"]
        self.say({"choices": [{"message": {"content": small_words.answer(question)}}]})

def reaches():
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=5).close()
        return "reached"
    except OSError as error:
        return error.strerror or str(error)

def reads(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError as error:
        return error.strerror

http.server.ThreadingHTTPServer((host, int(port)), Server).serve_forever()
"""
WHEEL: Final = "wheels/small_words-1.0-py3-none-any.whl"
WORDS: Final = """
ANSWERS = {"capital of France": "The capital of France is Paris.", "two and two": "Four."}

def answer(question):
    return next((text for words, text in ANSWERS.items() if words in question), "I do not know.")
"""


def case(name: str, question: str, contains: str) -> dict[str, Any]:
    """A case of a chat."""
    body = {"messages": [{"role": "user", "content": question}]}
    expect = [{"at": "/choices/0/message/content", "contains": contains}]
    return {"name": name, "method": "POST", "path": "/v1/chat/completions", "body": body, "expect": expect}


CAPITAL: Final = case("capital", "What is the capital of France?", "Paris")
SUM: Final = case("sum", "What is two and two?", "four")
WRONG: Final = case("poet", "Who wrote Faust?", "Goethe")


def cases_file(*cases: Mapping[str, Json]) -> bytes:
    return KitCases.from_json({"schema": "comity/kit-cases/v1", "cases": list(cases)}).encode()


def small_wheel() -> bytes:
    """The same bytes at each call."""
    import io

    info, made = "small_words-1.0.dist-info", io.BytesIO()
    files = {
        "small_words.py": WORDS,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: small-words\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_record(text.encode())},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return made.getvalue()


def _record(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def write_small_kit(
    folder: Path,
    mode: str = "good",
    *,
    selftest: Sequence[Mapping[str, Json]] = (CAPITAL,),
    samples: Sequence[Mapping[str, Json]] = (),
    ready_seconds: int = 60,
    environment: Mapping[str, str] = {},
    others: Mapping[str, bytes] = {},
) -> Kit:
    """Write a kit into `folder`. `others` are files in the place of the kit's own, or beside them."""
    wheel = small_wheel()
    files = {
        WHEEL: wheel,
        LOCK_FILE: f"small-words==1.0 \\\n    --hash=sha256:{sha256(wheel)}\n".encode(),
        "engine/serve.py": ENGINE.encode(),
        SELFTEST_FILE: cases_file(*selftest),
        BOM_FILE: canonical({"bomFormat": "CycloneDX"}),
        **({SAMPLES_FILE: cases_file(*samples)} if samples else {}),
        **others,
    }
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ("{python}", "{kit}/engine/serve.py", mode, "{host}", "{port}")
    parts = tuple(
        KitPart(path, sha256(files[path]), len(files[path]), *_names(path)) for path in sorted(files, key=str.encode)
    )
    engine = KitEngine("small", "1.0", command, environment, "/health", ready_seconds)
    platform, needs = KitPlatform("any", "any", "", (version,)), KitNeeds(0, 0, 0, "")
    kit = Kit("small-chat", "chat", platform, engine, needs, parts, ())
    (folder / KIT_FILE).write_bytes(kit.encode())
    return kit


def _names(path: str) -> tuple[str, str, str]:
    return ("small-words", "1.0", "MIT") if path == WHEEL else ("", "", "")


def chat(question: str) -> bytes:
    """The body of a request."""
    return json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
