"""TLS between nodes: node certificates and pins, and gRPC channels.

A pin is a whole certificate: the peer must show exactly these bytes. Authorities, host names and validity are not
checked. Node-records, signed by the member's keys, have the DER of the certificate to pin. Integrity comes from hashes.

A node has one self-signed ECDSA P-256 certificate, because gRPC's BoringSSL does not support Ed25519 certificates. It
is valid at all times, so clocks do not matter. All its fields are a function of its key, except the signature, and no
other certificate can be pinned. There are two reasons, both tested with grpcio 1.78 and 1.85:
- gRPC has no pins, only roots, and a root may also *issue* certificates. A critical keyUsage without keyCertSign
  prevents that. basicConstraints does not: certificates issued by a pinned CA:false certificate without keyUsage were
  accepted on both sides.
- A server gives all its pins to BoringSSL in one bundle. A certificate that BoringSSL cannot parse, but `cryptography`
  can, ends the parsing of the bundle, so one member could exclude all members whose pins follow.
The server also compares the certificate of a client byte by byte (`access.MutualAccess`).

gRPC reports a refused handshake only as UNAVAILABLE; `explain_failure` opens one plain TLS connection to find the
reason, for the error text only.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.trust.keys import PrivateKey
from comity.trust.node_records import (
    ALGORITHM,
    NodeCertificate,
    certificate_key,
    read_node_certificate,
    server_name,
    signed_part,
)
from comity.wire.addresses import Address
from comity.wire.channels import EarlyChannels, PinnedTarget, socket_channel

MAX_DER: Final = 4_096


@frozen
class TlsIdentity:
    """The certificate (DER) that this side shows in a handshake, and its ecdsa-p256 key."""

    certificate: bytes
    key: PrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """Returns key and certificate in PEM, in the order of gRPC."""
        return self.key.to_pem(), to_pem(self.certificate)


@frozen
class CertificatePin:
    """A certificate that the peer must show, and the DNS name in it that gRPC checks."""

    certificate: bytes
    server_name: str

    @classmethod
    def of(cls, certificate: bytes) -> CertificatePin:
        """Pin a certificate (DER). Raises Malformed unless it has the profile of `make_certificate`."""
        if len(certificate) > MAX_DER:
            raise Malformed("certificate too large", why=f"at most {MAX_DER} bytes")
        made = read_node_certificate(certificate)
        if made is None:
            certificate_key(certificate)  # which says why if there is no key in it
            raise Malformed(
                "not a node certificate",
                why="only key and signature may differ from the profile, and another field differs",
                code="CERTIFICATE-PROFILE",
            )
        made.verify()
        return cls(certificate, server_name(made.key))


def make_certificate(key: PrivateKey) -> bytes:
    """Make the self-signed node certificate (DER) of an ecdsa-p256 key. ECDSA signatures are random, so a node makes it
    once and stores it. Raises Malformed for another type of key.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    signer = load_pem_private_key(key.to_pem(), password=None)
    if key.alg != ALGORITHM or not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Malformed("wrong type of TLS key", why=f"node certificates need {ALGORITHM}, not {key.alg}")
    return NodeCertificate(key.public, signer.sign(signed_part(key.public), ec.ECDSA(hashes.SHA256()))).der


def to_pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")


def from_pem(pem: bytes) -> bytes:
    """Returns the bytes in the one PEM block of `pem`; `CertificatePin.of` checks them. Raises Malformed."""
    if len(pem) > 2 * MAX_DER:
        raise Malformed("certificate too large", why=f"at most {2 * MAX_DER} bytes")
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError as error:
        raise Malformed("not a certificate", why="expected one PEM block") from error


_PROBE_TIMEOUT: Final = 5.0
"""Seconds."""


async def explain_failure(address: Address, pin: CertificatePin, identity: TlsIdentity | None) -> ComityError | None:
    """Returns the most likely reason why a channel to `address` fails, or None. Never raises."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            reader, writer = await _handshake(address, pin.server_name)
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if shown != pin.certificate:
                    return _wrong_pin(address, pin, shown or b"")
                return None if await _admits_anyone(reader) else _certificate_refused(address, identity)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return Unavailable(f"{address} does not speak TLS 1.3", why=error.reason or "", code="NO-TLS")
    except (OSError, TimeoutError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
        hint = "check the address, that the node runs, and that its port is open"
        return Unavailable(f"{address} cannot be reached", why=why, hint=hint, code="UNREACHABLE")


async def shown_certificate(address: Address, server_name: str) -> bytes:
    """The certificate (DER) that the server at an IP address and port shows when it is asked for the name, and whose
    key it has: over one connection, which is closed. Raises OSError, which includes ssl.SSLError."""
    _, writer = await _handshake(address, server_name)
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()


async def _handshake(address: Address, server_name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = unverified_context("h2")
    return await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=server_name)


def unverified_context(protocol: str) -> ssl.SSLContext:
    """A context of TLS 1.3 that offers one protocol of ALPN and takes any certificate: the caller compares it with a
    pin, or only wants to see it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _admits_anyone(reader: asyncio.StreamReader) -> bool:
    """Returns whether the server continues without a client certificate. A mutual port closes the connection."""
    try:
        return bool(await reader.read(1))
    except (ssl.SSLError, ConnectionError):
        return False


def _wrong_pin(address: Address, pin: CertificatePin, shown: bytes) -> Refused:
    return Refused(
        f"{address} is not the node that was pinned",
        why=f"it shows certificate {short(sha256(shown))}, the pin is {short(sha256(pin.certificate))}",
        hint="get the node's newest node-record from another member, or ask its operator for the certificate",
        code="PIN-MISMATCH",
    )


def _certificate_refused(address: Address, identity: TlsIdentity | None) -> Refused:
    if identity is None:
        return Refused(
            f"{address} requires a certificate",
            why="this port is for nodes of members, and no certificate was shown",
            hint="use the node's open port",
            code="CERTIFICATE-REQUIRED",
        )
    return Refused(
        f"{address} refused this node's certificate",
        why=f"it has the pinned certificate, but closes the connection for {short(sha256(identity.certificate))}",
        hint="ask its operator whether it has this node's newest node-record",
        code="CERTIFICATE-UNKNOWN",
    )


async def explain_socket(socket: Path) -> ComityError | None:
    """Returns the most likely reason why a channel to a node's Unix socket fails, or None. Never raises."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except PermissionError:
        return Refused(f"no access to {socket}", why="its file permissions exclude this user", code="SOCKET-DENIED")
    except OSError as error:
        home = socket.parent if (socket.parent / "node.toml").is_file() else Path("HOME")
        hint = f"start the node with: comity serve --node {shlex.quote(str(home))}"
        return Unavailable("no node answers", why=f"{socket}: {error.strerror}", hint=hint, code="UNREACHABLE")
    writer.transport.abort()
    return None


_FAILED: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


@frozen
class PinnedChannel:
    """A channel, and a function that returns the reason why it does not connect. `local`: to a node whose operator is
    the user of this process, over its Unix socket."""

    channel: grpc.aio.Channel
    explain: Callable[[], Awaitable[ComityError | None]]
    local: bool = False

    def begin(self) -> grpc.ChannelConnectivity:
        """Begin to connect, if it is not connected, and return the state of now at once."""
        return self.channel.get_state(try_to_connect=True)

    async def connected(self) -> None:
        """Connect, and wait until calls can be made. Raises Unavailable or Refused, with the reason."""
        while (state := self.begin()) is not grpc.ChannelConnectivity.READY:
            if state in _FAILED:
                raise await self.explain() or Unavailable("the node cannot be reached", code="UNREACHABLE")
            await self.channel.wait_for_state_change(state)


def connect(
    address: Address,
    pin: CertificatePin,
    identity: TlsIdentity | None = None,
    *,
    proxy: bool = False,
    early: EarlyChannels | None = None,
) -> PinnedChannel:
    """Create a channel to the node with exactly the pinned certificate; shows `identity` if given.

    `proxy` allows gRPC to use `https_proxy` and `no_proxy` of the environment, never for loopback. The channel connects
    at the first call, over a TCP connection of its own. Requires a running event loop.

    Args:
        early: channels without an identity, of which one may be to this node.
    """
    target = PinnedTarget(address.target, to_pem(pin.certificate), pin.server_name, proxy and not address.is_loopback)
    if identity is not None:
        channel = target.make_channel(*identity.pem())
    else:
        channel = early.take(target) if early is not None else target.make_channel()
    return PinnedChannel(channel, lambda: explain_failure(address, pin, identity))


def connect_operator(socket: Path) -> PinnedChannel:
    """Create a channel to a node on this machine over its Unix socket."""
    return PinnedChannel(socket_channel(str(socket)), lambda: explain_socket(socket), local=True)


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Create the context of a server with the node's certificate, without client certificates. TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    key, chain = identity.pem()
    # The binding of OpenSSL reads only files; this one is anonymous, in memory, and closed after the block.
    with os.fdopen(os.memfd_create("comity-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context
