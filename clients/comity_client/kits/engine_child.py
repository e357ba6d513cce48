"""Process around the engine of a kit, started by `comity_client.kits.engine`: request on stdin, what the engine says on
stdout. It ends the engine, and then itself, when stdin ends: so nothing stays if the process that started it dies.

It accepts connections from a listening socket that it inherits, and relays them to the engine's port. In an empty
network namespace it brings the loopback interface up, which is all that the engine has there. The engine gets the
rights on files that the request names, as far as the kernel can refuse the others, and no capability.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from comity.content.confinement import confine_files, drop_capabilities

from comity_client.kits.relay import Streams, relaying

LOOPBACK: Final = "127.0.0.1"
GRACE_SECONDS: Final = 5.0
"""Seconds that the engine has to end by itself."""
_PR_SET_PDEATHSIG: Final = 1
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


async def supervise(request: dict[str, Any], stopped: asyncio.Event) -> int:
    """Run the engine until it ends or `stopped` is set; returns its exit status, or 0 if it was stopped."""
    if request["isolated"]:
        raise_loopback()
    engine = await asyncio.create_subprocess_exec(
        *request["command"],
        env=request["environment"],
        cwd=request["folder"],
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_rights(request),
    )

    async def connect() -> Streams:
        return await asyncio.open_connection(LOOPBACK, request["port"])

    with _ending(engine.pid):
        async with relaying(socket.socket(fileno=request["listener"]), connect):
            ended = asyncio.ensure_future(engine.wait())
            asked = asyncio.ensure_future(stopped.wait())
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ended.done():
            return ended.result() if ended.result() >= 0 else 128 - ended.result()
        _signal(engine.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, GRACE_SECONDS)
        return 0


def raise_loopback() -> None:
    """Bring the loopback interface of this network namespace up. Raises OSError. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(any_socket, _GET_FLAGS, name))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def _rights(request: dict[str, Any]) -> Callable[[], None]:
    """What the engine's process does before it becomes the engine."""
    readable, writable = ([Path(path) for path in request[name]] for name in ("readable", "writable"))

    def limit() -> None:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        drop_capabilities()
        if request["confined"] and not confine_files(readable, writable):
            raise OSError("the engine's files cannot be restricted")

    return limit


@contextlib.contextmanager
def _ending(group: int) -> Iterator[None]:
    """End the process group of the engine with the block."""
    try:
        yield
    finally:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _main() -> int:
    request: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(sys.stdin.fileno())
        stopped.set()

    loop.add_reader(sys.stdin.fileno(), stop)  # nothing comes but the end
    return await supervise(request, stopped)


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
