"""Members' people at their machines: the real `comity`, each call a process of its own, with pins of its own.

All officers read what `--json` prints, as another program would. Nodes are `comity serve`, started and ended here.
Waits ask a node for its state repeatedly: this process asks it, and gets the document that `comity status` would print.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from comity_cli import node_view
from comity_cli.document import members
from comity_client.own_node import operator_socket, operator_status
from support.forked import ForkedProgram, run_comity
from support.waiting import PATIENCE, pause_after

T = TypeVar("T")
SomeOfficer = TypeVar("SomeOfficer", bound="Officer")
Document = dict[str, Any]


@dataclass(frozen=True)
class Officer:
    """A person who acts for the member whose node has the home `home`.

    Attributes:
        pins: their COMITY_HOME, where they keep what they decided to believe.
        network: the network namespace in which each command runs; empty for that of the tests.
    """

    home: Path
    pins: Path
    network: str = ""

    def run(self, *arguments: str | Path, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `comity ARGUMENTS`, with `answer` on its standard input."""
        return run_comity(
            *map(str, arguments), environ=self.environ, given=answer or "", patience=PATIENCE, network=self.network
        )

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "COMITY_HOME": str(self.pins), "COLUMNS": "200", "NO_COLOR": "1"}

    def comity(self, *arguments: str | Path, exits: int = 0) -> Document:
        """The document that `comity ARGUMENTS --json` prints; the command must exit with `exits` and print nothing
        else.
        """
        ran = self.run(*arguments, "--json")
        words = f"comity {' '.join(map(str, arguments))}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        assert ran.returncode == exits, words
        document: Document = json.loads(ran.stdout)
        return document

    def act(self, *arguments: str | Path, exits: int = 0) -> Document:
        """A command that signs for the member."""
        return self.comity(*arguments, "--dir", self.home, "--yes", exits=exits)

    def refused(self, *arguments: str | Path) -> Document:
        """The refusal of a command that signs nothing: its code, the reason, and the hint."""
        ran = self.run(*arguments, "--dir", self.home, "--yes", "--json")
        assert ran.returncode not in (0, 2), ran.stdout + ran.stderr
        error: Document = json.loads(ran.stdout)["error"]
        return error

    @property
    def governance(self) -> Document:
        """The charter as the member's own node follows it."""
        followed: Document = self.state["governance"]
        return followed

    @property
    def state(self) -> Document:
        """The state of the member's own node, also if other nodes are down: the document of `comity status --node HOME
        --json`, asked without a command.
        """
        status = operator_status(operator_socket(self.home))
        document: Document = json.loads(json.dumps(members(node_view.NodeStatusDocument.of(status))))
        return document

    @property
    def card(self) -> Path:
        return self.home / "node-card.json"


def together(work: Callable[[SomeOfficer], T], officers: Sequence[SomeOfficer]) -> list[T]:
    """All officers do it concurrently, each on their own machine."""
    with ThreadPoolExecutor(len(officers)) as machines:
        return list(machines.map(work, officers))


def decide(voters: Sequence[Officer], draft: str, *, options: Sequence[str] = ()) -> int:
    """Exactly a quorum signs both votes for `draft`, one command a vote; before each, the nodes of all know the earlier
    votes. Returns the resulting epoch.
    """
    known_by(voters, draft)
    made = int(voters[0].comity("proposal", "show", draft[:12])["epoch"])
    for intents in (0, len(voters)):
        known_by(voters, draft, intents=intents)
        signed = together(lambda one: one.act("proposal", "approve", draft[:12], *options), voters)
        assert [each["complete"] for each in signed] == [True] * len(voters), signed
    wait_for(lambda: all(one.governance["epoch"] >= made for one in voters), f"epoch {made} at the voters' nodes")
    return int(voters[0].comity("proposal", "ls")["epoch"])


def known_by(officers: Sequence[Officer], *drafts: str, intents: int | None = None) -> None:
    """Wait until the node of each officer knows the drafts; with `intents`, also that no consent is missing, and at
    least so many INTENT votes for each.
    """

    def known(one: Officer) -> bool:
        seen = {draft["body"]: draft for draft in one.governance["drafts"]}
        found = [seen[draft] for draft in drafts if draft in seen]
        ready = [each for each in found if intents is None or (not each["missing"] and each["intents"] >= intents)]
        return len(ready) == len(drafts)

    wait_for(lambda: all(map(known, officers)), f"{', '.join(drafts)} at each node, with {intents or 0} INTENT votes")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(pause_after(asked, least=0.1))


@contextmanager
def serving(*homes: Path, network: str = "", options: Sequence[str] = ()) -> Iterator[None]:
    """`comity serve` for each home, until the block ends. Returns once each has opened its listeners."""
    nodes = [Node.start(home, network, options) for home in homes]
    try:
        for node in nodes:
            wait_for(node.listens, f"{node.home.name} to listen")
        yield
    finally:
        for node in nodes:
            node.process.terminate()
        ended = {node.home.name: node.end() for node in nodes}
    assert set(ended.values()) == {0}, ended


@dataclass(frozen=True)
class Node:
    """A running `comity serve`; its output begins at `begin` in node.log."""

    home: Path
    process: ForkedProgram
    begin: int

    @classmethod
    def start(cls, home: Path, network: str = "", options: Sequence[str] = ()) -> Node:
        log = home / "node.log"
        begin = log.stat().st_size if log.exists() else 0
        words = ("serve", "--dir", str(home), *options)
        process = ForkedProgram.comity(*words, environ=os.environ, log=log, network=network)
        return cls(home, process, begin)

    def listens(self) -> bool:
        log = self.home / "node.log"
        words = log.read_bytes()[self.begin :] if log.exists() else b""
        assert self.process.poll() is None, f"{self.home.name} ended: {words[-2000:].decode(errors='replace')}"
        return b'"event": "listening"' in words

    def end(self) -> int:
        """Wait until it has ended; its exit status."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def change(home: Path, **settings: object) -> None:
    """Change settings in the node.toml that `comity init` wrote."""
    path = home / "node.toml"
    lines = path.read_text("utf-8").splitlines()
    for key, value in settings.items():
        (at,) = [at for at, line in enumerate(lines) if line.split("=")[0].strip() == key]
        lines[at] = f"{key} = {json.dumps(value)}"
    path.write_text("\n".join(lines) + "\n", "utf-8")
