"""gRPC channels to a certificate, and those that were opened before it was known who would use them.

A connection takes three round trips, and loading a command as long as one or two of them. So a command may open its
connections before it is loaded, to addresses and certificates that nobody has verified yet (`OpenedChannels`). No call
is made over them until somebody who needs a channel to a verified pin takes the one that was opened to exactly this
address, name and certificate; who finds none makes one.

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
class ChannelEnd:
    """What a channel leads to: a target of gRPC, the certificate (PEM) that the peer must show, and the DNS name in it.
    `proxy`: whether gRPC may use `https_proxy` and `no_proxy` of the environment."""

    target: str
    certificate: bytes
    server_name: str
    proxy: bool

    def open(self, key: bytes | None = None, chain: bytes | None = None) -> grpc.aio.Channel:
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


def open_to_socket(socket: str) -> grpc.aio.Channel:
    """Make a channel to a Unix socket of this machine."""
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    return grpc.aio.secure_channel(f"unix:{socket}", credentials, options=(*_OPTIONS, ("grpc.enable_http_proxy", 0)))


class OpenedChannels:
    """Channels that connect before somebody needs them. Not thread-safe: used in one event loop."""

    def __init__(self) -> None:
        self._channels: dict[ChannelEnd, grpc.aio.Channel] = {}

    async def open(self, ends: Iterable[ChannelEnd]) -> None:
        """Begin to connect to each, without waiting."""
        for end in ends:
            if end not in self._channels:
                self._channels[end] = end.open()
                self._channels[end].get_state(try_to_connect=True)

    def take(self, end: ChannelEnd) -> grpc.aio.Channel:
        """Return the channel that leads exactly there, which is the caller's from now on, or a new one."""
        return self._channels.pop(end, None) or end.open()

    async def close(self) -> None:
        """Close those that nobody took."""
        channels = tuple(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close(None)
