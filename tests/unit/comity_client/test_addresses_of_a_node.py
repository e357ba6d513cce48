"""Which address of a node a client asks, where some are down and some are front ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.front_end import WriterOnly
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire import pacing
from comity_client.session import RemoteNode

DOWN = Unavailable("down")
FRONT_END = WriterOnly("inner.example:1").refusal()
REFUSED = Refused("no")
MISSING = NotFound("no such blob")


def node_with(*answers: ComityError | str) -> RemoteNode:
    """A node with an address for each answer."""
    unused: Any = None
    addresses = tuple(f"node-{number}.example:1" for number in range(len(answers)))
    record: Any = SimpleNamespace(name="node.example")
    node = RemoteNode(record, b"", unused, addresses)
    clients: dict[str, Any] = dict(zip(addresses, answers, strict=True))
    node._clients.update(clients)
    return node


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("first", "second"), "first"),
        ((DOWN, "second"), "second"),
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
    async def question(client: Any) -> str:
        if isinstance(client, ComityError):
            raise client
        return str(client)

    node = node_with(*answers)
    if isinstance(expected, str):
        assert await node.ask(question) == expected
        return
    with pytest.raises(type(expected)) as caught:
        await node.ask(question)
    assert caught.value is expected


async def test_a_node_that_limits_the_rate_of_calls_is_asked_again_and_no_other_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "PAUSE", 0.0)
    asked: list[str] = []

    async def question(client: Any) -> str:
        asked.append(client)
        if len(asked) < 3:
            raise Refused("too many calls", code="RATE")
        return "answered"

    assert await node_with("first", "second").ask(question) == "answered"
    assert asked == ["first", "first", "first"]
