"""Who a caller is at each port, and what is counted for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from comity.trust.errors import Malformed, Refused
from comity.wire.access import MutualAccess, OpenAccess, OperatorAccess
from comity.wire.tls import to_pem
from support.wired import identity, pin

SERVER, PEER, OPERATOR = identity(), identity(), identity()


@dataclass
class Connected:
    """The data of a connection that an access rule reads."""

    address: str = "ipv4:192.0.2.1:5000"
    shown: Mapping[str, Iterable[bytes]] = field(default_factory=dict)

    def peer(self) -> str:
        return self.address

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.shown


def showing(certificate: bytes) -> Connected:
    return Connected(shown={"x509_pem_cert": [to_pem(certificate)]})


def test_the_mutual_port_distinguishes_peers_and_operators() -> None:
    door = MutualAccess(SERVER, lambda: [pin(PEER)], lambda: [pin(OPERATOR)])
    peer, operator = door.caller(showing(PEER.certificate)), door.caller(showing(OPERATOR.certificate))
    assert (peer.certificate, peer.operator) == (PEER.certificate, False)
    assert (operator.certificate, operator.operator) == (OPERATOR.certificate, True)


@pytest.mark.parametrize("certificate", [SERVER.certificate, PEER.certificate + b"\x00", PEER.certificate[:-1]])
def test_the_mutual_port_requires_equal_bytes_of_a_certificate(certificate: bytes) -> None:
    with pytest.raises(Refused):
        MutualAccess(SERVER, lambda: [pin(PEER)]).caller(showing(certificate))


def test_the_mutual_port_refuses_a_call_without_a_certificate() -> None:
    with pytest.raises(Refused):
        MutualAccess(SERVER, lambda: [pin(PEER)]).caller(Connected())
    with pytest.raises(Malformed):
        MutualAccess(SERVER, lambda: [pin(PEER)]).caller(Connected(shown={"x509_pem_cert": [b"nonsense"]}))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::1]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:5000", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("unix:", "elsewhere"),
        ("", "elsewhere"),
    ],
)
def test_the_open_port_counts_by_address_block(address: str, name: str) -> None:
    caller = OpenAccess(SERVER).caller(Connected(address))
    assert (caller.name, caller.certificate, caller.operator) == (name, None, False)


def test_every_caller_at_the_operator_socket_is_an_operator() -> None:
    assert OperatorAccess().caller(Connected("unix:")).operator
