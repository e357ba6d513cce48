"""What follows from the declaration of a call: its arguments, its bounds on the side of the server, its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.v1 import charter_pb2, log_pb2, operator_pb2, pin_pb2, types_pb2
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.charter import AskReceipt, CharterService
from comity.wire.log import LogCalls, LogHead, LogService
from comity.wire.messages import LocatedEntry
from comity.wire.operator import OperatorService
from comity.wire.rpc import Rpc, Rpcs, rpc_of

CONTEXT: Any = None
EMPTY = types_pb2.ObjectSize(digest=bytes(32), size=0)
HEAD = LogHead("node.example/log", "node.example/log+00000000+AAAA", b"")


async def answers(rpc: Rpc, implementation: object, request: Any) -> list[Any]:
    handler: Any = rpc.handler(implementation)
    return [message async for message in handler.unary_stream(request, CONTEXT)]


async def answer(rpc: Rpc, implementation: object, request: Any) -> Any:
    handler: Any = rpc.handler(implementation)
    return rpc.answer.decode(await handler.unary_unary(request, CONTEXT))


class Endless:
    """Has more of everything, and keeps what it was asked and whether its iterator was closed."""

    closed = False

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        try:
            while True:
                yield HEAD
        finally:
            self.closed = True

    async def next_epoch_entries(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        while True:
            yield LocatedEntry("node.example/log", 1, b"x" * 100)


async def test_the_server_sends_as_many_messages_as_declared_and_closes_the_iterator() -> None:
    node = Endless()
    few = replace(rpc_of(LogService.logs), items=3)
    assert len(await answers(few, node, log_pb2.ListLogsRequest())) == 3
    assert node.closed
    assert rpc_of(LogService.logs).items == limits.LOGS


async def test_a_call_that_is_cut_ends_within_the_bytes_that_the_client_reads() -> None:
    short = replace(rpc_of(CharterService.next_epoch_entries), size=1_000)
    sent = await answers(short, Endless(), charter_pb2.GetProceedingsRequest())
    size = sum(message.ByteSize() for message in sent)
    assert 1_000 - 150 < size <= 1_000


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (LogService.inclusion, log_pb2.GetInclusionRequest(origin="a", index=3, size=3)),
        (LogService.inclusion, log_pb2.GetInclusionRequest(origin="a", index=0, size=0)),
        (LogService.consistency, log_pb2.GetConsistencyRequest(origin="a", old_size=4, new_size=3)),
        (LogService.consistency, log_pb2.GetConsistencyRequest(origin="a", old_size=0, new_size=3)),
        (LogService.checkpoint, log_pb2.GetCheckpointRequest(origin="a", index=1, up_to=2)),
        (LogService.entries, log_pb2.GetEntriesRequest(origin="a", start=5, end=5)),
        (LogService.entries, log_pb2.GetEntriesRequest(origin="a", start=0, end=limits.ENTRIES_PER_CALL + 1)),
        (
            OperatorService.adopt,
            operator_pb2.AdoptRequest(path="here", object=types_pb2.ObjectSize(digest=bytes(32), size=1)),
        ),
    ],
)
def test_arguments_beyond_their_bounds_are_malformed(method: Any, request_: Any) -> None:
    with pytest.raises(Malformed):
        rpc_of(method).request.decode(request_)


async def test_the_server_gives_the_caller_and_the_client_does_not() -> None:
    class Asked:
        async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
            return AskReceipt(sha256(caller.name.encode()), 1, len(lines))

    rpc = rpc_of(CharterService.ask)
    CALLER.set(Caller("somebody"))
    request = rpc.request.encode([b"a line", b"another"])
    assert await answer(rpc, Asked(), request) == AskReceipt(sha256(b"somebody"), 1, 2)


async def test_a_parameter_that_is_given_by_name_only_is_given_so() -> None:
    class Deciding:
        async def decide_ask(self, member: Digest, *, keep: bool) -> None:
            self.decided = member, keep

    node, rpc = Deciding(), rpc_of(OperatorService.decide_ask)
    assert await answer(rpc, node, rpc.request.encode(sha256(b""), keep=True)) is None
    assert node.decided == (sha256(b""), True)


def test_a_parameter_that_needs_a_rule_and_has_none_is_found_when_it_is_used() -> None:
    class WithoutRule(Protocol):
        @Rpcs(pin_pb2)("DecidePin")
        async def decide(self, name: str) -> None: ...

    with pytest.raises(TypeError, match=r"DecidePinRequest\.name needs a rule"):
        rpc_of(WithoutRule.decide).request.encode("a name")


def test_the_method_of_the_client_is_described_as_the_call_that_it_makes() -> None:
    assert LogCalls.inclusion.__doc__ == LogService.inclusion.__doc__
