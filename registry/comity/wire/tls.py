"""Network addresses, `host:port`. They are hints from strangers, and gRPC reads more into a target than that: a
`unix:` or `xds:` scheme must never come in this way.

TLS certificates of nodes. The certificate itself is the pin: equal bytes, or a stranger.

A node shows one self-signed ECDSA P-256 certificate: gRPC's BoringSSL has no Ed25519 certificates, and a validity that
spans all clocks keeps time out of the matter. The node-record, signed by the member's keys, binds its DER.

A node certificate is a function of its key, up to the signature, and nothing else is ever pinned. Two reasons, both
tried with grpcio 1.78 and 1.85:
- gRPC knows no pins, only roots, and whatever it trusts as a root it also trusts to *issue*. A critical keyUsage
  without keyCertSign takes that away. basicConstraints does not: what a pinned CA:false certificate without keyUsage
  had issued was accepted on both sides.
- A server hands all its pins to BoringSSL in one bundle, and one that BoringSSL cannot read, though `cryptography` can,
  ends the reading of the bundle: a single member could lock out all whose pins come after its own.

The server compares what a client shows byte for byte besides (`guards`).


Why does it not connect? gRPC calls a refused handshake UNAVAILABLE, and no more; one plain TLS connection tells.

Nothing is trusted for what is seen here: the answer is a better sentence for a person.


Channels to nodes: the other side shows exactly the certificate that was pinned, or there is no connection.

Which certificate to pin is not decided here: node-records say it. The doors that channels lead to are in `doors`.


HTTPS between those who pin each other's certificates: the same rule as for gRPC, for ranges of blobs.

Equal bytes of the certificate, or a stranger. No authority, host name or validity is looked at: the node-record says
which certificate a node shows, and integrity comes from hashes. The client half is blocking, for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.statements import certificate_key
from comity.wire import limits

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP literal, and a port from 1 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`example.org:7443`, `192.0.2.1:7443` or `[2001:db8::1]:7443`. Raises Malformed."""
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        literal = _literal(host)
        if bracketed != (literal is not None and literal.version == 6):
            raise Malformed("not an address", why="an IPv6 address, and nothing else, stands in brackets")
        if literal is None and (len(host) > 253 or not _HOST_NAME.match(host)):
            raise Malformed("not an address", why=f"expected host:port, got {text[:80]!r}")
        if not re.fullmatch("[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65_535:
            raise Malformed("not an address", why=f"a port is 1 to 65535, got {port[:20]!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """What gRPC is told, with its scheme spelled out."""
        literal = _literal(self.host)
        return f"dns:///{self}" if literal is None else f"ipv{literal.version}:{self}"

    @property
    def is_loopback(self) -> bool:
        literal = _literal(self.host)
        if literal is None:
            return self.host.lower() == "localhost"
        mapped = literal.ipv4_mapped if literal.version == 6 else None
        return (mapped or literal).is_loopback


def caller_name(host: str) -> str:
    """What one caller is counted by: an IPv4 address, or the /64 of an IPv6 one, which is what one host has.

    `host` is a socket's peer address, a zone behind a `%` allowed; anything else gives `elsewhere`.
    """
    return _network(host, 32, 64)


def address_block(host: str) -> str:
    """What strangers share connections by: the /24 of an IPv4 address, the /48 of an IPv6 one.

    These are the smallest blocks that are routed by themselves: one party easily has all of one, and rarely many.
    """
    return _network(host, 24, 48)


def _network(host: str, v4: int, v6: int) -> str:
    address = _literal(host.partition("%")[0])
    if address is None:
        return "elsewhere"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    length = v4 if isinstance(address, ipaddress.IPv4Address) else v6
    network = ipaddress.ip_network((address, length), strict=False)
    return str(network.network_address) if length == address.max_prefixlen else str(network)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host) if "%" not in host else None
    except ValueError:
        return None


MAX_DER: Final = 4_096
_NOT_BEFORE: Final = datetime(1970, 1, 1)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59)
_SIGNATURES_ONLY: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

# A builder tells its bytes only by signing them; whose signature it is does not matter there.
_SOME_KEY: Final = ec.derive_private_key(1, ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What this side shows in a handshake: its certificate (DER), and the ecdsa-p256 key to it."""

    certificate: bytes
    key: PrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """Key and certificate, as gRPC takes them."""
        return self.key.to_pem(), to_pem(self.certificate)


@dataclass(frozen=True, slots=True)
class CertificatePin:
    """A certificate that the other side must show, and the DNS name in it that gRPC wants to hear."""

    certificate: bytes
    server_name: str

    @classmethod
    def of(cls, certificate: bytes) -> CertificatePin:
        """Pin a certificate (DER). Raises Malformed unless it is one that `make_certificate` makes."""
        if len(certificate) > MAX_DER:
            raise Malformed("certificate too large", why=f"at most {MAX_DER} bytes are read")
        key = certificate_key(certificate)
        expected = _template(key).sign(_SOME_KEY, hashes.SHA256())
        shown = x509.load_der_x509_certificate(certificate)
        spelled_once = certificate.endswith(b"\0" + shown.signature)  # no unused bits, which `cryptography` ignores
        if shown.tbs_certificate_bytes != expected.tbs_certificate_bytes or not spelled_once:
            raise Malformed(
                "not a node certificate",
                why="nothing in one is free but its key and its signature, and this one differs elsewhere",
                code="CERTIFICATE-PROFILE",
            )
        try:
            shown.verify_directly_issued_by(shown)
        except (ValueError, InvalidSignature) as error:
            raise Malformed("not a node certificate", why="it is not signed by its own key") from error
        return cls(certificate, _name(key))


def make_certificate(key: PrivateKey) -> bytes:
    """The self-signed node certificate of an ecdsa-p256 key, DER. ECDSA signatures are random, so a node makes it once
    and keeps it. Raises Malformed for a key of another kind.

    X.509 v3; serial: the first 128 bits of the key id, lowest bit set; signature ecdsa-with-SHA256; issuer and subject
    CN=`n-<32 hex digits of the key id>.comity.invalid`; valid 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z; extensions
    basicConstraints (critical) CA:false, keyUsage (critical) digitalSignature, subjectAltName the same name.
    """
    signer = serialization.load_pem_private_key(key.to_pem(), password=None)
    if key.alg != "ecdsa-p256" or not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Malformed("wrong kind of TLS key", why=f"node certificates are ecdsa-p256, not {key.alg}")
    return _template(key.public).sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _name(key: PublicKey) -> str:
    return f"n-{key.id[:32]}.comity.invalid"


def _template(key: PublicKey) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _name(key))])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.raw))
        .serial_number(int(key.id[:32], 16) | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNATURES_ONLY, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_name(key))]), critical=False)
    )


def to_pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")


def from_pem(pem: bytes) -> bytes:
    """The bytes in the one PEM block of `pem`; whether they are a certificate, `Pin.of` says. Raises Malformed."""
    if len(pem) > 2 * MAX_DER:
        raise Malformed("certificate too large", why=f"at most {2 * MAX_DER} bytes are read")
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError as error:
        raise Malformed("not a certificate", why="expected one PEM block") from error


_PATIENCE: Final = 5.0


async def explain_failure(address: Address, pin: CertificatePin, identity: TlsIdentity | None) -> ComityError | None:
    """The most likely reason why a channel to `address` fails, or None where nothing seems wrong. Never raises."""
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=_probe_context(), server_hostname=pin.server_name
            )
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if shown != pin.certificate:
                    return _wrong_pin(address, pin, shown or b"")
                return None if await _lets_in(reader) else _not_let_in(address, identity)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return Unavailable(f"{address} does not speak TLS 1.3", why=error.reason or "", code="NO-TLS")
    except (OSError, TimeoutError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
        hint = "check the address, and that the node runs and its port is open"
        return Unavailable(f"{address} cannot be reached", why=why, hint=hint, code="UNREACHABLE")


def _probe_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _lets_in(reader: asyncio.StreamReader) -> bool:
    """Whether the server greets us, who showed no certificate. A mutual door hangs up instead."""
    try:
        return bool(await reader.read(1))
    except (ssl.SSLError, ConnectionError):
        return False


def _wrong_pin(address: Address, pin: CertificatePin, shown: bytes) -> Refused:
    return Refused(
        f"{address} is not the node that was pinned",
        why=f"it shows certificate {short(sha256(shown))}, pinned is {short(sha256(pin.certificate))}",
        hint="get the node's newest node-record from another member, or ask its operator which certificate it shows",
        code="PIN-MISMATCH",
    )


def _not_let_in(address: Address, identity: TlsIdentity | None) -> Refused:
    if identity is None:
        return Refused(
            f"{address} asks for a certificate",
            why="this is the port for members' nodes, and no certificate was shown",
            hint="use the node's open port",
            code="CERTIFICATE-REQUIRED",
        )
    return Refused(
        f"{address} did not let this node in",
        why=f"it shows the pinned certificate, but hangs up on ours, {short(sha256(identity.certificate))}",
        hint="ask its operator whether it holds this node's newest node-record",
        code="CERTIFICATE-UNKNOWN",
    )


async def explain_socket(socket: Path) -> ComityError | None:
    """The same for a node's Unix socket."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except PermissionError:
        return Refused(f"{socket} may not be used", why="its permissions do not let this user in", code="SOCKET-DENIED")
    except OSError as error:
        hint = "start the node with: comity serve --dir HOME"
        return Unavailable("no node answers", why=f"{socket}: {error.strerror}", hint=hint, code="UNREACHABLE")
    writer.transport.abort()
    return None


_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    # A peer that vanished without a word is noticed within a minute, while calls wait for it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A peer that comes back is found within seconds; the default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class PinnedChannel:
    """A channel, and a way to find out why it does not connect."""

    channel: grpc.aio.Channel
    explain: Callable[[], Awaitable[ComityError | None]]


def connect(
    address: Address, pin: CertificatePin, identity: TlsIdentity | None = None, *, proxy: bool = False
) -> PinnedChannel:
    """A channel to the node that shows exactly the pinned certificate; `identity` is shown where there is one.

    `proxy` lets gRPC use `https_proxy` and `no_proxy` of the environment, never for loopback. Connecting begins with
    the first call. Must be called where an event loop runs.
    """
    key, chain = identity.pem() if identity else (None, None)
    options = (
        *_OPTIONS,
        ("grpc.ssl_target_name_override", pin.server_name),
        ("grpc.enable_http_proxy", int(proxy and not address.is_loopback)),
    )
    credentials = grpc.ssl_channel_credentials(to_pem(pin.certificate), key, chain)
    channel = grpc.aio.secure_channel(address.target, credentials, options=options)
    return PinnedChannel(channel, lambda: explain_failure(address, pin, identity))


def connect_operator(socket: Path) -> PinnedChannel:
    """A channel to a node on this machine over its Unix socket."""
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    options = (*_OPTIONS, ("grpc.enable_http_proxy", 0))
    channel = grpc.aio.secure_channel(f"unix:{socket}", credentials, options=options)
    return PinnedChannel(channel, lambda: explain_socket(socket))


_TARGET: Final = re.compile(r"/[!-~]*", re.ASCII)
_EXPIRED: Final = frozenset({401, 403, 410})


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """For a server that shows the node's certificate, as the open port does. TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    key, chain = identity.pem()
    # OpenSSL's binding reads files only; this one is in memory, without a name, and gone at the end of the block.
    with os.fdopen(os.memfd_create("comity-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


@dataclass(frozen=True, slots=True)
class RangeUrl:
    """Where one blob is to be had by ranges, over HTTPS. The target is a secret: it is in no error and no `repr`."""

    address: Address
    target: str

    @classmethod
    def parse(cls, url: str) -> RangeUrl:
        """Raises Malformed for anything but `https://host[:port]/path[?query]`; a node says what it likes."""
        try:
            parts = urlsplit(url)
            port = 443 if parts.port is None else parts.port
        except ValueError as error:
            raise Malformed("not a location", why="it is no URL") from error
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not _TARGET.fullmatch(target):
            raise Malformed("not a location", why="expected https://host/path")
        host = parts.hostname or ""
        return cls(Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), target)

    def __repr__(self) -> str:
        return f"<RangeUrl at {self.address}>"


class RangeClient:
    """One connection, for one request at a time; made with the first, and again where it was lost. Blocking.

    Args:
        pin: the certificate that the other side has to show; None for a service that an authority of this machine's
            vouches for.
        patience: seconds without a byte after which it has failed.
    """

    def __init__(self, address: Address, pin: CertificatePin | None, *, patience: float) -> None:
        self.address = address
        self.pin = pin
        self._connection = _Pinned(address, pin, patience)
        self._response: http.client.HTTPResponse | None = None

    def begin(self, url: RangeUrl, offset: int, length: int, most: int) -> bytes:
        """Ask for one range, and give its first bytes, at most `most`; `read` gives the others.

        Raises Unavailable (CONNECTION, HTTP), Refused (PIN-MISMATCH, URL-EXPIRED), NotFound, and Malformed (RANGE)
        where the answer is not that range.
        """
        if not self._asked_again(url, offset, length):
            with self._losses():
                self._ask(url, offset, length)
        return self.read(most)

    def read(self, most: int) -> bytes:
        """The next bytes of the range, none at its end. Raises Unavailable (CONNECTION)."""
        assert self._response is not None, "a range is read once its answer has begun"
        with self._losses():
            return self._response.read(most)

    def abort(self) -> None:
        """Give up what another thread is waiting for; it gets an error, and nothing more can be asked. `close` then."""
        self._connection.abort()

    def close(self) -> None:
        """Not while another thread is at work here."""
        self._connection.close()

    def _asked_again(self, url: RangeUrl, offset: int, length: int) -> bool:
        """Ask on the connection that is there, if it still is: both sides end those that are idle."""
        if self._connection.sock is None:
            return False
        try:
            self._ask(url, offset, length)
        except (http.client.HTTPException, OSError):
            self.close()
            return False
        return True

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _lost(self.address, error) from error

    def _ask(self, url: RangeUrl, offset: int, length: int) -> None:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", url.target, headers=wanted)
        response = self._connection.getresponse()
        try:
            _check(response, offset, length, self.address)
        except ComityError:
            response.close()
            self.close()
            raise
        self._response = response


class _Pinned(http.client.HTTPSConnection):
    """Compares the certificate before the first request is sent."""

    def __init__(self, address: Address, pin: CertificatePin | None, patience: float) -> None:
        context = ssl.create_default_context() if pin is None else _http_context()
        super().__init__(address.host, address.port, timeout=patience, context=context)
        self._address = address
        self._pin = pin
        self._aborted = False

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        if self._aborted:
            self.close()
            raise ConnectionAbortedError("given up")
        shown = self.sock.getpeercert(binary_form=True) or b""
        if self._pin is not None and shown != self._pin.certificate:
            self.close()
            why = f"it shows certificate {short(sha256(shown))}, pinned is {short(sha256(self._pin.certificate))}"
            raise Refused(f"{self._address} is not the node that was pinned", why=why, code="PIN-MISMATCH")

    def abort(self) -> None:
        self._aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):  # past `ssl`, whose own method also frees what the other thread uses
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _http_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _check(response: http.client.HTTPResponse, offset: int, length: int, address: Address) -> None:
    status = response.status
    if status in _EXPIRED:
        raise Refused("the location is no longer valid", why=f"{address} answers {status}", code="URL-EXPIRED")
    if status == 404:
        raise NotFound("the blob is not here", why=f"{address} answers {status}")
    if status == 429 or status >= 500:
        raise Unavailable("not served now", why=f"{address} answers {status}", code="HTTP")
    given = response.getheader("Content-Range", "")
    if status != 206 or response.chunked or response.length != length:
        raise Malformed("not the range asked for", why=f"{address} answers {status} with another length", code="RANGE")
    if not given.startswith(f"bytes {offset}-{offset + length - 1}/"):
        raise Malformed("not the range asked for", why=f"{address} gives another one", code="RANGE")


def _lost(address: Address, error: Exception) -> Unavailable:
    """What went wrong, without the URL."""
    if isinstance(error, TimeoutError):
        why = "no answer in time"
    else:
        why = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    return Unavailable(f"{address} was not reached", why=why, code="CONNECTION")
