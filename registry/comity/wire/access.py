"""Access control of a node's ports: the credentials of each port, and the identity of each caller.

*Mutual*: each side shows a certificate that the other has pinned. *Open*: only the node shows a certificate.
*Operator*: a Unix socket, protected by its file permissions. The handshake is TLS 1.3 with a hybrid post-quantum key
exchange, which gRPC negotiates. The pins come from node-records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

import grpc

from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.wire.addresses import address_block, caller_name
from comity.wire.tls import CertificatePin, TlsIdentity, from_pem, to_pem

Pins = Callable[[], Iterable[CertificatePin]]


@dataclass(frozen=True, slots=True)
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
    def credentials(self) -> grpc.ServerCredentials: ...

    def caller(self, context: CallContext) -> Caller:
        """Returns the caller. Raises Refused."""


@dataclass(frozen=True, slots=True)
class MutualAccess:
    """Admits the pinned certificates of peers and operators.

    The credentials have the pins of the time when they were made, because gRPC's own method to change them can crash
    the process (decision 20): `connections.MutualPort` makes a new server for new pins. Each call compares the
    certificate again, so a removed pin has effect at the next call, on open connections too.
    """

    identity: TlsIdentity
    peers: Pins
    operators: Pins = tuple

    def credentials(self) -> grpc.ServerCredentials:
        # gRPC needs at least one root. Our own certificate admits no one: `caller` refuses it.
        pinned = dict.fromkeys(pin.certificate for pin in (*self.peers(), *self.operators()))
        roots = b"".join(to_pem(certificate) for certificate in pinned or (self.identity.certificate,))
        return grpc.ssl_server_credentials([self.identity.pem()], roots, require_client_auth=True)

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


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """Admits every caller, named by its network address: IPv6 by its /64, which one host has."""

    identity: TlsIdentity

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([self.identity.pem()])

    def caller(self, context: CallContext) -> Caller:
        return Caller(_network(context.peer()))


@dataclass(frozen=True, slots=True)
class OperatorAccess:
    """For a `unix:` port only."""

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.local_server_credentials(grpc.LocalConnectionType.UDS)

    def caller(self, context: CallContext) -> Caller:
        return Caller("operator", operator=True)


def require_operator() -> None:
    """Raises Refused (OPERATORS-ONLY) if the caller of the current call is not an operator of this node."""
    if not CALLER.get().operator:
        raise Refused(
            "only operators of the node may make this call",
            hint="use the node's Unix socket, or an operator certificate from its node-record",
            code="OPERATORS-ONLY",
        )


def require_socket() -> None:
    """Raises Refused (SOCKET-ONLY) unless the caller of the current call uses the node's Unix socket."""
    caller = CALLER.get()
    if not caller.operator or caller.certificate is not None:
        raise Refused(
            "only operators on the node's own machine may make this call",
            hint="use the node's Unix socket",
            code="SOCKET-ONLY",
        )


def _network(peer: str) -> str:
    """`ipv4:192.0.2.1:5000` -> `192.0.2.1`; `ipv6:%5B2001:db8::1%5D:5000` -> `2001:db8::/64`."""
    return caller_name(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))
