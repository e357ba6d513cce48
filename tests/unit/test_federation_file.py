"""Federation files on a disk: read and written one epoch at a time, with small limits and short chains."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity import federation_file
from comity.bounded_file import read_chunks
from comity.content import durable
from comity.federation_file import Federation, StoredCertificate, load_federation, read_federation
from comity.rules.charter_drafts import draft
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.federation import FederationReader, in_chunks, prove_epochs
from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Unavailable, Untrusted
from comity.trust.policy_file import parse_policy
from comity.trust.statement import parse_entry
from comity_client.home import Home
from comity_client.trust_store import TrustStore
from support.case import nodes
from support.charters import Seated, votes
from support.rotations import of as of_seat
from support.world import found

NODES = nodes(3)
PEOPLE = [Seated(each.seat.inception, each.seat.signer, of_seat(each.seat).recovery[0]) for each in NODES]
FOUNDED = found(NODES)


def later(federation: Federation, count: int) -> list[Certificate]:
    """The next epochs, each with another policy."""
    made, current = list[Certificate](), federation.body
    for _ in range(count):
        body = draft(current, policy=replace(current.policy, min_copies=1 + current.policy.min_copies % 2))
        made.append(Certificate(body, tuple(entry.line for entry in votes(PEOPLE, current, body))))
        current = body
    return made


LONG = FOUNDED.extended(later(FOUNDED, 4), FOUNDED.nodes)


def test_a_policy_pins_the_newest_charter_of_a_file_or_the_one_that_it_names() -> None:
    text = '[[pin]]\nfile = "federation.json"\n'
    for named, body in (("", LONG.body), (f'body = "{FOUNDED.body.digest}"\n', FOUNDED.body)):
        assert parse_policy((text + named).encode(), lambda _: LONG.encode()).pins == (body,)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of five epochs, which keeps only the certificate of the first one in memory."""
    path = tmp_path / "federation.json"
    durable.write_pieces(path, LONG.encoded())
    monkeypatch.setattr(federation_file, "IN_MEMORY", len(replace(FOUNDED, nodes=()).encode()))
    return path


def test_a_file_in_pieces_has_the_bytes_that_the_format_always_had() -> None:
    for federation in (LONG, replace(LONG, nodes=())):
        document = {
            "schema": "comity/federation/v1",
            "federation": federation.id,
            "epochs": [
                {"body": body.data.decode(), "certificate": [line.decode() for line in lines]}
                for body, lines in zip(federation.chain, federation.certificates, strict=True)
            ],
            "nodes": [
                {"record": node.line.decode(), "mutual": list(node.mutual), "open": list(node.open)}
                for node in federation.nodes
            ],
        }
        expected = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        assert b"".join(federation.encoded()) == federation.encode() == expected


def test_a_large_file_leaves_its_certificates_on_the_disk_and_is_the_same_federation(file: Path) -> None:
    read = read_federation(file)
    assert [isinstance(lines, StoredCertificate) for lines in read.certificates] == [False, True, True, True, True]
    assert (read.chain, read.nodes, read.identity_entries) == (LONG.chain, LONG.nodes, LONG.identity_entries)
    assert [tuple(lines) for lines in read.certificates] == [tuple(lines) for lines in LONG.certificates]
    assert read.encode() == file.read_bytes()


def test_a_certificate_that_changed_on_the_disk_is_refused(file: Path) -> None:
    read, data = read_federation(file), file.read_bytes()
    file.write_bytes(data.replace(b"min_copies", b"min-copies"))
    with pytest.raises(Conflict) as refusal:
        read.encode()
    assert refusal.value.code == "CHANGED"
    file.unlink()
    with pytest.raises(Unavailable):
        read.encode()


def test_a_large_file_gets_more_epochs_without_being_in_memory(file: Path) -> None:
    (more,) = later(LONG, 1)
    longer = read_federation(file).extended([more], LONG.nodes)
    assert longer.body == more.body
    assert isinstance(longer.certificates[4], StoredCertificate)
    assert longer.encode() == LONG.extended([more], LONG.nodes).encode()
    with pytest.raises(Untrusted):
        read_federation(file).extended([replace(more, lines=more.lines[1:])], LONG.nodes)


def test_a_large_file_is_pinned_from_its_file_and_read_again(file: Path, tmp_path: Path) -> None:
    store = TrustStore(Home(tmp_path).ensure(tmp_path / "trust"))
    data = file.read_bytes()
    pin = store.pin(file)
    file.unlink()
    assert pin.file.read_bytes() == data
    assert store.pins()[0].federation.chain == LONG.chain
    assert store.diff(pin.file).relation == "same"


def test_nothing_is_pinned_of_a_file_that_is_refused_at_its_end(file: Path, tmp_path: Path) -> None:
    store = TrustStore(Home(tmp_path).ensure(tmp_path / "trust"))
    store.pin(FOUNDED)
    before = {path: path.read_bytes() for path in (tmp_path / "trust").iterdir()}
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(Malformed, match="ends early"):
        store.pin(file)
    assert {path: path.read_bytes() for path in (tmp_path / "trust").iterdir()} == before


def test_a_pin_that_is_interrupted_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrustStore(tmp_path)
    earlier = store.pin(FOUNDED)
    with monkeypatch.context() as full:
        full.setattr(TrustStore, "_write", _disk_is_full)
        with pytest.raises(OutOfSpace):
            store.pin(LONG)
    assert store.pins() == (earlier,)
    assert store.diff(LONG).relation == "forward"
    newer = store.pin(LONG)
    assert store.pins() == (newer,)
    assert [path.name for path in tmp_path.glob("*.json")] == [newer.file.name]
    store.unpin(newer.id)
    assert (store.pins(), list(tmp_path.glob("*.json"))) == ((), [])


def test_a_file_that_an_earlier_version_pinned_is_replaced(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    pin = store.pin(FOUNDED)
    named = tmp_path / f"{pin.id}.json"
    pin.file.rename(named)
    decisions = tmp_path / "trust.toml"
    decisions.write_text(decisions.read_text().replace(pin.file.name, named.name))
    assert [each.file for each in store.pins()] == [named]
    assert [each.file for each in (store.pin(LONG), *store.pins())] == [store.pins()[0].file] * 2
    assert not named.exists()


def _disk_is_full(*_: object) -> None:
    raise OutOfSpace("trust.toml was not written")


def test_a_policy_reads_the_file_that_it_pins_in_pieces(file: Path) -> None:
    text = f'[[pin]]\nfile = "f"\nbody = "{LONG.chain[2].digest}"\n'.encode()

    def whole(name: str) -> bytes:
        raise AssertionError("read at once")

    assert parse_policy(text, whole, lambda name: read_chunks(file, 1 << 30)).pins == (LONG.chain[2],)


def test_members_of_the_document_may_come_in_any_order() -> None:
    document = json.loads(LONG.encode())
    turned = json.dumps({name: document[name] for name in reversed(document)}).encode()
    assert load_federation(turned) == LONG


@pytest.mark.parametrize(
    ("limit", "value", "why"),
    [
        pytest.param("MAX_BYTES", 10_000, "too large", id="the file"),
        pytest.param("MAX_EPOCH", 10_000, "more than 10000 bytes", id="an epoch"),
        pytest.param("MAX_EPOCHS", 4, "more than 4 items", id="epochs"),
        pytest.param("MAX_LINES", 5, "0 to 5 items", id="lines"),
        pytest.param("MAX_NODES", 2, "more than 2 items", id="nodes"),
        pytest.param("MAX_NODE", 1000, "more than 1000 bytes", id="a node"),
        pytest.param("MAX_KEPT", 12_000, "bytes together", id="the kept bytes"),
    ],
)
def test_a_file_above_a_limit_is_refused(limit: str, value: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"comity.trust.charter.federation.{limit}", value)
    with pytest.raises(ComityError, match=why):
        load_federation(LONG.encode())


@pytest.mark.parametrize("many", ["inceptions", "nodes"])
def test_each_kind_of_item_in_memory_is_limited(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    genesis = json.loads(replace(FOUNDED, nodes=()).encode())
    if many == "nodes":
        genesis["nodes"] = [json.loads(FOUNDED.encode())["nodes"][0]] * 200
    else:
        line = NODES[0].seat.entry.line.decode()
        genesis["epochs"][0]["certificate"] += [line] * 200
    monkeypatch.setattr("comity.trust.charter.federation.MAX_KEPT", 200_000)
    with pytest.raises(Malformed, match=f"its .*{many}.* have more than 200000 bytes together"):
        load_federation(json.dumps(genesis).encode())


def test_memory_is_that_of_one_epoch() -> None:
    def peak_bytes(*padded: int) -> int:
        document = json.loads(LONG.encode())
        for number in padded:
            document["epochs"][number]["certificate"] += [f"{line:03}" + "x" * 8000 for line in range(100)]
        data = json.dumps(document).encode()
        tracemalloc.start()
        try:
            prove_epochs(in_chunks(data))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(1, 2, 3, 4) < 1.5 * peak_bytes(4)


@pytest.mark.parametrize("kind", ["inceptions and rotations", "nodes"])
def test_what_is_kept_may_reach_its_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(replace(FOUNDED, nodes=()).encode())
    certificate, nodes = document["epochs"][0]["certificate"], [json.loads(FOUNDED.encode())["nodes"][0]] * 200
    if kind == "nodes":
        document["nodes"], size = nodes, sum(len(json.dumps(node)) for node in nodes)
    else:
        certificate += [NODES[0].seat.entry.line.decode()] * 200
        entries = [parse_entry(line.encode()) for line in certificate]
        size = sum(len(entry.line) for entry in entries if entry.statement.predicate == "inception")
    for limit in (size, size - 1):
        monkeypatch.setattr("comity.trust.charter.federation.MAX_KEPT", limit)
        reader = FederationReader(lambda at, item, lines: ())
        if limit == size:
            reader.document([json.dumps(document).encode()])
            continue
        with pytest.raises(Malformed, match=f"its {kind} have more than {limit} bytes together"):
            reader.document([json.dumps(document).encode()])


def test_an_unknown_member_is_refused_before_the_next_one_is_read() -> None:
    """Names are not kept: a file could have millions."""
    taken = list[bytes]()

    def chunks() -> Iterator[bytes]:
        for chunk in (b'{"schema":"comity/federation/v1",', *(b'"%x":0,' % number for number in range(9))):
            taken.append(chunk)
            yield chunk

    with pytest.raises(Malformed, match="federation file is malformed") as refused:
        FederationReader(lambda at, item, lines: ()).document(chunks())
    assert (refused.value.why, len(taken)) == ("unknown member '0'", 2)
