"""Starts the engine of a kit and serves it on a port of this machine, while the engine itself has no network.

    async with running_engine(folder, kit, installed) as engine:
        results = await ask_cases(engine.base_url, cases)

The engine is a program of strangers. It gets a clean environment, an empty network namespace, a process namespace that
ends with it, and files only of the kit, of its Python, and of the system; `RunningEngine.proof` says which of these the
system allows. A process around it (`engine_child`) relays connections, and ends it when this process ends, also by a
signal that nothing can catch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from comity.content.confinement import landlock_version
from comity.rules.kits.description import Kit
from comity.trust.encoding import printable
from comity.trust.errors import Unavailable

from comity_client.kits.asking import ask
from comity_client.kits.engine_child import GRACE_SECONDS, LOOPBACK
from comity_client.kits.install import InstalledKit
from comity_client.kits.isolation import Isolated, offline

MAX_WORDS: Final = 16 * 1024
"""Bytes of the end of what an engine printed that are kept."""
PORT_INSIDE: Final = 8080
"""In a network namespace of its own any port is free."""
PROBE_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.1
SYSTEM_FOLDERS: Final = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys")
"""Read by an engine. Programs of the system and accelerators need them."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "nvidia*", "dri", "kfd")
"""Below `/dev`, used by an engine; what else is there, such as shared memory, may hold files of the user."""
KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TZ")
"""Variables of this process that an engine gets; all others may hold a secret."""
CLEAN_VARIABLES: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
_NETWORK_ERRORS: Final = (
    "Network is unreachable",
    "Name or service not known",
    "name resolution",
    "getaddrinfo",
    "Could not resolve host",
    "Max retries exceeded",
)


class RunningEngine:
    """An engine that answers. Not thread-safe: use it in the event loop that started it.

    Attributes:
        base_url: where it is served, such as `http://127.0.0.1:8080`, without the path of a route.
        isolated: whether it has no network.
        confined: whether it reads only files of the kit, of its Python and of the system.
        proof: how it is isolated, in words.
        ready_seconds: from its start until it was ready.
    """

    def __init__(self, base_url: str, isolated: Isolated, child: _Child, confined: bool, ready_seconds: float) -> None:
        self.base_url, self.isolated, self.confined = base_url, not isolated.network, confined
        self.proof = isolated.proof + (f", and only its own files (Landlock {landlock_version()})" if confined else "")
        self.ready_seconds = ready_seconds
        self._child = child

    async def ended(self) -> Unavailable:
        """Wait until the engine ends by itself; returns what there is to say of it."""
        status = await self._child.process.wait()
        return _failed(f"it ended with status {status}", await self._child.last_words(), self.isolated)


@contextlib.asynccontextmanager
async def running_engine(
    folder: Path, kit: Kit, installed: InstalledKit, *, isolated: bool = True, port: int = 0
) -> AsyncIterator[RunningEngine]:
    """Start the engine of the kit in `folder`, wait until it is ready, and end it with the block.

    Args:
        isolated: without a network, if the system allows it; `RunningEngine.isolated` says whether it did.
        port: of this machine, where it is served; 0 takes a free one.

    Raises Unavailable (KIT-ENGINE) if it does not start or is not ready in time, with the last words of it; KIT-PORT if
    the port is taken.
    """
    if not kit.engine.command:
        raise Unavailable("the kit has no command", why="its engine is an image", code="KIT-ENGINE")
    with tempfile.TemporaryDirectory(prefix="comity-engine-") as scratch, _listening(port) as listener:
        how = await asyncio.to_thread(_isolation, isolated)
        request = _request(folder.resolve(), kit, installed, Path(scratch), inside=how)
        address = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        child = await _Child.start(how, request, listener)
        try:
            began = time.monotonic()
            await _wait_until_ready(address, kit, child, not how.network)
            yield RunningEngine(address, how, child, request["confined"], time.monotonic() - began)
        finally:
            await child.stop()


def _isolation(wanted: bool) -> Isolated:
    command = [sys.executable, "-I", str(Path(__file__).with_name("engine_child.py"))]
    return offline(command, processes=True) if wanted else Isolated(command, "the normal network, as asked", True)


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            hint = "repeat with --port OTHER"
            raise Unavailable(f"port {port} is taken", why=error.strerror or "", hint=hint, code="KIT-PORT") from error
        listener.listen(128)
        yield listener


def _request(folder: Path, kit: Kit, installed: InstalledKit, scratch: Path, *, inside: Isolated) -> dict[str, Any]:
    """What the process around the engine is told."""
    port = _free_port() if inside.network else PORT_INSIDE
    given = {"python": str(installed.python), "kit": str(folder), "host": LOOPBACK, "port": str(port)}
    linked = {(folder / part.path).resolve().parent for part in kit.parts}
    readable = {folder, *linked, installed.folder, installed.prefix, *map(Path, SYSTEM_FOLDERS)}
    return {
        "command": [_filled(word, given) for word in kit.engine.command],
        "environment": _environment(kit, installed, scratch),
        "folder": str(scratch),
        "port": port,
        "isolated": not inside.network,
        "confined": landlock_version() > 0,
        "readable": sorted(map(str, readable)),
        "writable": [str(scratch), *(str(found) for name in DEVICES for found in sorted(Path("/dev").glob(name)))],
    }


def _filled(word: str, given: Mapping[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _environment(kit: Kit, installed: InstalledKit, scratch: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    own = {
        "PATH": os.pathsep.join([str(installed.python.parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
    }
    return {**kept, **CLEAN_VARIABLES, **kit.engine.environment, **own}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def _wait_until_ready(address: str, kit: Kit, child: _Child, isolated: bool) -> None:
    until = time.monotonic() + kit.engine.ready_seconds
    ended = asyncio.ensure_future(child.process.wait())
    try:
        while time.monotonic() < until and not ended.done():
            with contextlib.suppress(Unavailable):
                if (await ask(address, "GET", kit.engine.ready, seconds=PROBE_SECONDS)).status == 200:
                    return
            await asyncio.wait({ended}, timeout=PAUSE_SECONDS)
    finally:
        ended.cancel()
    if child.process.returncode is not None:
        raise _failed(f"it ended with status {child.process.returncode}", await child.last_words(), isolated)
    why = f"{kit.engine.ready} did not answer 200 within {kit.engine.ready_seconds} s"
    await child.stop()
    raise _failed(why, await child.last_words(), isolated)


def _failed(why: str, words: str, isolated: bool) -> Unavailable:
    if isolated and any(sign in words for sign in _NETWORK_ERRORS):
        why += "; it looked for something outside, and has no network: a kit brings all that it needs"
    said = printable(" | ".join(line for line in words.splitlines()[-8:] if line.strip()))[-1000:]
    return Unavailable("the engine does not run", why=f"{why}. It said: {said or 'nothing'}", code="KIT-ENGINE")


class _Child:
    """The process around the engine. Its standard input ends with this process, whatever becomes of that."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._words = bytearray()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, how: Isolated, request: Mapping[str, Any], listener: socket.socket) -> _Child:
        try:
            process = await asyncio.create_subprocess_exec(
                *how.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            raise _failed(f"no process can be started: {error.strerror}", "", False) from error
        child = cls(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps({**request, "listener": listener.fileno()}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        listener.close()  # connections that nobody here accepts are refused once the child has ended
        return child

    async def _read(self) -> None:
        """Keep the end of what it prints, and let it never wait for a reader."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(MAX_WORDS):
            self._words += data
            del self._words[:-MAX_WORDS]

    async def last_words(self) -> str:
        """What it printed last, once it has ended."""
        await asyncio.wait({self._reading}, timeout=GRACE_SECONDS)
        return self._words.decode("utf-8", "replace")

    async def stop(self) -> None:
        """End the engine: it is asked, and after `GRACE_SECONDS` it is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 2 * GRACE_SECONDS)
        finally:
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            await asyncio.wait({self._reading}, timeout=GRACE_SECONDS)
            self._reading.cancel()
