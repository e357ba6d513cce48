"""Network addresses, `host:port`. They are hints from strangers, and gRPC reads more into a target than that: a
`unix:` or `xds:` scheme must never come in this way."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from comity.trust.errors import Malformed

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
