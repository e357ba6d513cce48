"""Which address of a node a client asks, where some are down, some are silent and some are front ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.front_end import WriterOnly
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire import asking
from comity.wire.draining import DRAINING
from comity_client import session
from comity_client.session import RemoteNode

DOWN = Unavailable("down", code="UNREACHABLE")
FRONT_END = WriterOnly("inner.example:1").refusal()
REFUSED = Refused("no")
OTHER_NODE = Refused("not the node that was pinned", code="PIN-MISMATCH")
MISSING = NotFound("no such blob")


@dataclass
class Door:
    """A client of an address, and what it does: `answer`, which may be an error; `silent`: it never connects, and else
    after `seconds`."""

    answer: ComityError | str
    silent: bool = False
    seconds: float = 0.0
    unreachable: bool = False
    tries: int = 0
    closed: bool = False

    async def connected(self) -> None:
        self.tries += 1
        await asyncio.sleep(self.seconds)
        if self.silent:
            await asyncio.Event().wait()
        if self.unreachable:
            raise DOWN

    async def close(self) -> None:
        self.closed = True


@dataclass
class Announced:
    """The announced addresses of a node: `later` are found when others are asked."""

    later: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    looked: int = 0
    reached_at: list[str] = field(default_factory=list)

    async def look(self) -> None:
        self.looked += 1
        self.addresses = self.later

    async def permit(self, address: str) -> None:
        """Any may be called."""

    def reached(self, address: str) -> None:
        self.reached_at.append(address)


def node_with(*doors: Door, announced: Announced | None = None, pinned: int | None = None) -> RemoteNode:
    """A node with an address for each door, of which the first `pinned` are in the federation file."""
    unused: Any = None
    addresses = tuple(f"node-{number}.example:1" for number in range(len(doors)))
    record: Any = SimpleNamespace(name="node.example")
    known: Any = announced
    node = RemoteNode(record, b"", unused, addresses[:pinned], announced=known)
    clients: dict[str, Any] = dict(zip(addresses, doors, strict=True))
    node._clients.update(clients)
    return node


async def answer_of(client: Any) -> str:
    if isinstance(client.answer, ComityError):
        raise client.answer
    return str(client.answer)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("first", "second"), "first"),
        ((DOWN, "second"), "second"),
        ((OTHER_NODE, "second"), "second"),
        ((FRONT_END, "writer"), "writer"),
        ((FRONT_END, DOWN, "writer"), "writer"),
        ((DOWN, FRONT_END), FRONT_END),
        ((FRONT_END, DOWN), DOWN),
        ((REFUSED, "second"), REFUSED),
        ((MISSING, "second"), MISSING),
    ],
)
async def test_a_question_is_asked_at_the_next_address_if_one_cannot_answer(
    answers: tuple[ComityError | str, ...], expected: ComityError | str
) -> None:
    node = node_with(*map(Door, answers))
    if isinstance(expected, str):
        assert await node.ask(answer_of) == expected
        return
    with pytest.raises(type(expected)) as caught:
        await node.ask(answer_of)
    assert caught.value is expected


async def test_a_silent_address_keeps_no_question_waiting() -> None:
    silent, working = Door("never", silent=True), Door("second")
    node = node_with(silent, working)
    assert await asyncio.gather(*(node.ask(answer_of) for _ in range(3))) == ["second"] * 3
    assert (silent.tries, working.tries) == (1, 1)


async def test_an_announced_address_that_is_silent_is_given_up() -> None:
    announced = Announced((), addresses=("node-1.example:1",))
    silent, working = Door("never", silent=True), Door("first")
    node = node_with(working, silent, announced=announced, pinned=1)
    assert await node.ask(answer_of) == "first"
    assert (silent.closed, working.closed) == (True, False)


async def test_others_are_asked_where_a_node_is_that_no_known_address_leads_to() -> None:
    announced = Announced(("node-1.example:1", "node-2.example:1"))
    moved = Door("here")
    node = node_with(Door(DOWN), Door("not this node", unreachable=True), moved, announced=announced, pinned=1)
    assert await node.ask(answer_of) == "here"
    assert announced.looked == 1
    assert announced.reached_at == ["node-0.example:1", "node-2.example:1"]
    assert await node.ask(answer_of) == "here"
    assert (announced.looked, moved.tries) == (1, 1)


async def test_others_are_asked_where_a_node_is_whose_only_address_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ALONE", 0.05)
    announced = Announced(("node-1.example:1",))
    node = node_with(Door("never", silent=True), Door("here"), announced=announced, pinned=1)
    assert await node.ask(answer_of) == "here"
    assert announced.reached_at == ["node-1.example:1"]


async def test_a_node_that_nobody_finds_elsewhere_may_take_long_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ALONE", 0.01)
    door = Door("at last", seconds=0.1)
    assert await node_with(door, announced=Announced(())).ask(answer_of) == "at last"
    assert not door.closed


async def test_others_are_asked_where_a_node_is_of_which_the_pinned_file_has_no_address() -> None:
    announced = Announced(("node-0.example:1",))
    node = node_with(Door("here"), announced=announced, pinned=0)
    assert await node.ask(answer_of) == "here"
    assert announced.looked == 1


async def test_nobody_is_asked_where_a_node_is_that_answers() -> None:
    announced = Announced(("node-1.example:1",))
    node = node_with(Door(REFUSED), Door("elsewhere"), announced=announced, pinned=1)
    with pytest.raises(Refused, match="no"):
        await node.ask(answer_of)
    assert announced.looked == 0


async def test_the_error_of_a_node_that_nobody_finds_is_that_of_its_pinned_address() -> None:
    announced = Announced(("node-1.example:1",))
    node = node_with(Door(DOWN), Door("never", unreachable=True), announced=announced, pinned=1)
    with pytest.raises(Unavailable) as caught:
        await node.ask(answer_of)
    assert caught.value is DOWN


async def test_a_node_that_limits_the_rate_of_calls_is_asked_again_and_no_other_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    asked: list[str] = []

    async def question(client: Any) -> str:
        asked.append(client.answer)
        if len(asked) < 3:
            raise Refused("too many calls", code="RATE")
        return "answered"

    assert await node_with(Door("first"), Door("second")).ask(question) == "answered"
    assert asked == ["first", "first", "first"]


async def test_an_address_whose_process_ends_is_connected_to_once_more_and_what_runs_there_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending, another = Door(Unavailable("ends", code=DRAINING)), Door("another process")
    made: Any = SimpleNamespace(connect=lambda target, pin, proxy, early: another)
    monkeypatch.setattr(session, "NodeClient", made)
    monkeypatch.setattr(session, "CertificatePin", SimpleNamespace(of=lambda certificate: certificate))
    node = node_with(ending)
    node.record.tls = b""  # type: ignore[misc]  # of a namespace
    with pytest.raises(Unavailable, match="ends"):
        await node.ask(answer_of)
    assert await node.ask(answer_of) == "another process"
    assert not ending.closed
    await node.close()
    assert ending.closed and another.closed
