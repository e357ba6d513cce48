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
"""A stranger; a publisher whom an operator allows to publish; one member, with all its keys and its node; a stranger
with several addresses.
"""

PATIENCE = 20.0
"""Seconds that one attack may take to be ready. What it holds afterwards, it holds until the others are done."""


@dataclass(frozen=True)
class Victim:
    """An honest node as a stranger sees it: `host:port` of its ports, and its certificate (PEM)."""

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
    """The drafted body, which follows `prev`, and the lines that propose it."""
    drafts: tuple[bytes, ...] = ()
    requests: tuple[bytes, ...] = ()
    offer: str = ""
    publishers: tuple[tuple[str, bytes], ...] = ()
    """Identity and inception line of each honest publisher."""


@dataclass
class Target:
    """A federation under attack. `member` is the attacker's own node, where it has one; `ended` is set when the others
    are done, and all that is held has to be released.
    """

    victims: tuple[Victim, ...]
    known: Known
    member: HostileNode
    seed: str = "attacker"
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes sent to each victim, by its name."""
    taken: Counter[str] = field(default_factory=Counter)
    """Submitted lines that each victim logged."""
    knocks: list[float] = field(default_factory=list)
    """Monotonic times of connections to machines that the attacker named, and that are not of its node."""
    ended: threading.Event = field(default_factory=threading.Event)
    ready: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Report that the attack is ready, and wait until the others are done."""
        self.ready.set()
        self.ended.wait()

    def going_on(self, seconds: float = PATIENCE) -> Iterator[int]:
        """Count from 0 for as long as an attack may continue."""
        deadline, number = time.monotonic() + seconds, 0
        while time.monotonic() < deadline and not self.ended.is_set():
            yield number
            number += 1


@dataclass(frozen=True)
class Attacker:
    """One attack. `attack` returns when it is done; an attack that holds resources calls `Target.hold` first. `lines`
    are the lines of the table of known attacks that it covers (`own` if none); `dear` marks attacks that take more than
    a few seconds.
    """

    name: str
    lines: tuple[str, ...]
    by: By
    attack: Callable[[Target], None]
    dear: bool = False
    bytes_sent: Callable[[], Iterable[bytes]] = tuple
    """Samples of the bytes that it emits. Every parser must refuse or accept them without any other effect."""


ATTACKERS: dict[str, Attacker] = {}


def attacker(
    name: str,
    *lines: str,
    by: By,
    dear: bool = False,
    emits: Callable[[], Iterable[bytes]] = tuple,
) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Register a function in the library."""

    def put(attack: Callable[[Target], None]) -> Callable[[Target], None]:
        assert name not in ATTACKERS, name
        ATTACKERS[name] = Attacker(name, lines or ("own",), by, attack, dear, emits)
        return attack

    return put


def emitted() -> tuple[bytes, ...]:
    """Samples of what all attackers emit, each once, to test parsers."""
    return tuple(dict.fromkeys(sample for each in ATTACKERS.values() for sample in each.bytes_sent()))


@contextmanager
def attacking(target: Target, *attackers: Attacker) -> Iterator[list[BaseException]]:
    """Start attackers, and wait until each is ready; the others work within the block. Returns the errors of the
    attackers. A refusal is no error of an attacker: each one catches refusals itself.
    """
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
