"""Channels to nodes: the other side shows exactly the certificate that was pinned, or there is no connection.

Which certificate to pin is not decided here: node-records say it. The doors that channels lead to are in `doors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from comity.trust.errors import ComityError
from comity.wire import limits, probe
from comity.wire.address import Address
from comity.wire.certs import Pin, TlsIdentity, to_pem

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
class Connection:
    """A channel, and a way to find out why it does not connect."""

    channel: grpc.aio.Channel
    explain: Callable[[], Awaitable[ComityError | None]]


def connect(address: Address, pin: Pin, identity: TlsIdentity | None = None, *, proxy: bool = False) -> Connection:
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
    return Connection(channel, lambda: probe.explain(address, pin, identity))


def connect_operator(socket: Path) -> Connection:
    """A channel to a node on this machine over its Unix socket."""
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    options = (*_OPTIONS, ("grpc.enable_http_proxy", 0))
    channel = grpc.aio.secure_channel(f"unix:{socket}", credentials, options=options)
    return Connection(channel, lambda: probe.explain_socket(socket))
