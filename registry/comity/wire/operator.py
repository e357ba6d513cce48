"""`OperatorService`: the status of a node (`node_status`), and calls that only its operators may make."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Protocol

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.v1 import operator_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import AbsolutePath, At, Exact
from comity.wire.rpc import Codec, Rpcs

if TYPE_CHECKING:
    from comity.wire.node_status import NodeStatus

rpc = Rpcs(operator_pb2)


@frozen
class SignInLink:
    """A link that signs one person in to the console, once, within `seconds`. It contains a secret."""

    link: Annotated[str, Exact(limits.LINK)] = field(repr=False)
    seconds: int


def _status() -> Codec:
    from comity.wire.node_status import STATUS  # few programs ask for it

    return STATUS


class OperatorService(Protocol):
    @rpc("Adopt")
    async def adopt(
        self,
        path: AbsolutePath,
        digest: Annotated[Digest, At("object.digest")],
        size: Annotated[int, At("object.size")],
    ) -> bool:
        """Add a file on the node's machine to its store. Returns whether the node had it already. The node hashes the
        file first: use a long timeout. Raises NotFound, Untrusted and OutOfSpace."""

    @rpc("DecideAsk")
    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep or dismiss a request to join. Raises NotFound, OutOfSpace."""

    @rpc("AllocateSignIn")
    async def sign_in_link(self) -> SignInLink:
        """A link that signs in to the console of this node, once. Raises NotFound (NO-CONSOLE)."""

    @rpc("GetStatus", answer_codec=_status)
    async def status(self) -> NodeStatus: ...


class OperatorCalls(ServiceCalls):
    adopt = call(OperatorService.adopt)
    decide_ask = call(OperatorService.decide_ask)
    sign_in_link = call(OperatorService.sign_in_link)
    status = call(OperatorService.status)
