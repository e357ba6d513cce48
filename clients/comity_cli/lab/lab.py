"""The lab: four nodes in four jurisdictions as four processes, each with its own folder, keys and ports on loopback.

DIR/node-ch/…  node-es/…  node-kr/…  node-sg/…     node homes made by `comity init`
DIR/federation.json                                the file that a newcomer pins
DIR/NODE/node.pid  node.log                        of a running node
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import Final

from comity.trust.charter.document import CharterPolicy, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.places import Place

SEATS: Final = (
    ("node-ch", "CH", "Example Institute Zurich"),
    ("node-es", "ES", "Example Centre Barcelona"),
    ("node-kr", "KR", "Example Institute Daejeon"),
    ("node-sg", "SG", "Example Agency Singapore"),
)
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 15.0
PORTS: Final = range(15_000, 32_000)
"""Below the ephemeral ports of Linux, so that a restarted lab finds its ports still free."""


@frozen
class LabNode:
    """One node of the lab: its home, its jurisdiction and its open address."""

    home: Path
    jurisdiction: str

    @property
    def name(self) -> str:
        return self.home.name

    @property
    def address(self) -> str:
        """`host:port` of its open port."""
        return str(tomllib.loads((self.home / "node.toml").read_text())["listen"]["open"])

    @property
    def endpoint(self) -> str:
        """The URL of the node's gateway, for `HF_ENDPOINT`; empty if node.toml names none."""
        settings = tomllib.loads((self.home / "node.toml").read_text()).get("gateway", {})
        return f"http://{settings['http']}" if settings.get("http") else ""

    @property
    def pid(self) -> int | None:
        """Process id, if that process runs and serves this home; else None."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.home / "node.pid").read_text())
            if str(self.home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None


@frozen
class Lab:
    """A lab in `directory`. `create` founds a lab, `open` opens an existing one."""

    directory: Path
    nodes: tuple[LabNode, ...]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False)

    @classmethod
    def open(cls, directory: Path) -> Lab:
        homes = [directory.resolve() / name for name, _, _ in SEATS]
        jurisdictions = {name: code for name, code, _ in SEATS}
        nodes = tuple(LabNode(home, jurisdictions[home.name]) for home in homes if (home / "node.toml").exists())
        if not nodes:
            raise NotFound(f"no lab in {directory}", hint=f"comity lab up {directory}")
        return cls(directory.resolve(), nodes)

    @classmethod
    def create(cls, directory: Path, namespaces: Mapping[str, Digest]) -> Lab:
        """Make four node homes and found their federation, unanimously and by files."""
        from comity_client import founding, node_home

        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        cards = []
        ports = iter(_free_ports(5 * len(SEATS)))
        for name, jurisdiction, organisation in SEATS:
            mutual, open_, http, files, ranges = islice(ports, 5)
            card = node_home.init_node(
                directory / name,
                node_home.NewNode(
                    jurisdiction=jurisdiction,
                    org=organisation,
                    node_name=name,
                    place=Place(organisation, "", (jurisdiction,)),
                    mutual=f"127.0.0.1:{mutual}",
                    open_=f"127.0.0.1:{open_}",
                    listeners=node_home.ListenSettings(
                        http=f"127.0.0.1:{http}", files=f"127.0.0.1:{files}", ranges=f"127.0.0.1:{ranges}"
                    ),
                ),
            )
            cards.append(card)
            url = f'"http://127.0.0.1:{http}"'
            _set(directory / name / "node.toml", {"interval_seconds": "1.0", "accept": '"any"', "url": url})
        members = len(SEATS)
        policy = CharterPolicy(quorum(members), min_copies=3, min_jurisdictions=3, cosigner_quorum=2, min_reaches=2)
        body = founding.draft_genesis(cards, policy, namespaces)
        consents = [founding.consent_to(body, directory / name) for name, _, _ in SEATS]
        federation = founding.seal_federation(body, consents, cards).encode()
        for name, _, _ in SEATS:
            (directory / name / "federation.json").write_bytes(federation)
        (directory / "federation.json").write_bytes(federation)
        return cls.open(directory)

    @property
    def federation(self) -> Path:
        return self.directory / "federation.json"

    def up(self, *, end_with_parent: bool = False) -> None:
        """Start every node that is not running, and wait until each answers.

        Args:
            end_with_parent: the nodes stop when this process ends in any way (they watch a pipe from it).

        Raises Unavailable (NODE-START) with the node's last log lines if a node does not start.
        """
        started = {node.name: self._start(node, end_with_parent) for node in self.nodes if node.pid is None}
        deadline = time.monotonic() + START_SECONDS
        for node in self.nodes:
            self._wait_for_start(node, started.get(node.name), deadline)

    def down(self) -> None:
        """Stop every running node with SIGTERM, and wait. Only processes that run this lab's homes are signalled."""
        running = [(node, pid) for node in self.nodes if (pid := node.pid) is not None]
        for _, pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for node, pid in running:
            while node.pid == pid and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.05)
            if node.pid == pid:
                self._kill(node, pid)
            self._wait(pid)

    def kill(self, node: LabNode) -> None:
        """Kill a node with SIGKILL. Its home stays."""
        pid = node.pid
        if pid is not None:
            self._kill(node, pid)

    def destroy(self, node: LabNode) -> None:
        """Kill a node with SIGKILL and delete its home."""
        self.kill(node)
        shutil.rmtree(node.home)

    def _kill(self, node: LabNode, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        while node.pid == pid:
            self._reap()
            time.sleep(0.01)
        self._wait(pid)

    def _wait(self, pid: int) -> None:
        """Wait for the end of a child whose command line is gone: the command line disappears before the process."""
        for process in self.processes:
            if process.pid == pid:
                process.wait()
        self._reap()

    def _start(self, node: LabNode, end_with_parent: bool) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "comity_cli.main", "serve", "--dir", str(node.home)]
        stdin = subprocess.PIPE if end_with_parent else subprocess.DEVNULL
        with (node.home / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--until-eof"] if end_with_parent else command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (node.home / "node.pid").write_text(f"{process.pid}\n")
        self.processes.append(process)
        return process

    def _reap(self) -> None:
        """Reap children that ended, so that their process ids are free again."""
        for process in [process for process in self.processes if process.poll() is not None]:
            self.processes.remove(process)
            if process.stdin:
                process.stdin.close()

    def _wait_for_start(self, node: LabNode, started: subprocess.Popen[bytes] | None, deadline: float) -> None:
        gateway = node.endpoint.removeprefix("http://")  # which a node opens last
        addresses = [node.address, *([gateway] if gateway else [])]
        while not all(map(_listens, addresses)):
            # A process that has just started has no command line yet: only its parent knows whether it runs.
            ended = started.poll() is not None if started else node.pid is None
            if ended or time.monotonic() > deadline:
                last_lines = (node.home / "node.log").read_text(errors="replace").strip().splitlines()[-5:]
                raise Unavailable(f"{node.name} did not start", why=" / ".join(last_lines), code="NODE-START")
            time.sleep(0.05)


def check_lab_folder(directory: Path) -> None:
    """Raises Conflict if the folder is not empty and not a lab."""
    if directory.exists() and any(directory.iterdir()) and not (directory / "federation.json").exists():
        raise Conflict(f"{directory} is not empty", why="a lab needs its own folder", hint="name another folder")


def _set(path: Path, values: Mapping[str, str]) -> None:
    """Change `key = value` lines of a node.toml that `init` wrote."""
    lines = path.read_text().splitlines()
    for key, value in values.items():
        matching = [at for at, line in enumerate(lines) if line.split("=")[0].strip() == key]
        if len(matching) != 1:
            raise Conflict(f"{path} does not have exactly one {key!r} line")
        lines[matching[0]] = f"{key} = {value}"
    path.write_text("\n".join(lines) + "\n")


def _free_ports(count: int) -> Sequence[int]:
    """Different ones, all free at the same moment."""
    taken: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(taken) < count:
            port = random.choice(PORTS)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                taken.append(port)
    return taken


def _listens(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False
