"""Each fsync, rename and link of the write path follows a fault point: the test watches the system calls themselves.

Two nodes and a client run under strace with the fault log on, so that points and calls of each thread are in one order.
A call on a file of ours must directly follow the point that is named after it. SQLite makes its own calls: they must be
between a point `….before-commit` and `….after-commit`, or belong to the opening and closing of a database.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity_client.client import Client
from comity_client.home import Home
from support.federation import converged, found, until
from support.ports import wait_until_listening
from support.publisher import model
from support.tools import needs
from support.waiting import PATIENCE
from support.write_path import ALL

pytestmark = pytest.mark.slow

TRACED = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,write"
STEPS = {
    "fsync": ("fsync", "folder", "source", "again", "marker"),
    "rename": ("rename",),
    "link": ("link",),
}
OPENED = "a database opened or closed"
CALL = re.compile(r"(\d+) +(fsync|fdatasync|rename|link|write)(?:at2?)?\((.*)")
NODE = "import pathlib, sys; from comity.node.app import run; run(pathlib.Path(sys.argv[1]))"


class Trace:
    """Programs under strace, and the trace of their threads: points hit, and calls on files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = folder / "hits.txt"
        self._strace = needs("strace", unlock="apt-get install strace")
        self._outputs: list[Path] = []

    def start(self, *command: str, home: Path | None = None) -> subprocess.Popen[bytes]:
        output = self.folder / f"strace-{len(self._outputs)}.txt"
        self._outputs.append(output)
        # with --seccomp-bpf only the traced calls stop a program: without it the start of a Python takes seconds
        traced = [self._strace, "-D", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "80"]
        traced += ["-e", f"trace={TRACED}", "-e", "signal=none"]
        environ = {"COMITY_FAULT_LOG": str(self.hits), "COMITY_HOME": str(home or self.folder)}
        return subprocess.Popen(
            [*traced, "-o", str(output), *command],
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def programs(self) -> int:
        return len(self._outputs)

    def threads(self) -> Iterator[list[tuple[str, str]]]:
        """(call, path) of each thread in order, a point as ("point", name)."""
        for output in self._outputs:
            threads: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
            for line in output.read_text(errors="replace").splitlines():
                if (call := CALL.match(line)) is None:
                    continue
                thread, name, arguments = call.groups()
                if name == "write":
                    if str(self.hits) in arguments:
                        threads[thread].append(("point", arguments.split('"')[1].removesuffix("\\n")))
                elif str(self.folder) in arguments:
                    threads[thread].append((name, arguments))
            yield from threads.values()


def unaccounted(calls: list[tuple[str, str]]) -> Iterator[str]:
    """Calls of one thread that follow no point, and that SQLite does not make within a commit."""
    point, used = "", True
    for call, what in calls:
        if call == "point":
            point, used = what, False
        elif call == "fdatasync" or ".sqlite" in what:  # SQLite's: no other code calls fdatasync
            if not point.endswith("before-commit"):
                yield OPENED
        elif used or point.rpartition(".")[2] not in STEPS[call]:
            yield f"{call} after {point or 'nothing'}: {what[:200]}"
        else:
            used = True


async def test_every_sync_and_rename_follows_its_fault_point(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    founded = found(tmp_path / "nodes", 2)
    first = founded.homes[0]
    (tmp_path / "federation.json").write_bytes(founded.federation.encode())
    source = model(tmp_path / "source", weights=9_000_000)
    (source / "config-again.json").write_bytes((source / "config.json").read_bytes())
    nodes = [trace.start(sys.executable, "-c", NODE, str(home.directory / "node.toml")) for home in founded]
    try:
        for home, node in zip(founded, nodes, strict=True):
            await asyncio.to_thread(wait_until_listening, home.listener_port, node)
        await converged(founded.homes, first, least=2)
        comity = (sys.executable, "-m", "comity_cli.main")
        publish = ("publish", str(source), "--as", "tests/model@v1", "--licence", "mit")
        for arguments in (
            ("trust", "pin", str(tmp_path / "federation.json"), "--yes"),
            ("publisher", "new", "tests", "--jurisdiction", "NO", "--home", first.origin),
            (*publish, "--node", f"unix:{first.socket}", "--link"),
        ):
            assert await asyncio.to_thread(trace.start(*comity, *arguments).wait, PATIENCE) == 0
        client = Client(Home(tmp_path))
        await until(
            lambda: asyncio.to_thread(lambda: sum(r.complete for r in client.whereis("tests/model@v1")) == 2),
            what="the second copy",
        )
        for place in (("--to", str(tmp_path / "pulled")), ("--hub-cache", str(tmp_path / "hub"))):
            pull = (*comity, "pull", "tests/model@v1", *place)
            assert await asyncio.to_thread(trace.start(*pull).wait, PATIENCE) == 0
    finally:
        for node in nodes:
            node.terminate()
            await asyncio.to_thread(node.wait, 30)
    await asyncio.sleep(1)  # the tracers, which are no children of this process, write their last lines
    missed = Counter(found for calls in trace.threads() for found in unaccounted(calls))
    made = Counter(call for calls in trace.threads() for call, _ in calls)
    print(*(f"{count:6d}  {call}" for call, count in (made + missed).items()), sep="\n")
    assert {what for calls in trace.threads() for call, what in calls if call == "point"} <= ALL, (
        "no process was killed there"
    )
    assert missed.pop(OPENED, 0) <= 23 * trace.programs  # a node has ten databases, and moves its log into one
    assert not missed
    assert made["fsync"] > 50 and made["rename"] > 20 and made["link"] >= 1, "less was done than was to be watched"
