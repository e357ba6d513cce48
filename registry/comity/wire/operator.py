"""`OperatorService`: the status of a node (`node_status`), and calls that only its operators may make. Calls and
servicer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import operator_pb2, types_pb2
from comity.v1.operator_pb2_grpc import OperatorServiceServicer, OperatorServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.fields import encode_digest, read_digest, read_integer, read_text
from comity.wire.messages import Context

if TYPE_CHECKING:
    from comity.v1.operator_pb2_grpc import OperatorServiceAsyncStub
    from comity.wire.node_status import NodeStatus


@dataclass(frozen=True, slots=True)
class SignInLink:
    """A link that signs one person in to the console, once, within `seconds`. It contains a secret."""

    link: str = field(repr=False)
    seconds: int


class OperatorCalls(ServiceCalls):
    """The calls of `OperatorService`."""

    @cached_property
    def _operator(self) -> OperatorServiceAsyncStub:
        return OperatorServiceStub(self._calls.connection.channel)

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Add a file on the node's machine to its store. Returns whether the node had it already. The node hashes the
        file first: use a long timeout. Raises NotFound, Untrusted and OutOfSpace."""
        named = types_pb2.ObjectSize(digest=encode_digest(digest), size=size)
        request = operator_pb2.AdoptRequest(path=str(path), object=named)
        return (await self._calls.unary(self._operator.Adopt, request)).already_held

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep or dismiss a request to join. For operators. Raises NotFound, OutOfSpace."""
        request = operator_pb2.DecideAskRequest(member=encode_digest(member), keep=keep)
        await self._calls.unary(self._operator.DecideAsk, request)

    async def sign_in_link(self) -> SignInLink:
        """A link to the console of this node. Over the Unix socket. Raises NotFound (NO-CONSOLE)."""
        answer = await self._calls.unary(self._operator.AllocateSignIn, operator_pb2.AllocateSignInRequest())
        return SignInLink(read_text(answer.link, "link", limits.LINK), read_integer(answer.seconds, "seconds"))

    async def status(self) -> NodeStatus:
        from comity.wire.node_status import STATUS  # few programs ask for it

        return STATUS.decode(await self._calls.unary(self._operator.GetStatus, operator_pb2.GetStatusRequest()))


class OperateService(Protocol):
    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Add the file at `path` (absolute) to the store. Returns whether it was stored already."""

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep or dismiss a request to join. Raises NotFound, OutOfSpace."""

    async def sign_in_link(self) -> SignInLink:
        """A link that signs in to the console once. Raises NotFound (NO-CONSOLE)."""

    async def status(self) -> NodeStatus: ...


class OperatorServicer(OperatorServiceServicer):
    def __init__(self, operating: OperateService) -> None:
        self._operating = operating

    async def Adopt(self, request: operator_pb2.AdoptRequest, context: Context) -> operator_pb2.AdoptResponse:
        path = Path(read_text(request.path, "path", limits.PATH))
        if not path.is_absolute():
            raise Malformed("not an absolute path", why="the node has another working directory")
        digest, size = read_digest(request.object.digest), read_integer(request.object.size, "size")
        return operator_pb2.AdoptResponse(already_held=await self._operating.adopt(path, digest, size))

    async def DecideAsk(
        self, request: operator_pb2.DecideAskRequest, context: Context
    ) -> operator_pb2.DecideAskResponse:
        await self._operating.decide_ask(read_digest(request.member), keep=request.keep)
        return operator_pb2.DecideAskResponse()

    async def AllocateSignIn(
        self, request: operator_pb2.AllocateSignInRequest, context: Context
    ) -> operator_pb2.AllocateSignInResponse:
        made = await self._operating.sign_in_link()
        return operator_pb2.AllocateSignInResponse(link=made.link, seconds=made.seconds)

    async def GetStatus(
        self, request: operator_pb2.GetStatusRequest, context: Context
    ) -> operator_pb2.GetStatusResponse:
        from comity.wire.node_status import STATUS

        return STATUS.encode(await self._operating.status())
