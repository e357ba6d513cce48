"""The doors of a node: what each asks of a connection, and who is calling through it.

*Mutual*: each side shows a certificate that the other has pinned. *Open*: only the node shows one. *Operator*: a Unix
socket, whose file permissions decide. The handshake is TLS 1.3 with a hybrid post-quantum key exchange, as gRPC
negotiates by itself. Which certificates to pin is not decided here: node-records say it.
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
from comity.wire.tls import CertificatePin, TlsIdentity, address_block, caller_name, from_pem, to_pem

Pins = Callable[[], Iterable[CertificatePin]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling. `name` counts calls: a certificate's digest, a network address, or "operator"."""

    name: str
    certificate: bytes | None = None
    operator: bool = False

    @property
    def block(self) -> str:
        """What the caller shares its allowance with: its address block, or nobody where it is known by more."""
        known = self.certificate is not None or self.operator
        return self.name if known else address_block(self.name.partition("/")[0])


CALLER: ContextVar[Caller] = ContextVar("comity.wire.caller")
CALL: ContextVar[str] = ContextVar("comity.wire.call")
"""Names the call that a task serves, in what the node logs about it. Random, and told to nobody."""


class CallContext(Protocol):
    """What a door reads of grpc.aio.ServicerContext."""

    def peer(self) -> str: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class Access(Protocol):
    def credentials(self) -> grpc.ServerCredentials: ...

    def caller(self, context: CallContext) -> Caller:
        """Who is calling. Raises Refused."""


@dataclass(frozen=True, slots=True)
class MutualAccess:
    """Lets in the pinned certificates of peers and operators.

    The credentials hold the pins of the moment in which they were made, for gRPC's own way of changing them ends the
    process (decision 20): `mutual_port` makes a new server for new pins. Every call compares again, so a pin that is
    dropped ends at the next call, on open connections too.
    """

    identity: TlsIdentity
    peers: Pins
    operators: Pins = tuple

    def credentials(self) -> grpc.ServerCredentials:
        # gRPC wants at least one root. Our own certificate stands for nobody: `caller` refuses it.
        pinned = dict.fromkeys(pin.certificate for pin in (*self.peers(), *self.operators()))
        roots = b"".join(to_pem(certificate) for certificate in pinned or (self.identity.certificate,))
        return grpc.ssl_server_credentials([self.identity.pem()], roots, require_client_auth=True)

    def certificates(self) -> frozenset[bytes]:
        """The certificates (DER) that are pinned now."""
        return frozenset(pin.certificate for pin in (*self.peers(), *self.operators()))

    def caller(self, context: CallContext) -> Caller:
        shown = b"".join(context.auth_context().get("x509_pem_cert", ()))
        certificate = from_pem(shown) if shown else b""
        for pins, operator in ((self.operators, True), (self.peers, False)):
            if any(pin.certificate == certificate for pin in pins()):
                return Caller(sha256(certificate), certificate, operator)
        raise Refused(
            "this certificate is not let in",
            why=f"sha256 {sha256(certificate)} is in no node-record that this node holds",
            hint="have your node-record logged where this node's members read it",
            code="CERTIFICATE-UNKNOWN",
        )


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """Lets anybody in, counted by network address: IPv6 by its /64, which is what one host has."""

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
    """Raises Refused (OPERATORS-ONLY) where the call at hand is nobody's who operates this node."""
    if not CALLER.get().operator:
        raise Refused(
            "this call is for the node's operators",
            hint="use the node's Unix socket, or an operator certificate of its node-record",
            code="OPERATORS-ONLY",
        )


def _network(peer: str) -> str:
    """`ipv4:192.0.2.1:5000` -> `192.0.2.1`; `ipv6:%5B2001:db8::1%5D:5000` -> `2001:db8::/64`."""
    return caller_name(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))
