"""Checks of `comity doctor` towards others: where each bound lies, and what is said for none, one and many."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.config import NodeConfig
from comity.node.maintenance.home_checks import Diagnosis, DiskSpace, ExaminedNode, Machine
from comity.node.maintenance.network_checks import (
    MAX_NAMED,
    PROXIES,
    RENEW_DAYS,
    STALE_SECONDS,
    check_advertised,
    check_forks,
    check_gateway,
    check_limits,
    check_listeners,
    check_peers,
    check_proxy,
    check_running,
    ping_peers,
)
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound
from comity.wire.node_status import (
    ForkStatus,
    GovernanceStatus,
    LogStatus,
    NodeStatus,
    PeerStatus,
    Quota,
    StoreStatus,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.federation import NodeHome, found

NOW = 1_800_000_000
PEER = PeerStatus("node-es.example", "ES", "node-es.example:7443", True, NOW, 0, "")
SILENT = replace(PEER, reachable=False)
OWN = LogStatus("node-ch.example/log", 3, True, NOW, ("node-es.example/cosigner",))
CHARTER = GovernanceStatus(sha256(b"federation"), 0, sha256(b"body"), False, 0)
RUNNING = NodeStatus("comity", OWN.origin, NOW, (PEER,), (OWN,), StoreStatus(0, 0, None, 0), 0, 0, (), ())
Seen = list[tuple[str, str]]


def examined(status: NodeStatus | None = RUNNING, environ: dict[str, str] | None = None, **config: Any) -> ExaminedNode:
    """A node with these settings, of which the checks read no others."""
    settings = {"is_front_end": False, "listeners": {}, "gateway": SimpleNamespace(http="", certificate=None), **config}
    machine = Machine(lambda: NOW, environ or {}, lambda folder: DiskSpace(1, 1, 1, 1), lambda: True, lambda: 1)
    return ExaminedNode(Path("home"), cast(NodeConfig, SimpleNamespace(**settings)), None, status, machine)


def seen(findings: Iterable[Diagnosis]) -> Seen:
    listed = list(findings)
    assert all(bool(each.fix) for each in listed if each.level in ("warn", "fail"))
    return [(each.level, each.text) for each in listed]


def levels(findings: Iterable[Diagnosis]) -> list[str]:
    return [level for level, _ in seen(findings)]


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_listener_of_a_running_node_answers_and_of_a_stopped_one_is_free(port: int) -> None:
    free = closed_port()
    listeners = {"listen.open": f"127.0.0.1:{port}", "listen.mutual": f"127.0.0.1:{free}", "listen.x": "0.0.0.0:0"}
    assert levels(check_listeners(examined(listeners=listeners))) == ["ok", "fail"]
    assert levels(check_listeners(examined(None, listeners=listeners))) == ["fail", "ok"]
    assert levels(check_listeners(examined(None, listeners=listeners, is_front_end=True))) == ["unknown", "ok"]
    everywhere = {"listen.open": f"0.0.0.0:{port}"}
    assert seen(check_listeners(examined(listeners=everywhere))) == [("ok", f"listen.open = 0.0.0.0:{port} listens")]


def advertised(address: str, status: NodeStatus | None = RUNNING) -> tuple[str, str]:
    settings = SimpleNamespace(mutual=(address,), open=(address,))
    first, second = seen(check_advertised(examined(status, advertise=settings)))
    assert first[0] == second[0]
    return first


@pytest.mark.parametrize(
    ("address", "level", "text"),
    [
        ("127.0.0.1:7443", "warn", "other machines cannot reach"),
        ("localhost:7443", "warn", "other machines cannot reach"),
        ("0.0.0.0:7443", "fail", "no address of a machine"),
        ("[::]:7443", "fail", "no address of a machine"),
        ("192.0.2.1:7443", "unknown", "not tried, the node does not run"),
    ],
)
def test_an_address_that_others_cannot_use_is_named(address: str, level: str, text: str) -> None:
    found_level, found_text = advertised(address, None)
    assert found_level == level and text in found_text


def test_a_name_is_resolved_and_reached(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    def resolve(host: str, wanted: int, *rest: object, **more: object) -> list[object]:
        if host != "node.example":
            raise socket.gaierror("Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", wanted))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert advertised("other.example:7443")[0] == "fail"
    assert advertised(f"node.example:{port}")[0] == "ok"
    assert advertised(f"node.example:{closed_port()}")[0] == "warn"


def test_nothing_that_is_advertised_is_a_warning_and_many_are_cut() -> None:
    assert levels(check_advertised(examined(advertise=SimpleNamespace(mutual=(), open=())))) == ["warn", "warn"]
    many = SimpleNamespace(mutual=("127.0.0.1:1",) * (MAX_NAMED + 5), open=())
    assert len(levels(check_advertised(examined(advertise=many)))) == MAX_NAMED + 1
    assert levels(check_advertised(examined(advertise=many, is_front_end=True))) == []


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_matters_where_no_peer_is_reached(name: str) -> None:
    def proxied(*peers: PeerStatus) -> Seen:
        return seen(check_proxy(examined(replace(RUNNING, peers=peers), {name: "http://me:tiger@proxy.example:1"})))

    ((level, text),) = proxied(SILENT, replace(SILENT, address=""))
    assert level == "fail" and name in text and "tiger" not in text
    assert [level for level, _ in proxied(SILENT, PEER)] == ["ok"]
    assert [level for level, _ in proxied(replace(SILENT, former=True))] == ["ok"]
    assert "not tried" in seen(check_proxy(examined(None, {name: "x"})))[0][1]
    assert seen(check_proxy(examined(environ={name: ""}))) == [("ok", "none is set")]


def test_limits_are_named_from_the_share_on_at_which_operators_are_warned() -> None:
    quotas = (Quota("a", 79, 100), Quota("b", 80, 100), Quota("c", 100, 100, items=True), Quota("d", 0, 0))
    assert seen(check_limits(examined(replace(RUNNING, quotas=quotas)))) == [
        ("warn", "b: 80 of 100 bytes"),
        ("warn", "c: 100 of 100 items"),
        ("warn", "d: 0 of 0 bytes"),
    ]
    assert seen(check_limits(examined(replace(RUNNING, quotas=quotas[:1])))) == [
        ("ok", "none of 1 limits is used to 80%")
    ]
    assert seen(check_limits(examined(None))) == []


def test_a_node_that_signs_nothing_fails() -> None:
    assert levels(check_running(examined())) == ["ok"]
    silent = replace(RUNNING, warnings=("this node signs nothing: its log diverged", "another"))
    assert seen(check_running(examined(silent))) == [("fail", "this node signs nothing: its log diverged")]
    assert levels(check_running(examined(None))) == ["unknown"]


@pytest.mark.parametrize(
    ("http", "certificate", "metrics", "fix"),
    [
        ("127.0.0.1:1", None, "", "curl -fsS http://127.0.0.1:1/readyz"),
        ("127.0.0.1:1", Path("c.pem"), "", "curl -fsSk https://127.0.0.1:1/readyz"),
        ("", None, "127.0.0.1:2", "curl -fsS http://127.0.0.1:2/readyz"),
        ("", None, "", ""),
    ],
)
def test_a_front_end_is_asked_at_its_own_port(http: str, certificate: Path | None, metrics: str, fix: str) -> None:
    gateway, listen = SimpleNamespace(http=http, certificate=certificate), SimpleNamespace(metrics=metrics)
    (found,) = check_running(examined(None, is_front_end=True, gateway=gateway, listen=listen))
    assert (found.level, found.fix) == ("unknown", fix)


def test_peers_that_do_not_answer_are_named_to_a_number() -> None:
    def peers(*listed: PeerStatus) -> Seen:
        return seen(check_peers(examined(replace(RUNNING, peers=listed))))

    assert peers(PEER, PEER) == [("ok", "2 of 2 answer")]
    assert peers(replace(SILENT, last_error="timed out"), replace(PEER, last_error="bad note"), PEER) == [
        ("fail", "node-es.example does not answer at node-es.example:7443: timed out"),
        ("warn", "node-es.example answers, and its data are not taken: bad note"),
        ("ok", "2 of 3 answer"),
    ]
    assert peers(replace(SILENT, address="")) == [
        ("fail", "node-es.example does not answer at any address: not asked yet")
    ]
    assert len(peers(*(SILENT,) * (MAX_NAMED + 3))) == MAX_NAMED
    assert peers(replace(SILENT, former=True)) == []
    alone = replace(examined(replace(RUNNING, peers=())), files=cast(Any, SimpleNamespace(federation=object())))
    assert seen(check_peers(alone)) == [("warn", "none is known")]
    assert seen(check_peers(examined(None))) == []


def fork(epoch: int, *, retired: bool = False) -> ForkStatus:
    return ForkStatus(epoch, sha256(b"1"), sha256(b"2"), retired)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ["ok"]),
        ({"governance": replace(CHARTER, forks=(fork(4),))}, ["fail"]),
        ({"governance": replace(CHARTER, forks=(fork(4, retired=True),))}, ["ok"]),
        ({"governance": replace(CHARTER, forks=(fork(4), fork(5)), liars=("A",))}, ["fail"] * 3),
        ({"governance": replace(CHARTER, liars=("A",) * (MAX_NAMED + 1))}, ["fail"] * MAX_NAMED),
        ({"governance": None, "misbehaviour": 1}, ["fail"]),
        ({"logs": (OWN, replace(OWN, own=False, full=True))}, ["ok", "warn"]),
    ],
)
def test_two_histories_are_named(changed: dict[str, Any], expected: list[str]) -> None:
    status = replace(RUNNING, **{"governance": CHARTER, **changed})
    *found_levels, cosigned = levels(check_forks(examined(status)))
    assert found_levels == expected and cosigned == "ok"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (OWN, ["ok"]),
        (replace(OWN, checkpoint_time=NOW - STALE_SECONDS), ["ok"]),
        (replace(OWN, checkpoint_time=NOW - STALE_SECONDS - 1), ["warn"]),
        (replace(OWN, cosigners=()), ["warn"]),
        (replace(OWN, own=False), []),
    ],
)
def test_the_newest_cosignature_is_at_most_a_day_old(log: LogStatus, expected: list[str]) -> None:
    assert levels(check_forks(examined(replace(RUNNING, logs=(log,)))))[1:] == expected
    assert levels(check_forks(examined(replace(RUNNING, logs=(log,), peers=(SILENT,))))) == ["ok"]


def certificate(path: Path, days: float) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node.example")])
    end = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(days=100), end)
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("days", "level"), [(-0.1, "fail"), (0.1, "warn"), (RENEW_DAYS - 0.1, "warn"), (RENEW_DAYS + 0.1, "ok")]
)
def test_a_certificate_is_renewed_in_time(tmp_path: Path, days: float, level: str) -> None:
    gateway = SimpleNamespace(http="127.0.0.1:1", certificate=certificate(tmp_path / "c.pem", days))
    assert levels(check_gateway(examined(None, gateway=gateway))) == [level]


@pytest.mark.parametrize("data", [b"", b"no certificate", None])
def test_a_file_without_a_certificate_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "c.pem"
    if data is not None:
        path.write_bytes(data)
    gateway = SimpleNamespace(http="127.0.0.1:1", certificate=path)
    assert levels(check_gateway(examined(None, gateway=gateway))) == ["fail"]


def test_a_gateway_that_does_not_answer_is_named() -> None:
    def gateway(http: str) -> list[str]:
        return levels(check_gateway(examined(gateway=SimpleNamespace(http=http, certificate=None, url=""))))

    assert gateway("") == []
    assert gateway("127.0.0.1:0") == ["unknown"]
    assert gateway(f"0.0.0.0:{closed_port()}") == ["fail"]


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    return found(tmp_path_factory.mktemp("founded"), 2).homes[0]


def test_peers_that_do_not_run_are_pinged_at_each_address(home: NodeHome) -> None:
    file = home.directory / "node.toml"
    found_addresses = ping_peers(file)
    assert [(each.peer, each.jurisdiction, each.port) for each in found_addresses] == [
        (found_addresses[0].peer, "ES", "mutual"),
        (found_addresses[0].peer, "ES", "open"),
    ]
    assert all(each.seconds is None and each.error and each.code for each in found_addresses)
    assert ping_peers(file, "node-es.example") == ping_peers(file, "node-es.example/log")
    with pytest.raises(NotFound, match="no peer 'node-ch"):
        ping_peers(file, home.name)


def test_a_home_without_a_federation_has_no_peer(home: NodeHome, tmp_path: Path) -> None:
    pinned = home.directory / "federation.json"
    data = pinned.read_bytes()
    pinned.unlink()
    try:
        with pytest.raises(NotFound, match="knows no peer"):
            ping_peers(home.directory / "node.toml")
    finally:
        pinned.write_bytes(data)
    with pytest.raises(ComityError):
        ping_peers(tmp_path / "node.toml")
