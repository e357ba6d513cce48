"""`comity doctor` names each fault that a test adds to a healthy home, and the command that repairs it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from comity.ledger.ledger import Ledger
from comity.ledger.page_sums import check_pages
from comity.ledger.records import StoredEpoch
from comity.node.home_files import SIGNING_KEYS, SOFTWARE
from comity.node.ledger_mark import LEDGER_MARK, FileMark
from comity.node.maintenance import home_checks
from comity.node.maintenance.doctor import diagnose
from comity.node.maintenance.home_checks import Diagnosis, DiskSpace, Machine, disk_space, worst
from comity.trust.encoding import sha256
from comity.wire.node_status import ForkStatus, GovernanceStatus, LogStatus, NodeStatus, PeerStatus, StoreStatus
from comity_cli.main import command
from comity_client.charter.drafts import draft_admission
from comity_client.founding import consent_to, draft_genesis, seal_federation
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import command_lines
from support.federation import NodeHome, found, make_home

NOW = 1_800_000_000
PEER = PeerStatus("node-es.example", "ES", "node-es.example:7443", True, NOW, 0, "")
OWN = LogStatus("node-ch.example/log", 3, True, NOW, ("node-es.example/cosigner",))
CHARTER = GovernanceStatus(sha256(b"federation"), 0, sha256(b"body"), False, 0)
RUNNING = NodeStatus(
    SOFTWARE, OWN.origin, NOW, (PEER,), (OWN,), StoreStatus(0, 0, None, 0), 0, 0, (), (), governance=CHARTER
)
MACHINE = Machine(
    lambda: NOW, {}, lambda folder: DiskSpace(10**12, 2 * 10**12, 10**6, 2 * 10**6), lambda: True, lambda: 65_536
)


@dataclass
class Planted:
    """A home to which a test adds faults, and simulated answers of its machine and its node."""

    node: NodeHome
    machine: Machine = MACHINE
    status: NodeStatus | None = None

    @property
    def home(self) -> Path:
        return self.node.directory

    def findings(self) -> tuple[Diagnosis, ...]:
        return diagnose(self.home, self.machine, self.status)

    def runs(self, **changed: Any) -> None:
        """The node runs: something listens at each of its ports."""
        self.status = replace(RUNNING, **changed)


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    (home, _) = found(tmp_path_factory.mktemp("founded"), 2)
    config = home.config()
    config.storage.blobs.mkdir(parents=True)
    with closing(Ledger.open(config.storage.ledger.parent, lambda: NOW)) as ledger:
        FileMark(config.storage.ledger.with_name(LEDGER_MARK), ledger.identity).write()
        ledger.logs.create(home.origin, str(home.record.log), own=True)
    shutil.rmtree(home.directory / "offline")
    home.set("advertise", mutual=["127.0.0.1:7443"], open=["127.0.0.1:7444"])
    return home


@pytest.fixture(name="planted")
def _planted(tmp_path: Path, founded: NodeHome) -> Planted:
    home = tmp_path / "home"
    shutil.copytree(founded.directory, home)
    made = Planted(NodeHome(home, founded.card))
    ledger = made.node.config().storage.ledger
    FileMark(ledger.with_name(LEDGER_MARK), str(ledger.stat().st_ino)).write()
    os.utime(ledger, (NOW, NOW))
    return made


def test_a_healthy_home_has_no_problem(planted: Planted) -> None:
    wrong = [finding for finding in planted.findings() if finding.level in ("warn", "fail")]
    assert {finding.topic for finding in wrong} == {"addresses"}  # these are loopback ones
    assert worst(planted.findings()) == "warn"


def test_a_ledger_is_read_at_any_path(planted: Planted, tmp_path: Path) -> None:
    home = tmp_path / "node #1? 100%41"
    planted.home.rename(home)
    moved = Planted(NodeHome(home, planted.node.card))
    assert ["SQLite finds its tables in order" in text for text in _of_ledger(moved)] == [True]


def test_a_member_that_joined_since_is_told_so_by_the_charter_that_its_node_follows(
    planted: Planted, tmp_path: Path
) -> None:
    """The federation file of a newcomer is of the epoch before, and stays so."""
    others = [make_home(tmp_path / str(number), number) for number in (1, 2)]
    cards = [other.card for other in others]
    before = draft_genesis(cards)
    sealed = seal_federation(before, [consent_to(before, other.directory) for other in others], cards)
    (planted.home / "federation.json").write_bytes(sealed.encode())

    def of_federation() -> list[tuple[str, str]]:
        return [(each.level, each.fix) for each in planted.findings() if each.topic == "federation"]

    asked = ("warn", f"comity join --node {planted.home}   shows what your admission waits for")
    assert of_federation() == [asked]
    body = draft_admission(before, planted.node.card.member)
    with closing(Ledger.open(planted.node.config().storage.ledger.parent, lambda: NOW)) as ledger:
        for each in (before, body):
            ledger.epochs.add(StoredEpoch(each.federation, each.epoch, each.digest, each.prev, each.data, ()))
    assert of_federation() == [("ok", "")]
    planted.runs(governance=replace(CHARTER, federation=before.federation, body=before.digest))
    assert of_federation() == [asked], "the running node does not follow that charter"


def _of_ledger(it: Planted, level: str = "") -> list[str]:
    return [each.text for each in it.findings() if each.topic == "ledger" and level in ("", each.level)]


def _restarted(it: Planted) -> Path:
    """Open and close the ledger as a node does, all of whose pages have sums then. Returns its file."""
    file = it.node.config().storage.ledger
    for _ in range(2):
        with closing(Ledger.open(file.parent, lambda: NOW)) as ledger:
            assert ledger.pages is not None and check_pages(ledger.pages) == ()
    return file


def test_a_ledger_has_no_damage_only_where_its_pages_were_compared(planted: Planted) -> None:
    file = _restarted(planted)
    assert "each page is as it was written" in _of_ledger(planted, "ok")[0]
    with closing(Ledger.open(file.parent, lambda: NOW)):
        left = {each: each.read_bytes() for each in file.parent.glob(file.name + "*")}
    for each, data in left.items():  # as a kill leaves them, and then without the write-ahead log
        each.write_bytes(data)
    file.with_name(file.name + "-wal").unlink()
    assert _of_ledger(planted, "ok") == []
    assert "not compared" in _of_ledger(planted, "unknown")[0]


def test_a_ledger_whose_first_start_lost_its_write_ahead_log_is_begun_by_the_next_start(planted: Planted) -> None:
    file = planted.node.config().storage.ledger
    for each in file.parent.glob(file.name + "*"):
        each.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE made (id INTEGER)")
        log = file.with_name(file.name + "-wal")
        left = file.read_bytes(), log.read_bytes()
    file.write_bytes(left[0])
    log.write_bytes(left[1][: len(left[1]) // 2])
    (found,) = [each for each in planted.findings() if each.topic == "ledger" and each.level != "ok"]
    assert (found.level, "has no tables yet" in found.text) == ("warn", True)
    assert found.fix.endswith(f"comity serve --node {planted.home}")
    with closing(Ledger.open(file.parent, lambda: NOW)) as ledger:
        assert ledger.logs.all() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_takes_no_file_is_told_from_one_without_permission(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: int, *, point: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(home_checks, "fsync", refuse)
    (found,) = [each for each in planted.findings() if each.topic == "storage"]
    assert found.level == "fail" and found.fix.startswith("free some space below "), found


@pytest.mark.parametrize(
    ("table", "places", "fix"),
    [
        ("outside_shares", (5,), "writes them again: comity serve --node"),
        ("claimants", (5, 500), "makes their tables again: comity serve --node"),
        ("outside_shares", (5, 500), "mkdir "),
    ],
)
def test_a_damaged_page_is_named_with_a_command_that_works(
    planted: Planted, table: str, places: tuple[int, ...], fix: str
) -> None:
    file = _restarted(planted)
    with closing(sqlite3.connect(file)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with file.open("r+b") as opened:
        for place in places:
            opened.seek((page - 1) * 4096 + place)
            opened.write(b"\xee")
    (found,) = [each for each in planted.findings() if each.topic == "ledger" and "LEDGER-CORRUPT" in each.text]
    assert (found.level, f"{page} ({table})" in found.text, fix in found.fix) == ("fail", True, True)
    if fix == "mkdir ":
        command, _, _ = found.fix[found.fix.index(fix) :].partition(" && comity")
        subprocess.run(command, shell=True, check=True)
        assert not file.exists() and (file.parent / "damaged-ledger" / file.name).exists()
    with closing(Ledger.open(file.parent, lambda: NOW)) as ledger:
        assert ledger.pages is not None and check_pages(ledger.pages) == ()


def test_a_front_end_needs_no_signing_key_and_gets_a_warning_for_one(planted: Planted) -> None:
    planted.node.set("node", role="front-end")
    planted.node.set("storage", database="postgresql:///comity")

    def of_keys() -> list[tuple[str, str]]:
        return [(found.level, found.fix) for found in planted.findings() if found.topic == "keys"]

    assert [level for level, _ in of_keys()] == ["ok", "warn"]
    assert all(str(planted.home / "keys" / name) in of_keys()[1][1] for name in SIGNING_KEYS)
    for name in SIGNING_KEYS:
        (planted.home / "keys" / name).unlink()
    assert of_keys() == [("ok", "")]
    (planted.home / "keys" / "tls.pem").unlink()
    assert [level for level, _ in of_keys()] == ["fail"]


def test_a_front_end_only_reads_the_blobs_and_is_not_said_to_be_stopped(planted: Planted) -> None:
    planted.node.set("node", role="front-end")
    planted.node.set("storage", database="postgresql:///comity")
    planted.node.set("gateway", http="127.0.0.1:7480")
    blobs = planted.node.config().storage.blobs
    (missing,) = [found for found in planted.findings() if found.topic == "storage"]
    assert missing.level == "fail"
    assert f"{blobs / 'blobs'} is not a folder  [BLOBS-NOT-HERE]" in missing.text
    (blobs / "blobs").mkdir()
    blobs.chmod(0o500)
    listener = socket.create_server(("127.0.0.1", 0))
    TAKEN.append(listener)
    planted.node.set("listen", open=f"127.0.0.1:{listener.getsockname()[1]}")
    found = {each.topic: each for each in planted.findings()}
    assert (found["storage"].level, list(blobs.iterdir())) == ("ok", [blobs / "blobs"])
    assert found["node"].fix == "curl -fsS http://127.0.0.1:7480/readyz"
    assert "does not run" not in found["node"].text
    levels = {each.level for each in planted.findings() if each.topic == "ports"}
    assert levels == {"ok", "unknown"}  # the port in use may be its own
    assert "addresses" not in found


# One fault each: what an operator may have done, the topic, and what the fix must say.


def _mistyped_setting(it: Planted) -> None:
    it.node.set("limits", uplod_bytes=5)


def _impossible_value(it: Planted) -> None:
    it.node.set("replication", interval_seconds=0)


def _no_toml(it: Planted) -> None:
    (it.home / "node.toml").write_text("[node\n")


def _readable_key(it: Planted) -> None:
    (it.home / "keys" / "log.pem").chmod(0o644)


def _lost_key(it: Planted) -> None:
    (it.home / "keys" / "online.pem").unlink()


def _exchanged_keys(it: Planted) -> None:
    keys = it.home / "keys"
    shutil.copy(keys / "log.pem", keys / "other.pem")
    (keys / "log.pem").unlink()
    (keys / "tls.pem").rename(keys / "log.pem")
    (keys / "other.pem").rename(keys / "tls.pem")


def _offline_keys_at_hand(it: Planted) -> None:
    (it.home / "offline").mkdir()
    (it.home / "offline" / "governance.pem").write_text("a key")


def _no_federation(it: Planted) -> None:
    (it.home / "federation.json").unlink()


def _clock_behind(it: Planted) -> None:
    it.runs()
    it.machine = replace(it.machine, clock=lambda: NOW - 7200)


def _clock_not_kept(it: Planted) -> None:
    it.machine = replace(it.machine, synchronised=lambda: False)


def _full_disk(it: Planted) -> None:
    it.node.set("storage", reserve_bytes=10**13)


def _no_inodes(it: Planted) -> None:
    it.machine = replace(it.machine, space=lambda folder: DiskSpace(10**12, 10**12, 12, 10**6))


def _blobs_are_a_file(it: Planted) -> None:
    blobs = it.node.config().storage.blobs
    shutil.rmtree(blobs)
    blobs.write_text("not a folder")


def _damaged_blob(it: Planted) -> None:
    quarantine = it.node.config().storage.blobs / "quarantine"
    quarantine.mkdir()
    (quarantine / "ab.1").write_bytes(b"damaged")


def _copied_ledger(it: Planted) -> None:
    (it.node.config().storage.ledger.with_name(LEDGER_MARK)).write_text("7\n")


def _newer_ledger(it: Planted) -> None:
    _sql(it, "UPDATE alembic_version SET version_num = '9999'")


def _overwritten_ledger(it: Planted) -> None:
    it.node.config().storage.ledger.write_bytes(b"no database at all" * 1000)


def _taken_port(it: Planted) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    TAKEN.append(listener)
    it.node.set("listen", metrics=f"127.0.0.1:{listener.getsockname()[1]}")


def _deaf_port(it: Planted) -> None:
    it.runs()


def _no_address(it: Planted) -> None:
    it.node.set("advertise", mutual=[])


def _unspecified_address(it: Planted) -> None:
    it.node.set("advertise", mutual=["0.0.0.0:7443"])


def _proxy_only(it: Planted) -> None:
    it.runs(peers=(replace(PEER, reachable=False),))
    it.machine = replace(it.machine, environ={"HTTPS_PROXY": "http://me:tiger@proxy.example:3128"})


def _silent_peer(it: Planted) -> None:
    it.runs(peers=(replace(PEER, reachable=False, last_error="timed out"), replace(PEER, name="node-kr.example")))


def _fork(it: Planted) -> None:
    it.runs(governance=replace(CHARTER, forks=(ForkStatus(4, sha256(b"1"), sha256(b"2"), False),)))


def _two_histories(it: Planted) -> None:
    it.runs(misbehaviour=2)


def _nobody_cosigns(it: Planted) -> None:
    it.runs(logs=(replace(OWN, cosigners=()),))


def _closed_log(it: Planted) -> None:
    it.runs(warnings=("this node signs nothing: this node's log differs from what it signed",))


def _old_program(it: Planted) -> None:
    it.runs(software="comity 0.0.1")


def _few_files(it: Planted) -> None:
    it.machine = replace(it.machine, open_files=lambda: 256)


def _exposed_tokens(it: Planted) -> None:
    (it.home / "tokens.json").write_text("{}")
    (it.home / "tokens.json").chmod(0o644)


def _expired_certificate(it: Planted) -> None:
    _certificate(it, days=-3)


def _certificate_of_another_key(it: Planted) -> None:
    _certificate(it, days=300)
    other = ec.generate_private_key(ec.SECP256R1())
    _write_key(it.home / "gateway-key.pem", other)


FAULTS: dict[str, tuple[Callable[[Planted], None], str, str]] = {
    "a mistyped setting": (_mistyped_setting, "settings", "did you mean 'limits.upload_bytes'?"),
    "an impossible value": (_impossible_value, "settings", "comity explain CONFIG"),
    "no TOML": (_no_toml, "settings", "comity explain CONFIG"),
    "a key that others can read": (_readable_key, "keys", "chmod 600"),
    "a lost key": (_lost_key, "keys", "put it back from your backup"),
    "exchanged keys": (_exchanged_keys, "keys", "put back the key files that belong to"),
    "offline keys on the server": (_offline_keys_at_hand, "offline keys", "to a medium that is not connected"),
    "no federation file": (_no_federation, "federation", "comity join federation.json"),
    "a clock that is behind": (_clock_behind, "clock", "timedatectl set-ntp true"),
    "a clock that nobody keeps": (_clock_not_kept, "clock", "timedatectl set-ntp true"),
    "a full disk": (_full_disk, "disk", "free some space below"),
    "no inodes": (_no_inodes, "inodes", "du --inodes"),
    "a blob folder that is a file": (_blobs_are_a_file, "storage", "write access to the folder"),
    "a damaged blob": (_damaged_blob, "storage", "smartctl -H"),
    "a copied ledger": (_copied_ledger, "ledger", "start the node while peers are reachable"),
    "a ledger of a newer version": (_newer_ledger, "ledger", "install the version of Comity that wrote the ledger"),
    "an overwritten ledger": (_overwritten_ledger, "ledger", "comity backup restore"),
    "a port that is taken": (_taken_port, "ports", "ss -ltnp"),
    "a port that does not answer": (_deaf_port, "ports", "restart the node"),
    "no advertised address": (_no_address, "addresses", "set mutual in [advertise]"),
    "an unspecified address": (_unspecified_address, "addresses", "to a name or address that other members reach"),
    "only a proxy leads out": (_proxy_only, "proxy", "allow outgoing TCP"),
    "a silent peer": (_silent_peer, "peers", "comity peer ping node-es.example"),
    "a fork of the charter": (_fork, "forks", "set branch in [federation]"),
    "two histories of a log": (_two_histories, "forks", "comity log misbehaviour --all"),
    "nobody cosigns": (_nobody_cosigns, "cosigners", "comity peer ls"),
    "a closed log": (_closed_log, "node", "comity explain LOG-DIVERGED"),
    "an old program runs": (_old_program, "version", "restart the node"),
    "few open files": (_few_files, "open files", "LimitNOFILE"),
    "exposed tokens": (_exposed_tokens, "settings", "chmod 600"),
    "an expired certificate": (_expired_certificate, "certificate", "renew the certificate"),
    "a certificate of another key": (
        _certificate_of_another_key,
        "settings",
        "the key that the certificate was made for",
    ),
}
TAKEN: list[socket.socket] = []


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_named_with_its_fix(planted: Planted, name: str) -> None:
    plant, topic, fix = FAULTS[name]
    before = {(finding.topic, finding.level, finding.fix) for finding in planted.findings()}
    plant(planted)
    after = planted.findings()
    named = [finding for finding in after if finding.topic == topic and finding.level in ("warn", "fail")]
    assert any(fix in finding.fix for finding in named), after
    assert {(finding.topic, finding.level, finding.fix) for finding in named} - before
    assert not any("tiger" in finding.text + finding.fix for finding in after)
    for finding in after:
        _check_fix(finding)


def _check_fix(finding: Diagnosis) -> None:
    """Every result that is not ok has a next step, and each `comity` in it is a command line that comity accepts."""
    assert bool(finding.fix) or finding.level in ("ok", "unknown"), finding
    for line in command_lines.advised(finding.fix):
        try:
            command_lines.parse(line)
        except click.UsageError as error:
            pytest.fail(f"comity {shlex.join(line)}: {error.format_message()}")


@pytest.fixture(autouse=True)
def _files_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    yield
    while TAKEN:
        TAKEN.pop().close()


@contextmanager
def _gateway(
    answers: dict[str, tuple[int, str]], headers: dict[str, str], certified: Path | None = None
) -> Iterator[int]:
    """An HTTP server on loopback that chooses an answer by the beginning of the path; its port. With the certificate
    and key in the home `certified`, it serves TLS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = next((answer for path, answer in answers.items() if self.path.startswith(path)), (404, ""))
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body.encode())

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certified is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certified / "gateway.pem", certified / "gateway-key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


COMMIT = "a" * 40
MODEL = {
    "id": "acme/model",
    "sha": COMMIT,
    "siblings": [],
    "private": False,
    "tags": [],
    "downloads": 0,
    "gated": False,
}
TREE = [{"type": "file", "path": "config.json", "size": 2, "oid": "b" * 40}]
ANSWERS = {
    f"/api/models/acme/model/tree/{COMMIT}": (200, json.dumps(TREE)),
    "/api/models/acme/model": (200, json.dumps(MODEL)),
    "/api/models": (200, json.dumps([MODEL])),
    f"/acme/model/resolve/{COMMIT}/config.json": (200, "{}"),
}
HEADERS = {"X-Repo-Commit": COMMIT, "ETag": '"b"', "Accept-Ranges": "bytes"}


def gateway_findings(planted: Planted, port: int) -> list[Diagnosis]:
    planted.node.set("gateway", http=f"127.0.0.1:{port}")
    planted.runs()
    return [finding for finding in planted.findings() if finding.topic == "gateway"]


def test_a_gateway_that_answers_as_the_hub_does_is_ok(planted: Planted) -> None:
    with _gateway(ANSWERS, HEADERS) as port:
        (finding,) = gateway_findings(planted, port)
    assert (finding.level, finding.fix) == ("ok", ""), finding


def test_a_gateway_whose_authority_this_machine_does_not_know_is_no_fault_of_the_node(planted: Planted) -> None:
    """The guide's own certificate, for a try."""
    _certificate(planted, days=90)
    with _gateway(ANSWERS, HEADERS, planted.home) as port:
        (finding,) = gateway_findings(planted, port)
    assert finding.level == "unknown" and "does not verify" in finding.text, finding
    assert finding.fix == f"curl -fsS --cacert {planted.home / 'gateway.pem'} https://127.0.0.1:{port}/readyz"


@pytest.mark.parametrize(
    ("answers", "headers", "said"),
    [
        (ANSWERS, {"ETag": '"b"', "Accept-Ranges": "bytes"}, "lacks X-Repo-Commit"),
        ({**ANSWERS, "/api/models": (200, "<html>")}, HEADERS, "is not JSON"),
        ({**ANSWERS, "/api/models": (200, "{}")}, HEADERS, "not a list of models"),
        ({**ANSWERS, "/api/models/acme/model": (500, "")}, HEADERS, "huggingface_hub cannot read acme/model"),
        ({"/": (502, "")}, HEADERS, "status 502"),
    ],
)
def test_a_gateway_that_a_hub_client_cannot_use_is_named(
    planted: Planted, answers: dict[str, tuple[int, str]], headers: dict[str, str], said: str
) -> None:
    with _gateway(answers, headers) as port:
        (finding,) = gateway_findings(planted, port)
    assert finding.level == "fail" and said in finding.text, finding
    assert "restart the node" in finding.fix


def test_a_gateway_with_tokens_is_not_reported_as_ok(planted: Planted) -> None:
    with _gateway({"/": (401, "")}, {}) as port:
        (finding,) = gateway_findings(planted, port)
    assert finding.level == "unknown"


def test_the_command_ends_by_the_worst_finding_and_prints_one_document(planted: Planted) -> None:
    ran = CliRunner().invoke(command, ["doctor", "--node", str(planted.home), "--json"], standalone_mode=False)
    document = json.loads(ran.output)
    levels = {finding["level"] for finding in document["findings"]}
    assert ran.return_value == document["exit_status"] == (1 if "fail" in levels else 8)
    (planted.home / "keys" / "log.pem").chmod(0o644)
    ran = CliRunner().invoke(command, ["doctor", "--node", str(planted.home)], standalone_mode=False)
    assert ran.return_value == 1
    assert "try: chmod 600" in ran.output


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    space = disk_space(tmp_path)
    assert 0 < space.free <= space.size
    assert Machine().synchronised() in (True, False, None)
    assert Machine().open_files() > 0


def _sql(it: Planted, statement: str) -> None:
    with closing(sqlite3.connect(it.node.config().storage.ledger)) as database:
        database.execute(statement)
        database.commit()


def _certificate(it: Planted, *, days: int) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    until = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(until - timedelta(days=365))
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    (it.home / "gateway.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    _write_key(it.home / "gateway-key.pem", key)
    it.node.set("gateway", certificate="gateway.pem", key="gateway-key.pem")


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    path.chmod(0o600)


def test_a_home_is_checked_without_the_libraries_of_a_running_node() -> None:
    """They are most of what `doctor` would take."""
    heavy = (
        "sqlalchemy",
        "structlog",
        "rich",
        "prometheus_client",
        "alembic",
        "argparse",
        "comity.formats.inspect",
        "comity.trust.verify",
        "cryptography.x509",
    )
    program = f"import sys, comity.node.maintenance.doctor; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
