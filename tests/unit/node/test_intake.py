"""The intake: which lines it proves, which it parks, and which cost it nothing."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from comity.ledger import artifact_names
from comity.ledger import proven as proven_tables
from comity.ledger.ledger import Backing, Ledger
from comity.node.intake import LineProver
from comity.rules.offers.records import GrantRequest
from comity.rules.signing import sign_content, statement_of
from comity.trust.authorship import MAX_RIVALS
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import Digest, sha256
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.names import Name
from comity.trust.statement import (
    PAYLOAD_TYPE,
    Author,
    Entry,
    Envelope,
    EnvelopeSignature,
    SideObject,
    Subject,
    sign_statement,
)
from comity.trust.statement_kinds import INCEPTION, PUBLISHED
from comity.trust.statements import Advisory, Licence, Published
from comity.trust.tlog.merkle import leaf_hash, root
from sqlalchemy import event
from support.logs import LogKeys
from support.offers import hours
from support.rotations import CLASSICAL, of
from support.tables import parked
from support.world import Identity, identity, node, signer

FAR, OTHER = LogKeys.generate("far.example/log"), LogKeys.generate("other.example/log")
OWNER = identity("Owner", algs=CLASSICAL)
PIECES = SideObject(sha256(b"pieces"), 1)


@functools.cache
def published(by: Identity = OWNER, name: str = "tiny", version: str = "v1", artifact: int = 0) -> Entry:
    manifest = SideObject(sha256(b"artifact %d" % artifact), 100)
    said = Published(by.id, Name("acme", name, version), manifest.digest, manifest, PIECES, Licence("MIT"))
    return sign_content(said, by.signer)


class Logs:
    """Mirrored logs that grow, and their intake."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.lines: dict[LogKeys, list[bytes]] = {FAR: [], OTHER: []}
        for log in self.lines:
            ledger.logs.create(log.origin, log.vkey)
        self.prover = LineProver(ledger, lambda who: ())

    def say(self, log: LogKeys, *said: Entry | bytes) -> None:
        had, lines = len(self.lines[log]), self.lines[log]
        lines += [each.line if isinstance(each, Entry) else each for each in said]
        self.ledger.logs.advance(log.vkey, had, lines[had:], log.note_over(lines))

    def prove(self) -> None:
        self.prover.finish_all()


@pytest.fixture
def logs(tmp_path: Path, backing: Backing | None) -> Iterator[Logs]:
    ledger = Ledger.open(tmp_path, lambda: 1_000, backing=backing)
    yield Logs(ledger)
    ledger.close()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Statements whose signatures were verified."""
    seen: list[Digest] = []
    verify = Envelope.signed_by

    def counted(self: Envelope, keys: Sequence[VerifyingKey], threshold: int, beside: Sequence[PublicKey] = ()) -> bool:
        seen.append(self.statement_digest)
        return verify(self, keys, threshold, beside)

    monkeypatch.setattr(Envelope, "signed_by", counted)
    return seen


def names(logs: Logs, name: str = "acme/tiny") -> list[tuple[str, int]]:
    found = [logs.ledger.proven.publications(name, each.publisher) for each in logs.ledger.proven.claimants(name).found]
    return [(item.origin, item.index) for answer in found for item in answer.found]


def test_a_statement_signed_by_its_author_is_proven_and_found(logs: Logs) -> None:
    entry = published()
    logs.say(FAR, OWNER.entry, entry)
    logs.prove()
    proven = logs.ledger.proven
    known = proven.identity(OWNER.id)
    assert known is not None and (known.home, known.display) == ("", "Owner")
    (found,) = proven.publications("ACME/tiny", OWNER.id, "v1").found
    assert (found.name, found.artifact, found.line) == ("acme/tiny@v1", entry.statement.subject, entry.line)
    assert proven.publications_of(found.artifact).found == (found,)
    assert [line.line for line in proven.about(found.artifact).found] == [entry.line]
    assert [line.number for line in proven.since(0, (INCEPTION, PUBLISHED))] == [1, 2]
    assert proven.inception(OWNER.id) == OWNER.entry.line


def test_a_step_reports_which_statements_it_proved(logs: Logs) -> None:
    """Only the parts of a node that read such statements are woken."""
    logs.say(FAR, published())
    assert logs.prover.step(FAR.vkey).predicates == frozenset()
    logs.say(OTHER, OWNER.entry)
    assert logs.prover.step(OTHER.vkey).predicates == {INCEPTION}
    assert logs.prover.step(OTHER.vkey).predicates == {PUBLISHED}, "the line that waited for its author"


def test_names_of_one_batch_are_claimed_once_by_each_publisher(logs: Logs) -> None:
    other = identity("Other", algs=CLASSICAL)
    first = [published(version=f"v{number}", artifact=number) for number in range(3)]
    logs.say(FAR, OWNER.entry, other.entry, *first, published(other, artifact=9), published(name="second"))
    logs.prove()
    logs.say(FAR, published(version="v9", artifact=10), published(other, "second", artifact=11))
    logs.prove()
    proven = logs.ledger.proven
    assert [each.publisher for each in proven.claimants("acme/tiny").found] == [OWNER.id, other.id]
    assert [each.publisher for each in proven.claimants("acme/second").found] == [OWNER.id, other.id]
    assert len(names(logs)) == 5


@pytest.mark.parametrize("together", [1, 100])
def test_names_and_versions_of_many_artifacts_are_those_of_each(
    logs: Logs, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(proven_tables, "TOGETHER", together)
    monkeypatch.setattr(artifact_names, "TOGETHER", together)
    monkeypatch.setattr(artifact_names, "LEAST_TOGETHER", 1 if together == 1 else 8)
    monkeypatch.setattr(proven_tables, "VERSIONS_TOGETHER", 3)
    other = identity("Other", algs=CLASSICAL)
    said = [published(version=f"v{number}", artifact=number % 3) for number in range(5)]
    logs.say(FAR, OWNER.entry, other.entry, *said, published(other, artifact=1))
    logs.say(OTHER, *said[2:], published(name="second", artifact=7))
    logs.prove()
    proven = logs.ledger.proven
    artifacts = [sha256(b"artifact %d" % number) for number in (0, 1, 2, 7, 8)]
    for limit in (1, 2, 64):
        for artifact, page in proven.names_of(artifacts, limit).items():
            alone = proven.publications_of(artifact, limit)
            expected = [(item.repository, item.version, item.publisher) for item in alone.found]
            assert [(item.repository, item.version, item.publisher) for item in page.found] == (
                expected[:1] if alone.limited else expected
            )
            assert page.limited == alone.limited
    alone_named = {artifact: proven.publications_of(artifact, 1).found for artifact in artifacts}
    assert proven.first_names(artifacts) == {
        artifact: found[0].name for artifact, found in alone_named.items() if found
    }
    repositories = {("ACME/tiny", OWNER.id), ("acme/tiny", other.id), ("acme/second", OWNER.id), ("acme/x", other.id)}
    found = proven.artifacts_under(repositories)
    assert found == {key: proven.newest_artifacts(*key, 100) for key in found}
    too_many = {("ACME/tiny", OWNER.id)}
    assert set(found) == (repositories - too_many if together == 1 else repositories)


def test_a_hundred_artifacts_have_their_names_and_publishers_by_one_query(logs: Logs) -> None:
    logs.say(FAR, OWNER.entry, *(published(version=f"v{number}", artifact=number) for number in range(250)))
    logs.prove()
    artifacts = [sha256(b"artifact %d" % number) for number in range(250)]
    asked: list[str] = []
    engine = logs.ledger._database._engine

    def count(connection: object, cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(engine, "after_cursor_execute", count)
    named = logs.ledger.proven.first_names(artifacts)
    first = logs.ledger.proven.first_publishers_of_each(artifacts, 8)
    assert len([each for each in asked if each.startswith("SELECT")]) == 6
    asked.clear()
    all_named = logs.ledger.proven.names_of(artifacts, 8)
    event.remove(engine, "after_cursor_execute", count)
    assert len([each for each in asked if each.startswith("SELECT")]) == 3
    assert not [each for each in asked if "statements" in each], "they say which of several publications are one"
    assert {artifact: [each.name for each in page.found] for artifact, page in all_named.items()} == {
        artifact: [name] for artifact, name in named.items()
    }
    assert named == {artifact: f"acme/tiny@v{number}" for number, artifact in enumerate(artifacts)}
    assert first == dict.fromkeys(artifacts, (OWNER.id,))


def test_the_first_publishers_of_many_are_those_of_each(logs: Logs) -> None:
    other = identity("Other", algs=CLASSICAL)
    many = [published(version=f"v{number}", artifact=1) for number in range(20)]
    logs.say(FAR, OWNER.entry, other.entry, published(other), published(), *many, published(other, artifact=1))
    logs.prove()
    proven, artifacts = logs.ledger.proven, [sha256(b"artifact %d" % number) for number in range(3)]
    for most in (1, 2, 64):
        alone = {artifact: proven.first_publishers(artifact, most) for artifact in artifacts}
        assert proven.first_publishers_of_each(artifacts, most) == alone


def test_a_line_waits_in_the_ledger_until_its_author_is_known(logs: Logs) -> None:
    logs.say(FAR, published())
    logs.prove()
    assert names(logs) == [] and parked(logs.ledger) == {(FAR.vkey, 0)}
    logs.say(OTHER, OWNER.entry)
    logs.prove()
    assert names(logs) == [(FAR.origin, 0)] and parked(logs.ledger) == set()


def test_only_a_line_about_offers_makes_a_reader_of_offers_begin_again(logs: Logs) -> None:
    """Anybody whom the log's node lets publish can log lines whose keys become known elsewhere, one after the other."""
    request = statement_of(GrantRequest(OWNER.id, sha256(b"an offer"), (hours(0, 1),), 1, False))
    logs.say(FAR, published())
    logs.say(OTHER, sign_statement(request, OWNER.signer))
    logs.prove()
    assert parked(logs.ledger) == {(FAR.vkey, 0), (OTHER.vkey, 0)}
    logs.say(OTHER, OWNER.entry)
    logs.prove()
    assert parked(logs.ledger) == set()
    assert [logs.ledger.intake.unparked(log.vkey) for log in (FAR, OTHER)] == [0, 1]


def test_lines_of_unknown_authors_cost_no_signature_check(logs: Logs, checks: list[Digest]) -> None:
    """In an earlier version, 4,000 of them were verified again and again, and kept in memory."""
    logs.say(FAR, *(published(artifact=number) for number in range(600)))
    logs.prove()
    logs.prove()
    assert checks == []
    assert logs.ledger.intake.parked_count() == 600


def test_lines_that_no_key_proves_cost_one_signature_check_each(logs: Logs, checks: list[Digest]) -> None:
    bad = [replace(published(artifact=at).envelope, payload=published(artifact=at + 1000).envelope.payload).encode()
           for at in range(300)]  # fmt: skip
    logs.say(FAR, OWNER.entry, *bad)
    logs.prove()
    logs.say(FAR, of(OWNER).to("next")[1])
    logs.prove()
    assert len(checks) == 1 + len(bad) + 2  # one copy of the rotation is in its author's own log
    assert names(logs) == [] and parked(logs.ledger) == set()


def test_a_line_under_keys_that_are_not_known_yet_waits_for_the_rotation(logs: Logs, checks: list[Digest]) -> None:
    after, rotation = of(OWNER).to("next")
    late = Published(OWNER.id, Name("acme", "tiny", "v2"), PIECES.digest, PIECES, PIECES, Licence("MIT"))
    checks.clear()
    logs.say(FAR, OWNER.entry, sign_content(late, *after.keys))
    logs.prove()
    assert names(logs) == [] and len(checks) == 1
    logs.say(OTHER, rotation)
    logs.prove()
    assert names(logs) == [(FAR.origin, 1)]


def test_the_entries_of_a_log_do_not_wait_for_parked_lines_of_others(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone can log lines that name an author and have invalid signatures: they are read again whenever the author has
    more keys, and at each start.
    """
    monkeypatch.setattr("comity.ledger.intake.MAX_LINES", 4)
    logs.say(FAR, *(published(artifact=number) for number in range(12)))
    logs.prove()
    logs.say(OTHER, OWNER.entry)
    logs.prover.step(OTHER.vkey)
    logs.say(OTHER, published(name="one"))
    logs.prover.step(OTHER.vkey)
    assert names(logs, "acme/one") == [(OTHER.origin, 1)]
    logs.say(OTHER, published(name="two"))
    while logs.prover.read(OTHER.vkey).behind:
        pass
    assert names(logs, "acme/two") == [(OTHER.origin, 2)]
    assert len(parked(logs.ledger)) == 8
    logs.prove()
    assert parked(logs.ledger) == set()


def test_copies_of_a_statement_in_one_log_are_one(logs: Logs, checks: list[Digest]) -> None:
    """In an earlier version, 512 copies of a rotation cost half a second in every lookup."""
    _, rotation = of(OWNER).to("next")
    checks.clear()
    logs.say(FAR, OWNER.entry, *[rotation] * 300, *[published()] * 300)
    logs.prove()
    assert len(checks) == 3
    assert len(logs.ledger.proven.rotations(OWNER.id)) == 1
    assert names(logs) == [(FAR.origin, 301)]


def test_a_line_that_another_log_proved_is_not_proven_again(logs: Logs, checks: list[Digest]) -> None:
    logs.say(FAR, OWNER.entry, published())
    logs.prove()
    logs.say(OTHER, OWNER.entry, logs.lines[FAR][1])
    logs.prove()
    assert len(checks) == 2
    assert names(logs) == [(FAR.origin, 1), (OTHER.origin, 0 + 1)]


def test_junk_inceptions_hide_no_identity(logs: Logs) -> None:
    """In an earlier version, 16 of them stopped others from copying a publisher's releases."""
    said = OWNER.entry.statement
    junk = [sign_statement(replace(said, body={"record": {"number": at}}), signer("mallory")).line for at in range(300)]
    logs.say(FAR, *junk)
    logs.say(OTHER, OWNER.entry, published())
    logs.prove()
    assert names(logs) == [(OTHER.origin, 1)]
    assert logs.ledger.proven.inception(OWNER.id) == OWNER.entry.line
    assert [line.index for line in logs.ledger.proven.about(OWNER.id).found] == [0]


def test_an_exact_query_does_not_depend_on_the_number_of_other_claims(logs: Logs) -> None:
    """In an earlier version, 1,000 lines of one name@version hid it, and 257 claims made a name ambiguous."""
    flooder = identity("Flooder", algs=CLASSICAL)
    logs.say(FAR, flooder.entry, *(published(flooder, artifact=number) for number in range(1, 400)))
    logs.say(OTHER, OWNER.entry, published())
    logs.prove()
    proven = logs.ledger.proven
    (found,) = proven.publications("acme/tiny", OWNER.id, "v1").found
    assert found.origin == OTHER.origin
    assert [claimant.publisher for claimant in proven.claimants("acme/tiny").found] == [flooder.id, OWNER.id]
    first = [item.position.log_id for item in proven.listed(None, 4)]
    assert len(set(first[:2])) == 2  # one of each log before a second of any


def test_a_limited_answer_takes_from_every_log_and_says_so(logs: Logs) -> None:
    subject = Subject("", sha256(b"artifact 0"))
    note = replace(published().statement, predicate="note", subjects=(subject,), objects=())
    notes = [sign_statement(replace(note, body={"number": at}), OWNER.signer) for at in range(300)]
    logs.say(FAR, OWNER.entry, *notes)
    logs.say(OTHER, published())
    logs.prove()
    answer = logs.ledger.proven.about(subject.digest, limit=3)
    assert answer.limited and {line.origin for line in answer.found} == {FAR.origin, OTHER.origin}


def test_statements_of_a_node_count_once_its_record_is_proven(logs: Logs) -> None:
    mine = node(OWNER, "far.example", CLASSICAL)
    artifact = SideObject(sha256(b"artifact 0"), 100)
    hold = sign_content(HeldArtifact(mine.record.node, artifact, PIECES), mine.online)
    logs.say(FAR, hold)
    logs.prove()
    assert logs.ledger.proven.about(artifact.digest).found == ()
    logs.say(OTHER, mine.entry)
    logs.prove()
    assert logs.ledger.proven.about(artifact.digest).found == ()
    logs.say(OTHER, OWNER.entry)
    logs.prove()
    assert [line.line for line in logs.ledger.proven.about(artifact.digest).found] == [hold.line]


def test_the_intake_continues_where_it_was(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    logs = Logs(ledger)
    logs.say(FAR, OWNER.entry, *(published(artifact=number) for number in range(400)))
    logs.prover.step(FAR.vkey)
    ledger.close()
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    assert ledger.intake.position(FAR.vkey) == 256
    LineProver(ledger, lambda who: ()).finish_all()
    assert len(ledger.proven.publications("acme/tiny", OWNER.id).found) == 400
    ledger.close()


def test_a_long_step_proves_what_short_ones_prove(logs: Logs) -> None:
    """More lines than one query has digests, some of them repeated, in this log and from another one."""
    lines = [published(artifact=number) for number in range(300)]
    logs.say(OTHER, OWNER.entry, lines[5], lines[290])
    logs.prove()
    logs.say(FAR, *lines, lines[2], lines[299], OWNER.entry)
    step = logs.prover.step(FAR.vkey, 1024)
    assert (step.new, logs.ledger.intake.position(FAR.vkey)) == (301, 303)
    found = logs.ledger.proven.publications("acme/tiny", OWNER.id).found
    assert sorted(item.index for item in found if item.vkey == FAR.vkey) == list(range(300))


def test_a_seat_proves_the_statements_of_its_member(logs: Logs) -> None:
    said = sign_content(Advisory(OWNER.inception.author, sha256(b"model"), "yank", "low", ""), OWNER.signer)
    logs.say(FAR, said, published())
    logs.prove()
    state = of(OWNER).state
    logs.prover = LineProver(logs.ledger, lambda who: (state,) if who == OWNER.id else ())
    logs.ledger.intake.revisit(FAR.vkey, [OWNER.id])
    logs.prove()
    assert [line.line for line in logs.ledger.proven.about(sha256(b"model")).found] == [said.line]
    assert names(logs) == [], "a publication waits for the inception of its publisher, as it does for every reader"
    logs.say(FAR, OWNER.entry)
    logs.prove()
    assert names(logs) == [(FAR.origin, 1)]


def test_rivals_among_rotations_are_bounded_and_stop_no_owner(logs: Logs) -> None:
    """A holder of old recovery keys can sign any number of rotations of the old state."""
    first, honest = of(OWNER).to("honest")
    logs.say(FAR, OWNER.entry, honest, *(of(OWNER).to(f"rival {number}")[1] for number in range(MAX_RIVALS + 3)))
    logs.prove()
    assert len(logs.ledger.proven.rotations(OWNER.id)) == 1 + MAX_RIVALS
    _, next_one = first.to("the owner's next")
    logs.say(FAR, next_one)
    logs.prove()
    assert next_one.line in logs.ledger.proven.rotations(OWNER.id)


def unknown(number: int, size: int = 60_000) -> bytes:
    """A well-formed line of the maximum length, of an unknown author."""
    said = published(artifact=number).statement
    by = Author("identity", sha256(b"nobody %d" % number))
    padded = replace(said, predicate="noted", by=by, objects=(), body={"text": "x" * (size * 3 // 4)})
    signature = EnvelopeSignature(sha256(b"a key"), bytes(64))
    return Envelope(PAYLOAD_TYPE, padded.encode(), (signature,)).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "megabytes", [40, pytest.param(1024, marks=pytest.mark.long)], ids=["short", "a whole gigabyte"]
)
def test_a_flood_of_unknown_authors_is_kept_on_the_disk_alone(tmp_path: Path, megabytes: int) -> None:
    """In an earlier version, 244 MB of them took 250 MB of memory permanently, and 636 MB after a restart. The whole
    gigabyte: `python -m pytest tests/unit/node/test_intake.py -k gigabyte -m long`.
    """
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    logs = Logs(ledger)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, megabytes * 1024 // 60, 64):
            lines = [unknown(number) for number in range(start, start + 64)]
            ledger.logs.stage(FAR.vkey, start, lines)
            logs.lines[FAR] += [leaf_hash(line) for line in lines]
        note = FAR.note(len(logs.lines[FAR]), root(logs.lines[FAR]))
        ledger.logs.advance(FAR.vkey, len(logs.lines[FAR]), [], note)
        logs.prove()
        logs.lines.clear()  # the test's own memory of the hashes
        ledger.close()
        ledger = Ledger.open(tmp_path, lambda: 1_000)
        assert LineProver(ledger, lambda who: ()).finish_all() == 0
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        ledger.close()
    assert after - before < 8 * 1024**2
    assert peak - before < 100 * 1024**2
