"""Access control of a node's ports: the credentials of each port, the identity of each caller, and who may make a call.

*Mutual*: each side shows a certificate that the other has pinned. *Open*: only the node shows a certificate.
*Operator*: a Unix socket, protected by its file permissions. The handshake is TLS 1.3 with a hybrid post-quantum key
exchange, which gRPC negotiates. The pins come from node-records.

Who may make a call is declared with the call, as the option `access` in proto/comity/v1; `server.Guard` asks
`require_allowed` before the handler runs. A call without a declaration is refused, so a new call is closed until
somebody writes down for whom it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias
from urllib.parse import unquote

import grpc

from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.trust.frozen import frozen
from comity.v1 import access_pb2
from comity.wire.addresses import address_block, caller_name
from comity.wire.tls import CertificatePin, TlsIdentity, from_pem, to_pem

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

OPERATORS: Final = "use the node's Unix socket, or an operator certificate from its node-record"
"""Where operators make their calls, for those who made one elsewhere."""

Who: TypeAlias = "access_pb2.Who.ValueType"
Pins = Callable[[], Iterable[CertificatePin]]


@frozen
class Caller:
    """The caller of a call. `name` is the key for rate limits: a certificate digest, an address, or "operator"."""

    name: str
    certificate: bytes | None = None
    operator: bool = False

    @property
    def block(self) -> str:
        """The block that shares an allowance: the address block, or only the caller itself if it is authenticated."""
        known = self.certificate is not None or self.operator
        return self.name if known else address_block(self.name.partition("/")[0])


CALLER: ContextVar[Caller] = ContextVar("comity.wire.caller")
CALL: ContextVar[str] = ContextVar("comity.wire.call")
"""The random id of the call that a task serves, for log events of the node. Never sent to a peer."""
BLOCK: ContextVar[str] = ContextVar("comity.wire.block", default="")
"""The address block of the HTTP caller that a task serves; its shares of the node's work are charged to it. Empty for
the node's own work."""


class CallContext(Protocol):
    """The methods of grpc.aio.ServicerContext that `Access` uses."""

    def peer(self) -> str: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class Access(Protocol):
    @property
    def operators_call(self) -> str:
        """Where operators make their calls: the hint for those who may not make one at this port."""

    def credentials(self) -> grpc.ServerCredentials: ...

    def caller(self, context: CallContext) -> Caller:
        """Returns the caller. Raises Refused."""

    def callers(self) -> frozenset[Who]:
        """Returns for whom calls can be made at this port: the services with such calls are announced there."""


@frozen
class MutualAccess:
    """Admits the pinned certificates of peers and operators.

    The credentials have the pins of the time when they were made, because gRPC's own method to change them can crash
    the process (decision 20): `connections.MutualPort` makes a new server for new pins. Each call compares the
    certificate again, so a removed pin has effect at the next call, on open connections too.
    """

    identity: TlsIdentity
    peers: Pins
    operators: Pins = tuple
    operators_call: str = OPERATORS

    def credentials(self) -> grpc.ServerCredentials:
        # gRPC needs at least one root. Our own certificate admits no one: `caller` refuses it.
        pinned = dict.fromkeys(pin.certificate for pin in (*self.peers(), *self.operators()))
        roots = b"".join(to_pem(certificate) for certificate in pinned or (self.identity.certificate,))
        return grpc.ssl_server_credentials([self.identity.pem()], roots, require_client_auth=True)

    def callers(self) -> frozenset[Who]:
        operators = (access_pb2.WHO_OPERATOR,) if any(True for _ in self.operators()) else ()
        return frozenset((access_pb2.WHO_ANYONE, access_pb2.WHO_MEMBER, *operators))

    def certificates(self) -> frozenset[bytes]:
        """Returns the certificates (DER) that are pinned now."""
        return frozenset(pin.certificate for pin in (*self.peers(), *self.operators()))

    def caller(self, context: CallContext) -> Caller:
        shown = b"".join(context.auth_context().get("x509_pem_cert", ()))
        certificate = from_pem(shown) if shown else b""
        for pins, operator in ((self.operators, True), (self.peers, False)):
            if any(pin.certificate == certificate for pin in pins()):
                return Caller(sha256(certificate), certificate, operator)
        raise Refused(
            "this certificate is not pinned",
            why=f"this node has no node-record with sha256 {sha256(certificate)}",
            hint="publish your node-record to a log that this node mirrors",
            code="CERTIFICATE-UNKNOWN",
        )


@frozen
class OpenAccess:
    """Admits every caller, named by its network address: IPv6 by its /64, which one host has."""

    identity: TlsIdentity
    operators_call: str = OPERATORS

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([self.identity.pem()])

    def caller(self, context: CallContext) -> Caller:
        return Caller(_network(context.peer()))

    def callers(self) -> frozenset[Who]:
        return frozenset((access_pb2.WHO_ANYONE,))


@frozen
class OperatorAccess:
    """For a `unix:` port only."""

    operators_call: str = OPERATORS

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.local_server_credentials(grpc.LocalConnectionType.UDS)

    def caller(self, context: CallContext) -> Caller:
        return Caller("operator", operator=True)

    def callers(self) -> frozenset[Who]:
        return frozenset((access_pb2.WHO_ANYONE, access_pb2.WHO_OPERATOR, access_pb2.WHO_SOCKET))


@frozen
class CallRule:
    """Who may make a call, and what it may cost.

    Attributes:
        cost: how many calls of the caller's allowance it spends.
        request_bytes: the maximum size of the request, or of each message of a stream of requests.
        reason: the code with which others are refused; empty for that of `who`.
        needs_deadline: whether the caller must set a deadline.
    """

    who: Who
    cost: int = 1
    request_bytes: int = 64 * 1024
    reason: str = ""
    needs_deadline: bool = True

    @classmethod
    def declared(cls, method: MethodDescriptor) -> Self | None:
        """Returns the rule that the call declares; None if it declares none."""
        return cls.of(method.GetOptions().Extensions[access_pb2.access])

    @classmethod
    def of(cls, said: access_pb2.CallAccess) -> Self | None:
        """None if the declaration leaves out who may call, the cost, or the size."""
        cost = _COSTS.get(said.cost)
        if said.who not in _KNOWN or cost is None or not said.request_bytes:
            return None
        return cls(said.who, cost, said.request_bytes, said.reason)

    def allows(self, caller: Caller) -> bool:
        match self.who:
            case access_pb2.WHO_ANYONE:
                return True
            case access_pb2.WHO_MEMBER:
                return caller.certificate is not None
            case access_pb2.WHO_OPERATOR:
                return caller.operator
            case access_pb2.WHO_SOCKET:
                return caller.operator and caller.certificate is None
            case _:
                return False


_COSTS: Final[Mapping[access_pb2.Cost.ValueType, int]] = {
    access_pb2.COST_LOOKUP: 1,
    access_pb2.COST_SEARCH: 2,
    access_pb2.COST_FIND: 4,
}
_KNOWN: Final = frozenset(
    (access_pb2.WHO_ANYONE, access_pb2.WHO_MEMBER, access_pb2.WHO_OPERATOR, access_pb2.WHO_SOCKET)
)


def require_allowed(rule: CallRule | None, caller: Caller, operators: str = OPERATORS) -> None:
    """Raises Refused unless the rule allows the caller: with the reason of the rule; ACCESS-UNDECLARED without one.

    Args:
        operators: the hint of what is for operators only.
    """
    if rule is None:
        raise undeclared("make this call")
    if not rule.allows(caller):
        raise _refusal(rule, operators)


def undeclared(what: str) -> Refused:
    """Return the refusal of a call or an address to everybody; `what` completes "nobody may …"."""
    return Refused(
        f"nobody may {what}",
        why="the node does not declare who may",
        hint="report this to those who make the software",
        code="ACCESS-UNDECLARED",
    )


def _refusal(rule: CallRule, operators: str) -> Refused:
    match rule.who:
        case access_pb2.WHO_MEMBER:
            what = "only nodes of the federation may make this call"
            hint = "call the node's mutual port, with the certificate of your node-record"
            return Refused(what, hint=hint, code=rule.reason or "MEMBERS-ONLY")
        case access_pb2.WHO_OPERATOR:
            what = "only operators of the node may make this call"
            return Refused(what, hint=operators, code=rule.reason or "OPERATORS-ONLY")
        case _:
            what = "only operators on the node's own machine may make this call"
            hint = "use the node's Unix socket" if operators == OPERATORS else operators
            return Refused(what, hint=hint, code=rule.reason or "SOCKET-ONLY")


def _network(peer: str) -> str:
    """`ipv4:192.0.2.1:5000` -> `192.0.2.1`; `ipv6:%5B2001:db8::1%5D:5000` -> `2001:db8::/64`."""
    return caller_name(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))
