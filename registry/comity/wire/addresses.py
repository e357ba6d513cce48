"""Addresses of nodes, blocks of addresses, and URLs: of a gateway, and of ranges of a blob.

Addresses come from unknown peers. gRPC accepts schemes such as `unix:` and `xds:` in a target, so `Address` allows only
`host:port`.

`GatewayUrl` is the URL of a gateway. It comes from unknown nodes and goes into command lines and configuration files,
so it may contain only letters, digits and `:/.-_~[]`, none of which ends a word, a quotation or a line, and it cannot
contain a secret. Quote it nevertheless.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.wire.limits import GATEWAY_URL

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")


@frozen
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
            raise Malformed("not an address", why="an IPv6 address must be in brackets, and nothing else may be")
        if literal is None and (len(host) > 253 or not _HOST_NAME.match(host)):
            raise Malformed("not an address", why=f"expected host:port, got {text[:80]!r}")
        if not re.fullmatch("[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65_535:
            raise Malformed("not an address", why=f"a port is 1 to 65535, got {port[:20]!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """The target for gRPC, with an explicit scheme."""
        literal = _literal(self.host)
        return f"dns:///{self}" if literal is None else f"ipv{literal.version}:{self}"

    @property
    def is_loopback(self) -> bool:
        literal = _literal(self.host)
        if literal is None:
            return self.host.lower() == "localhost"
        mapped = literal.ipv4_mapped if literal.version == 6 else None
        return (mapped or literal).is_loopback


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses that are given out to hosts of the internet."""
_NOT_PUBLIC: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
        ),
    )
)
"""Special addresses (IANA's registries for IPv4 and IPv6), with all that lead to an IPv4 address in another way than
NAT64. A list and no property of this Python's tables: those of 3.11 have the local NAT64 prefix 64:ff9b:1::/48 as
public."""


def is_public(host: str) -> bool:
    """Whether an IP address is one of a host of the public internet: not one of this machine, of a local or private
    network, of a group, or reserved; nor an IPv6 address that leads to such an IPv4 address. False for a name."""
    address = _literal(host)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or (_last_four(address) if address in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if address not in _UNICAST:
            return False
    return address is not None and not any(address in network for network in _NOT_PUBLIC)


def network_of(host: str) -> Network | None:
    """The network of an IP address that is not of the public internet: the special one of IPv4 that it is in, or its
    /48 of IPv6, or this machine alone. None for a public address, and for a name."""
    address = _literal(host)
    if address is None or is_public(host):
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return ipaddress.ip_network((address, 128 if address.is_loopback else 48), strict=False)
    return next((network for network in _NOT_PUBLIC if address in network), None)


def callable_host(found: Iterable[str], networks: Sequence[Network]) -> str | None:
    """The first of the IP addresses of a name that may be called on the word of a stranger: one of the public internet,
    or in one of these networks. None if there is none."""
    allowed = (host for host in found if is_public(host) or any(_literal(host) in network for network in networks))
    return next(allowed, None)


def _last_four(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def caller_name(host: str) -> str:
    """Returns the key for the rate limits of a caller: an IPv4 address, or the /64 of an IPv6 address, which one host
    has.

    `host` is the peer address of a socket, possibly with a zone after `%`; returns `elsewhere` for anything else.
    """
    return _network(host, 32, 64)


def address_block(host: str) -> str:
    """Returns the block by which unknown clients share connections: the /24 of an IPv4 address, the /48 of an IPv6 one.

    These are the smallest blocks that are routed separately: one party can easily have one block, but rarely many.
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


_TARGET: Final = re.compile(r"/[!-~]*", re.ASCII)


@frozen
class RangeUrl:
    """The HTTPS URL of one blob, read by ranges. The target is a secret: it is in no error and no `repr`."""

    address: Address
    target: str

    @classmethod
    def parse(cls, url: str) -> RangeUrl:
        """Parse `https://host[:port]/path[?query]`, which is unverified data of a node. Raises Malformed."""
        try:
            parts = urlsplit(url)
            port = 443 if parts.port is None else parts.port
        except ValueError as error:
            raise Malformed("not a location", why="not a URL") from error
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not _TARGET.fullmatch(target):
            raise Malformed("not a location", why="expected https://host/path")
        host = parts.hostname or ""
        return cls(Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), target)

    def __repr__(self) -> str:
        return f"<RangeUrl at {self.address}>"


_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*)\Z")


@frozen
class GatewayUrl:
    """The URL of a gateway. Create it with `parse` only; `str` returns the parsed text."""

    text: str
    scheme: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> GatewayUrl:
        """`https://models.example.org`, `http://192.0.2.1:7480/hub`: no user, query, fragment or closing slash. Raises
        Malformed (GATEWAY-URL)."""
        found = _URL.match(text) if len(text) <= GATEWAY_URL else None
        if found is None:
            raise _refused()
        scheme, place, _ = found.groups()
        bare = ":" not in place.rpartition("]")[2]
        try:
            address = Address.parse(f"{place}:{_PORTS[scheme]}" if bare else place)
        except Malformed as error:
            raise _refused() from error
        return cls(text, scheme, address)

    def __str__(self) -> str:
        return self.text


def _refused() -> Malformed:
    """The error for an invalid URL. It does not contain the URL, which may contain a password."""
    why = f"allowed: at most {GATEWAY_URL} characters; letters, digits and ._~- in the path; no user, no query"
    return Malformed("not the URL of a gateway", why=why, hint="https://HOST[:PORT][/PATH]", code="GATEWAY-URL")
