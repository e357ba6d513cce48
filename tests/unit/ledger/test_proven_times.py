"""Since when an artifact is known: the first statement that names it, by the clock of this node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject
from comity.trust.statements import Advisory, Licence, Published
from support.logs import LogKeys
from support.rotations import CLASSICAL
from support.world import Identity, identity

FAR, OTHER = LogKeys.generate("far.example/log"), LogKeys.generate("other.example/log")
OWNER, RIVAL = identity("Owner", algs=CLASSICAL), identity("Rival", algs=CLASSICAL)
NOW = 9_000


def artifact(number: int) -> Digest:
    return sha256(b"artifact %d" % number)


def published(by: Identity, name: str, number: int) -> Entry:
    manifest = SideObject(artifact(number), 100)
    pieces = SideObject(sha256(b"pieces"), 1)
    return sign_content(
        Published(by.id, Name.parse(name), manifest.digest, manifest, pieces, Licence("MIT")), by.signer
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: NOW)
    for log in (FAR, OTHER):
        opened.logs.create(log.origin, log.vkey)
    yield opened
    opened.close()


def say(ledger: Ledger, log: LogKeys, lines: list[bytes], *entries: Entry) -> None:
    before = len(lines)
    lines += [entry.line for entry in entries]
    ledger.logs.advance(log.vkey, before, lines[before:], log.note_over(lines))
    LineProver(ledger, lambda who: ()).finish_all()


def test_an_artifact_is_known_since_the_first_statement_that_names_it(ledger: Ledger) -> None:
    times, far, other = ledger.proven_times, list[bytes](), list[bytes]()
    say(ledger, FAR, far, OWNER.entry, published(OWNER, "acme/tiny@v1", 1))
    times.mark(ledger.proven.last_number(), 1_000)
    advised = Advisory(Author("identity", OWNER.id), artifact(2), "vulnerability", "low", "a text")
    say(ledger, FAR, far, sign_content(advised, OWNER.signer))
    times.mark(ledger.proven.last_number(), 2_000)
    say(ledger, OTHER, other, RIVAL.entry, published(RIVAL, "other/tiny@v1", 1), published(RIVAL, "other/tiny@v2", 2))
    times.mark(ledger.proven.last_number(), 3_000)
    say(ledger, FAR, far, published(OWNER, "acme/tiny@v2", 2), published(OWNER, "acme/tiny@v3", 3))
    wanted = [artifact(number) for number in range(5)]
    assert times.known_since(wanted) == {artifact(1): 1_000, artifact(2): 3_000, artifact(3): NOW}
    times.mark(ledger.proven.last_number(), 4_000)
    assert times.known_since(wanted)[artifact(3)] == 4_000


def test_many_artifacts_are_read_together(ledger: Ledger) -> None:
    far = list[bytes]()
    say(ledger, FAR, far, OWNER.entry, *(published(OWNER, f"acme/tiny@v{number}", number) for number in range(3)))
    many = [artifact(number) for number in range(450)]
    assert ledger.proven_times.known_since(many) == {artifact(number): NOW for number in range(3)}
    assert ledger.proven_times.known_since([]) == {}


def test_many_statements_are_dated_with_one_look_at_the_database(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = ledger.proven_times
    times.mark(10, 1_000)
    assert (times.times().at(10), times.times().at(11)) == (1_000, NOW)
    times.mark(20, 2_000)
    opened, reading = [], times._database.reading
    monkeypatch.setattr(times._database, "reading", lambda: opened.append(1) or reading())  # type: ignore[func-returns-value]
    found = times.times()
    assert [found.at(number) for number in range(1, 23)] == [1_000] * 10 + [2_000] * 10 + [NOW] * 2
    assert times.verified_at(range(1, 23)) == {number: found.at(number) for number in range(1, 23)}
    assert len(opened) == 2
    assert times.all() == [(10, 1_000), (20, 2_000)]
