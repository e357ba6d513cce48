"""Addresses of nodes: host and port."""

from __future__ import annotations

import pytest
from comity.trust.errors import Malformed
from comity.wire.addresses import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("example.org:7443", "example.org", 7443, "dns:///example.org:7443"),
        ("node-1:1", "node-1", 1, "dns:///node-1:1"),
        ("192.0.2.1:65535", "192.0.2.1", 65535, "ipv4:192.0.2.1:65535"),
        ("[2001:db8::1]:7443", "2001:db8::1", 7443, "ipv6:[2001:db8::1]:7443"),
    ],
)
def test_an_address_is_parsed_and_printed_back(text: str, host: str, port: int, target: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.target, str(address)) == (host, port, target, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "example.org:",
        "example.org:0",
        "example.org:65536",
        "example.org:07443",
        "example.org:+1",
        "example.org:٣",
        ":7443",
        "-a.example:1",
        "a..b:1",
        "a_b:1",
        "a b:1",
        "a\n:1",
        "2001:db8::1:7443",
        "[192.0.2.1]:7443",
        "[example.org]:7443",
        "[fe80::1%eth0]:7443",
        "unix:/run/node.sock:1",
        "unix:1:1",
        "dns:///example.org:1",
        "xds:///x:1",
        "user@example.org:1",
        "x" * 64 + ".example:1",
        "a." * 130 + "a:1",
    ],
)
def test_an_invalid_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("LocalHost:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::ffff:192.0.2.1]:1", False),
        ("192.0.2.1:1", False),
        ("localhost.example:1", False),
    ],
)
def test_loopback_is_recognised(text: str, loopback: bool) -> None:
    assert Address.parse(text).is_loopback is loopback
