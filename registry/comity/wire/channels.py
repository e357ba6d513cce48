"""gRPC channels to a pinned certificate, and those that connect before it is known who will use them.

A connection takes three round trips, and loading a command as long as one or two of them. So a command may connect
before it is loaded, to addresses and certificates that nobody has verified yet (`EarlyChannels`). No call is made over
them until somebody who needs a channel to a verified pin takes the one to exactly this address, name and certificate;
who finds none makes one.

Loads gRPC and nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc

from comity.trust.frozen import frozen
from comity.wire import limits

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    # A peer that disappeared is detected within a minute, while calls wait for it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Reconnects within seconds after a peer restarts; the default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    # No other channel shares the TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)


@frozen
class PinnedTarget:
    """Where a channel connects: a target of gRPC, the certificate (PEM) that the peer must show, and the DNS name in
    it. `proxy`: whether gRPC may use `https_proxy` and `no_proxy` of the environment."""

    target: str
    certificate: bytes
    server_name: str
    proxy: bool

    def make_channel(self, key: bytes | None = None, chain: bytes | None = None) -> grpc.aio.Channel:
        """Make a channel; it connects at the first call. Requires a running event loop.

        Args:
            key, chain: the key and the certificate that this side shows, in PEM.
        """
        options = (
            *_OPTIONS,
            ("grpc.ssl_target_name_override", self.server_name),
            ("grpc.enable_http_proxy", int(self.proxy)),
        )
        credentials = grpc.ssl_channel_credentials(self.certificate, key, chain)
        return grpc.aio.secure_channel(self.target, credentials, options=options)


def socket_channel(socket: str) -> grpc.aio.Channel:
    """Make a channel to a Unix socket of this machine."""
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    return grpc.aio.secure_channel(f"unix:{socket}", credentials, options=(*_OPTIONS, ("grpc.enable_http_proxy", 0)))


class EarlyChannels:
    """Channels that connect before somebody needs them. Not thread-safe: used in one event loop."""

    def __init__(self) -> None:
        self._channels: dict[PinnedTarget, grpc.aio.Channel] = {}

    async def connect(self, targets: Iterable[PinnedTarget]) -> None:
        """Begin to connect to each, without waiting. A coroutine, because channels need a running event loop."""
        for target in targets:
            if target not in self._channels:
                self._channels[target] = target.make_channel()
                self._channels[target].get_state(try_to_connect=True)

    def take(self, target: PinnedTarget) -> grpc.aio.Channel:
        """Return the channel to exactly this target, which is the caller's from now on, or a new one."""
        return self._channels.pop(target, None) or target.make_channel()

    async def close(self) -> None:
        """Close those that nobody took."""
        channels = tuple(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close(None)
