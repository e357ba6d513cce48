"""Credentials and channels: who may connect to whom, decided by pins.

A node has three doors: *mutual* (each side shows a certificate that the other has pinned), *open* (only the node shows
one), and the *operator's* Unix socket (file permissions decide). The handshake is TLS 1.3 with a hybrid post-quantum
key exchange, as gRPC negotiates by itself. Which certificates to pin is not decided here: node-records say it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from comity.trust.errors import ComityError
from comity.wire import limits, probe
from comity.wire.address import Address
from comity.wire.certs import Pin, TlsIdentity, to_pem

_COMMON: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    # A peer that vanished without a word is noticed within a minute, while calls wait for it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
SERVER_OPTIONS: Final = (
    *_COMMON,
    ("grpc.max_concurrent_streams", limits.STREAMS),
    # Our own clients' pings are welcome; the default takes them for abuse on a quiet stream.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # Two servers on one port would be an accident.
    ("grpc.so_reuseport", 0),
)
_CLIENT_OPTIONS: Final = (
    *_COMMON,
    # A peer that comes back is found within seconds; the default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """A channel, and a way to find out why it does not connect."""

    channel: grpc.aio.Channel
    explain: Callable[[], Awaitable[ComityError | None]]


def mutual_door(identity: TlsIdentity, peers: Callable[[], Iterable[Pin]]) -> grpc.ServerCredentials:
    """Credentials for the port where both sides show certificates. `peers` gives all that are let in; gRPC asks it from
    a thread of its own at every handshake, so that a peer added or dropped counts from its next connection on."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        # No roots at all would be an error to gRPC. Our own certificate stands for nobody: `guards` refuses it.
        roots = b"".join(to_pem(peer.certificate) for peer in peers()) or to_pem(identity.certificate)
        return grpc.ssl_server_certificate_configuration([_pair(identity)], root_certificates=roots)

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


def open_door(identity: TlsIdentity) -> grpc.ServerCredentials:
    """Credentials for the port where only the node shows a certificate."""
    return grpc.ssl_server_credentials([_pair(identity)])


def operator_door() -> grpc.ServerCredentials:
    """Credentials for a `unix:` port; they refuse every other kind."""
    return grpc.local_server_credentials(grpc.LocalConnectionType.UDS)


def connect(address: Address, pin: Pin, identity: TlsIdentity | None = None, *, proxy: bool = False) -> Connection:
    """A channel to the node that shows exactly the pinned certificate; `identity` is shown where there is one.

    `proxy` lets gRPC use `https_proxy` and `no_proxy` of the environment, never for loopback. Connecting begins with
    the first call. Must be called where an event loop runs.
    """
    key, chain = _pair(identity) if identity else (None, None)
    options = (
        *_CLIENT_OPTIONS,
        ("grpc.ssl_target_name_override", pin.server_name),
        ("grpc.enable_http_proxy", int(proxy and not address.is_loopback)),
    )
    credentials = grpc.ssl_channel_credentials(to_pem(pin.certificate), key, chain)
    channel = grpc.aio.secure_channel(address.target, credentials, options=options)
    return Connection(channel, lambda: probe.explain(address, pin, identity))


def connect_operator(socket: Path) -> Connection:
    """A channel to a node on this machine over its Unix socket."""
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    options = (*_CLIENT_OPTIONS, ("grpc.enable_http_proxy", 0))
    channel = grpc.aio.secure_channel(f"unix:{socket}", credentials, options=options)
    return Connection(channel, lambda: probe.explain_socket(socket))


def _pair(identity: TlsIdentity) -> tuple[bytes, bytes]:
    return identity.key.to_pem(), to_pem(identity.certificate)
