"""What an attacker is, and its input: the addresses of the victims, public knowledge, and the attacker's own keys."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from attackers.hostile_node import HostileNode

By: TypeAlias = Literal["stranger", "identity", "member", "addresses"]
"""Nobody in particular; a publisher whom an operator lets publish; one member, with all its keys and its node; anybody
who has several addresses to come from."""

PATIENCE = 20.0
"""Seconds that one attack may take to be ready. What is held afterwards is held until the others are done."""


@dataclass(frozen=True)
class Victim:
    """An honest node as anybody sees it: `host:port` of its ports, and the certificate that it shows (PEM)."""

    name: str
    node: str
    """The id of the node."""
    origin: str
    open: str
    mutual: str
    gateway: str
    certificate: bytes


@dataclass(frozen=True)
class Known:
    """What is public before the attack begins. Names with versions; `mirrored` is a repository of the Hub."""

    bound: str = ""
    unbound: str = ""
    mirrored: str = ""
    commit: str = ""
    endpoint: str = ""
    artifacts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    members: tuple[tuple[str, bytes], ...] = ()
    """Identity and inception line of each honest member."""
    federation: str = ""
    prev: str = ""
    body: bytes = b""
    """The body that is drafted, to follow `prev`, and the lines that put it forward."""
    drafts: tuple[bytes, ...] = ()
    requests: tuple[bytes, ...] = ()
    offer: str = ""
    publishers: tuple[tuple[str, bytes], ...] = ()
    """Identity and inception line of each honest publisher."""


@dataclass
class Target:
    """A federation under attack. `member` is the attacker's own node, where it has one; `ended` is set when the others
    are done, and what is held is to be let go."""

    victims: tuple[Victim, ...]
    known: Known
    member: HostileNode
    seed: str = "attacker"
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes sent to each victim, by its name."""
    taken: Counter[str] = field(default_factory=Counter)
    """Lines that each victim logged of what was handed in."""
    ended: threading.Event = field(default_factory=threading.Event)
    ready: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Say that everything is in place, and wait until the others are done."""
        self.ready.set()
        self.ended.wait()

    def going_on(self, seconds: float = PATIENCE) -> Iterator[int]:
        """Count from 0 for as long as an attack may go on."""
        deadline, number = time.monotonic() + seconds, 0
        while time.monotonic() < deadline and not self.ended.is_set():
            yield number
            number += 1


@dataclass(frozen=True)
class Attacker:
    """One way to attack. `attack` returns once it has done what it does, or holds what it holds (`Target.hold`).

    `lines` are those of the table of known attacks that it is (`own` where it is in none); `dear` marks what costs more
    than a few seconds.
    """

    name: str
    lines: tuple[str, ...]
    by: By
    attack: Callable[[Target], None]
    dear: bool = False
    bytes_sent: Callable[[], Iterable[bytes]] = tuple
    """Samples of what it emits: for the parsers, which must refuse or take them and do nothing else."""


ATTACKERS: dict[str, Attacker] = {}


def attacker(
    name: str,
    *lines: str,
    by: By,
    dear: bool = False,
    emits: Callable[[], Iterable[bytes]] = tuple,
) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Put a function into the library."""

    def put(attack: Callable[[Target], None]) -> Callable[[Target], None]:
        assert name not in ATTACKERS, name
        ATTACKERS[name] = Attacker(name, lines or ("own",), by, attack, dear, emits)
        return attack

    return put


def emitted() -> tuple[bytes, ...]:
    """Samples of what all attackers emit, each once, for whoever feeds parsers."""
    return tuple(dict.fromkeys(sample for each in ATTACKERS.values() for sample in each.bytes_sent()))


@contextmanager
def attacking(target: Target, *attackers: Attacker) -> Iterator[list[BaseException]]:
    """Let attackers loose, and wait until each is ready; the block is what the others do meanwhile. Gives what they
    failed with: to be refused is no failure of an attacker, so that those errors are theirs to catch."""
    failed: list[BaseException] = []
    told = [replace(target, ready=threading.Event()) for _ in attackers]
    threads = [
        threading.Thread(target=_run, args=(own, each, failed), daemon=True)
        for own, each in zip(told, attackers, strict=True)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2 * PATIENCE
    for own in told:
        own.ready.wait(max(0.0, deadline - time.monotonic()))
    try:
        yield failed
    finally:
        target.ended.set()
        for thread in threads:
            thread.join(PATIENCE)


def _run(target: Target, which: Attacker, failed: list[BaseException]) -> None:
    try:
        which.attack(target)
    except BaseException as error:
        failed.append(error)
    finally:
        target.ready.set()
