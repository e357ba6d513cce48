"""`comity` as a small program; a process forked from a server that has imported everything does its work.

A shell, or a command that starts others, finds a program `comity` whose start takes a few milliseconds. It passes its
arguments, environment, folder and three streams to the server, forwards signals, and ends as the forked process does.
If the program is killed, so is that process. In other namespaces than the server's it becomes the real program.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import marshal
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import IO, cast
from unittest.mock import patch

from comity.content import fault
from comity_cli.lab import lab
from comity_cli.start import start
from support.forked import FORKS

LENGTH = 4
NAMESPACES = ("mnt", "net", "pid", "user")
_PROGRAM = """#!{python} -IS
import _signal, _socket, marshal, posix, sys
arguments, module = sys.argv[1:], ["-m", "comity_cli.main"]
ours = {ours}
if ours and arguments[:2] == module:
    arguments = arguments[2:]
elif ours:
    posix.execv({python!r}, [{python!r}, *arguments])
if [posix.readlink("/proc/self/ns/" + name) for name in {namespaces}] != {spaces}:
    posix.execv({python!r}, [{python!r}, *module, *arguments])
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({address!r})
request = marshal.dumps((arguments, dict(posix.environ), posix.getcwd(), False))
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
server.sendmsg([len(request).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(request)
process = int.from_bytes(server.recv(4), "big")
for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
    _signal.signal(number, lambda number, frame: posix.kill(process, number))
status = int.from_bytes(server.recv(4) or b"\\0\\0\\0\\x01", "big", signed=True)
if status < 0:
    if status != -_signal.SIGKILL:
        _signal.signal(-status, _signal.SIG_DFL)
    posix.kill(posix.getpid(), -status)
posix._exit(status)
"""


@dataclass(frozen=True)
class CommandServer:
    """Programs `comity` and `python` in `folder`: the second is `comity` if it is called with `-m` and its module."""

    folder: Path

    @property
    def address(self) -> str:
        return str(self.folder / "server")

    @property
    def comity(self) -> Path:
        return self.folder / "comity"

    def write_programs(self) -> None:
        spaces = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES]
        for name in ("comity", "python"):
            text = _PROGRAM.format(
                python=sys.executable,
                ours=name == "python",
                namespaces=NAMESPACES,
                spaces=spaces,
                address=self.address,
            )
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)


@functools.cache
def command_server() -> CommandServer:
    """The server of this process. It ends with this process, and the processes that it has forked end too."""
    server = CommandServer(Path(tempfile.mkdtemp(prefix="comity-commands-")))
    server.write_programs()
    here, there = FORKS.Pipe()
    process = FORKS.Process(target=_serve, args=(str(server.folder), there), daemon=True)
    process.start()
    there.close()
    atexit.register(_stop, here, process)
    assert here.recv() == "up"
    return server


def _stop(lifeline: Connection, process: ForkServerProcess) -> None:
    lifeline.close()
    process.join(10)


class ForkedNode:
    """`comity serve …` with the methods of `subprocess.Popen` that a lab uses. It outlives the process that started it,
    as a node of a lab does.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        start_new_session: bool,
        server: CommandServer,
    ) -> None:
        assert command[1:3] == ["-m", "comity_cli.main"] and start_new_session
        self.stdin: IO[bytes] | None = None
        given = os.open(os.devnull, os.O_RDONLY)
        if stdin == subprocess.PIPE:
            os.close(given)
            given, ours = os.pipe()
            self.stdin = os.fdopen(ours, "wb", buffering=0)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server.address)
        environ = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
        request = marshal.dumps((list(command[3:]), environ, str(Path.cwd()), True))
        socket.send_fds(self._server, [len(request).to_bytes(LENGTH, "big")], [given, stdout.fileno(), stderr.fileno()])
        self._server.sendall(request)
        os.close(given)
        self.pid = int.from_bytes(self._server.recv(LENGTH), "big")
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self._ended()
        return self._status

    def wait(self) -> int:
        if self._status is None:
            self._server.setblocking(True)
            self._ended()
        assert self._status is not None
        return self._status

    def _ended(self) -> None:
        self._status = int.from_bytes(self._server.recv(LENGTH), "big", signed=True)
        self._server.close()


@contextlib.contextmanager
def lab_nodes_are_forked(server: CommandServer) -> Iterator[None]:
    """Within the block, the server forks the nodes of labs that this process starts."""
    started = functools.partial(ForkedNode, server=server)
    forked = SimpleNamespace(Popen=started, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with patch.object(lab, "subprocess", forked):
        yield


@dataclass(frozen=True)
class _Request:
    arguments: list[str]
    environ: Mapping[bytes, bytes]
    folder: str
    is_node: bool
    streams: Sequence[int]


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int
    asker: socket.socket
    is_node: bool


def _serve(folder: str, lifeline: Connection) -> None:
    """In the server, returns when the other end of `lifeline` is closed. Its forked children are the commands."""
    server = CommandServer(Path(folder))
    with _Listener(server, lifeline) as listener:
        request = listener.listen()
    if request is not None:
        _run(request, server)
    else:
        shutil.rmtree(folder)


class _Listener:
    """Forks a child for each request, reports its status, and kills it if its caller is gone."""

    def __init__(self, server: CommandServer, lifeline: Connection) -> None:
        self._lifeline = lifeline
        self._children: list[_Child] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(server.address)
        self._door.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ, self._fork)
        self._selector.register(lifeline, selectors.EVENT_READ)
        lifeline.send("up")

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the server's files in this process."""
        self._selector.close()
        self._door.close()
        self._lifeline.close()
        for child in self._children:
            os.close(child.ended)
            child.asker.close()

    def listen(self) -> _Request | None:
        """None in the server, at its end; in a forked child, its task."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._lifeline:
                    for child in self._children:
                        os.kill(child.pid, signal.SIGKILL)
                    return None
                if (request := key.data()) is not None:
                    return cast("_Request", request)

    def _fork(self) -> _Request | None:
        asker, _ = self._door.accept()
        request = _received(asker)
        if request is None:
            asker.close()
            return None
        pid = os.fork()
        if pid == 0:
            asker.close()
            return request
        for stream in request.streams:
            os.close(stream)
        child = _Child(pid, os.pidfd_open(pid), asker, request.is_node)
        self._children.append(child)
        self._selector.register(child.ended, selectors.EVENT_READ, functools.partial(self._tell_status, child))
        self._selector.register(asker, selectors.EVENT_READ, functools.partial(self._asker_is_gone, child))
        with contextlib.suppress(OSError):
            asker.sendall(pid.to_bytes(LENGTH, "big"))
        return None

    def _tell_status(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._children.remove(child)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.asker)
        self._selector.unregister(child.ended)
        os.close(child.ended)
        with contextlib.suppress(OSError):
            child.asker.sendall(os.waitstatus_to_exitcode(status).to_bytes(LENGTH, "big", signed=True))
        child.asker.close()

    def _asker_is_gone(self, child: _Child) -> None:
        self._selector.unregister(child.asker)
        if not child.is_node:
            os.kill(child.pid, signal.SIGKILL)


def _received(asker: socket.socket) -> _Request | None:
    """The request; None if the caller ended before it was complete."""
    length, streams, *_ = socket.recv_fds(asker, LENGTH, 3)
    with asker.makefile("rb") as sent:
        request = sent.read(int.from_bytes(length, "big"))
    if len(streams) == 3 and request:
        arguments, environ, folder, is_node = marshal.loads(request)
        return _Request(arguments, environ, folder, is_node, streams)
    for stream in streams:
        os.close(stream)
    return None


def _run(request: _Request, server: CommandServer) -> None:
    """`comity ARGUMENT…`, in a process that is forked."""
    gc.freeze()  # the server's objects are no garbage, and a search through them would copy its memory
    if request.is_node:
        os.setsid()
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(request.folder)
    os.environb.clear()
    os.environb.update(request.environ)
    fault.point = fault.arm(os.environ)
    sys.executable = str(server.folder / "python")
    sys.argv = ["comity", *request.arguments]
    _show_as(["comity", *request.arguments])
    with lab_nodes_are_forked(server):
        start()


def _show_as(command: Sequence[str]) -> None:
    """Make `command` the visible command line of this process, as far as there is space."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    shown = b"".join(os.fsencode(word) + b"\0" for word in command)[: end - begin - 1]
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
