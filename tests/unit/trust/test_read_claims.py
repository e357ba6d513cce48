"""Lines about one artifact: which publications, advisories, checks, holds and observations have a proven author."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.bound_nodes import BoundNode, bind_nodes
from comity.trust.charter.document import Body
from comity.trust.claims import (
    Binding,
    KnownAuthor,
    KnownAuthors,
    ParsedClaims,
    collect_mirror_evidence,
    proven_advisories,
    read_claims,
    rivals,
    verify_advisories,
    verify_checks,
    verify_holds,
    verify_vouches,
)
from comity.trust.copies import HeldArtifact, Holds
from comity.trust.encoding import Digest, sha256, short
from comity.trust.evidence import EvidenceReader, Remark
from comity.trust.identity import InceptionStatement
from comity.trust.report import VerdictReport, summarise_report
from comity.trust.rotation import KeyState, Rotation, RotationChains, rotate
from comity.trust.statement import Author, Entry, SideObject, parse_entry, sign_payload, sign_statement
from comity.trust.statement_kinds import NODE_RECORD
from comity.trust.statements import Advisory, Vouched
from comity.trust.upstream import Changed, Gone, Upstream
from support.case import FILES, case, nodes, release
from support.observations import COMMIT, observation
from support.rotations import of, owned
from support.world import NOW, Node, identity, node

CH, SG, ES, KR = nodes(4)
GOOD = case()
ARTIFACT = GOOD.artifact
OWNER, STRANGER = identity("Swiss AI", "CH"), identity("Somebody else", "KR")
OTHER_FILES = {**FILES, "LICENSE": b"other"}


def read(*lines: bytes) -> ParsedClaims:
    return read_claims(lines, ARTIFACT)


def without_author(entry: Entry) -> Entry:
    """A statement with the name of a Comity predicate and no author: its type is foreign."""
    predicate = entry.statement.predicate
    payload = entry.envelope.payload.replace(f'"urn:comity:{predicate}:v1"'.encode(), f'"{predicate}"'.encode())
    made = parse_entry(sign_payload(payload, STRANGER.signer).encode())
    assert (made.statement.predicate, made.statement.by) == (predicate, None)
    return made


def forged(entry: Entry) -> Entry:
    return sign_statement(entry.statement, STRANGER.signer)


def told(notes: Iterable[Remark]) -> set[Digest | None]:
    return {note.evidence for note in notes}


def bound(*owners: Node) -> tuple[BoundNode, ...]:
    return tuple(BoundNode(owner.seat.member, owner.record, owner.entry, True) for owner in owners)


def test_publications_are_those_of_the_artifact_that_their_publisher_signed() -> None:
    good, elsewhere = GOOD.publication, release(OTHER_FILES)[1]
    bad, unknown = forged(good), release(by=STRANGER)[1]
    odd = without_author(good)
    lines = [each.line for each in (good, elsewhere, bad, unknown, odd)]
    for order in itertools.permutations(lines):
        claims = read(OWNER.entry.line, *order, lines[0])
        assert [each.entry for each in claims.publications] == [good]
        assert (claims.failed, claims.unknown_publishers, len(claims.entries)) == (1, (STRANGER.id,), 6)
        assert told(claims.notes) == {bad.digest}
    assert read(*lines).failed == 0
    twice = read(OWNER.entry.line, bad.line, forged(good).line)
    assert (twice.failed, len(twice.notes)) == (2, 2)


def test_a_line_that_cannot_be_read_and_an_inception_that_is_forged_are_notes() -> None:
    inception = sign_content(InceptionStatement(OWNER.inception), STRANGER.signer)
    claims = read(b"no line", inception.line, GOOD.publication.line)
    assert (claims.inceptions, claims.publications, claims.unknown_publishers) == ({}, (), (OWNER.id,))
    line, record = claims.notes
    assert (line.evidence, record.evidence) == (sha256(b"no line"), inception.digest)
    assert line.text.startswith("a claim line could not be read and does not count: ")
    assert record.text.startswith(f"inception {short(inception.digest)} did not verify and does not count: ")
    assert read(b"no line", OWNER.entry.line, GOOD.publication.line).publications


def test_the_signer_is_the_newest_state_whose_keys_signed() -> None:
    first = of(OWNER)
    later, rotation = first.to("later")
    published, entry, _, _ = release()
    claims = read(OWNER.entry.line, rotation.line, entry.line, sign_content(published, *later.keys).line)
    assert {each.signer for each in claims.publications} == {first.state, later.state}
    keys, seq = later.state.keys, (later.state.seq or 0) + 1
    spare = owned(OWNER.id, "other", keys=1, recovery=1).state.recovery
    again = rotate(
        later.state, Rotation(OWNER.id, seq, later.state.digest, keys, spare, "", ()), later.recovery, later.keys
    )
    claims = read(OWNER.entry.line, rotation.line, again.line, sign_content(published, *later.keys).line)
    assert [each.signer for each in claims.publications] == [KeyState(OWNER.id, keys, spare, later.state.home, seq)]


WARNING = Advisory(STRANGER.inception.author, ARTIFACT, "malware", "high", "do not load it")


def test_an_advisory_is_its_author_s_about_this_artifact() -> None:
    by_stranger = sign_content(WARNING, STRANGER.signer)
    by_node = sign_content(replace(WARNING, by=CH.record.node), CH.online)
    by_seat = sign_content(replace(WARNING, by=ES.seat.inception.author), ES.seat.signer)
    elsewhere = sign_content(replace(WARNING, artifact=sha256(b"other")), STRANGER.signer)
    as_node = sign_content(replace(WARNING, by=Author("node", STRANGER.id)), STRANGER.signer)
    bad = [sign_content(replace(WARNING, by=each), KR.online) for each in (CH.record.node, ES.seat.inception.author)]
    lines = [each.line for each in (by_stranger, by_node, by_seat, elsewhere, as_node, *bad)]
    claims = read(STRANGER.entry.line, *lines)
    found, notes = verify_advisories(claims, ARTIFACT, [CH.record], [ES.seat.member])
    assert [entry for entry, _ in found] == [by_stranger, by_node, by_seat]
    assert [said.by for _, said in found] == [WARNING.by, CH.record.node, ES.seat.inception.author]
    assert told(notes) == {as_node.digest, *(each.digest for each in bad)}
    assert proven_advisories(claims, ARTIFACT, [CH.record], [ES.seat.member]) == tuple(said for _, said in found)
    found, notes = verify_advisories(read(*lines), ARTIFACT, [])
    assert (found, len(notes)) == ((), 6)


def test_a_check_is_its_officer_s_about_this_artifact() -> None:
    report = VerdictReport.of(GOOD.verdict(), "1.0")
    by_stranger = sign_content(summarise_report(report, STRANGER.id, NOW), STRANGER.signer)
    by_seat = sign_content(summarise_report(report, ES.seat.id, NOW), ES.seat.signer)
    bad = sign_content(summarise_report(report, ES.seat.id, NOW), STRANGER.signer)
    lines = [each.line for each in (by_stranger, by_seat, bad)]
    found, notes = verify_checks(read(STRANGER.entry.line, *lines), ARTIFACT, [ES.seat.member])
    assert ([entry for entry, _ in found], told(notes)) == ([by_stranger, by_seat], {bad.digest})
    assert [said.by for _, said in found] == [STRANGER.id, ES.seat.id]
    assert verify_checks(read(*lines), ARTIFACT, [])[0] == ()
    assert verify_checks(read(STRANGER.entry.line, *lines), sha256(b"other"), [ES.seat.member]) == ((), ())


def test_a_hold_is_its_nodes_about_this_artifact() -> None:
    manifest, pieces = SideObject.of(GOOD.manifest), SideObject.of(GOOD.pieces)
    other = SideObject.of(b"another manifest")
    good = sign_content(HeldArtifact(CH.record.node, manifest, pieces), CH.online)
    held = [HeldArtifact(SG.record.node, each, pieces) for each in (manifest, other)]
    several = sign_content(Holds.of(SG.record.node, sorted(held, key=lambda item: item.artifact)), SG.online)
    elsewhere = sign_content(HeldArtifact(CH.record.node, other, pieces), CH.online)
    bad = sign_content(HeldArtifact(ES.record.node, manifest, pieces), KR.online)
    unbound = sign_content(HeldArtifact(KR.record.node, manifest, pieces), KR.online)
    claims = read(*(each.line for each in (several, bad, elsewhere, unbound, good)))
    found, notes = verify_holds(claims, ARTIFACT, bound(CH, SG, ES))
    assert [(entry, each.record.name) for entry, each in found] == [(good, CH.record.name), (several, SG.record.name)]
    assert told(notes) == {bad.digest}
    twice = replace(bound(CH)[0], member=ES.seat.member)
    assert [each.member for _, each in verify_holds(claims, ARTIFACT, (*bound(CH), twice))[0]] == [
        CH.seat.member,
        ES.seat.member,
    ]


def vouched(by: Author, *signers: object, artifact: Digest = ARTIFACT) -> Entry:
    return sign_content(Vouched(by, artifact, "rehashed"), *signers)  # type: ignore[arg-type]


def test_an_author_is_known_by_a_seat_an_inception_or_a_node() -> None:
    claims = read(STRANGER.entry.line)
    authors = KnownAuthors(claims, bound(CH), [ES.seat.member])
    label = f"{STRANGER.inception.display} [{short(STRANGER.id)}]"
    for entry, author in (
        (vouched(STRANGER.inception.author, STRANGER.signer), KnownAuthor(STRANGER.id, label)),
        (
            vouched(ES.seat.inception.author, ES.seat.signer),
            KnownAuthor(ES.seat.id, "Institute ES (ES)", ES.seat.member),
        ),
        (
            vouched(CH.record.node, CH.online),
            KnownAuthor(CH.record.node.id, f"{CH.record.name}, of Institute CH (CH)", CH.seat.member),
        ),
        (vouched(CH.record.node, SG.online), None),
        (vouched(SG.record.node, SG.online), None),
        (vouched(ES.seat.inception.author, STRANGER.signer), None),
        (vouched(STRANGER.inception.author, ES.seat.signer), None),
        (vouched(OWNER.inception.author, OWNER.signer), None),
        (without_author(vouched(STRANGER.inception.author, STRANGER.signer)), None),
    ):
        assert authors.author_of(entry) == author
    rotated, _ = of(ES.seat).to("later")
    seat = replace(ES.seat.member, keys=rotated.state.keys)
    known = KnownAuthors(read(ES.seat.entry.line), (), [seat])
    for keys in (rotated.keys, (ES.seat.signer,)):
        found = known.author_of(vouched(ES.seat.inception.author, *keys))
        assert found == KnownAuthor(ES.seat.id, "Institute ES (ES)", seat)


def test_unproven_vouched_statements_and_those_about_other_artifacts_do_not_count() -> None:
    good = vouched(STRANGER.inception.author, STRANGER.signer)
    bad = vouched(CH.record.node, SG.online)
    odd = sign_statement(replace(good.statement, body={}), STRANGER.signer)
    elsewhere = vouched(STRANGER.inception.author, STRANGER.signer, artifact=sha256(b"other"))
    other = sign_content(WARNING, STRANGER.signer)
    claims = read(STRANGER.entry.line, *(each.line for each in (odd, bad, elsewhere, other, good)))
    found, notes = verify_vouches(claims, ARTIFACT, KnownAuthors(claims, bound(CH), []))
    assert ([each.entry for each in found], told(notes)) == ([good], {bad.digest, odd.digest})
    assert "could not be read" in next(note.text for note in notes if note.evidence == odd.digest)
    assert "not proven to be signed by" in next(note.text for note in notes if note.evidence == bad.digest)


def test_rivals_are_verified_claims_of_the_name_one_for_each_publisher_and_artifact() -> None:
    same_bytes = release(by=STRANGER)[1]
    other_bytes = release(OTHER_FILES)[1]
    in_other_letters = release(OTHER_FILES, by=STRANGER, name="Swiss-AI/Tiny@V1")[1]
    own_again = sign_statement(GOOD.publication.statement, OWNER.signer)
    other_name = release(OTHER_FILES, name="swiss-ai/tiny@v2")[1]
    unknown = release(OTHER_FILES, by=identity("Nobody knows", "BR"))[1]
    bad = forged(release(OTHER_FILES)[1])
    rest = (own_again, other_name, unknown, bad, without_author(other_bytes), GOOD.publication)
    entries = (same_bytes, *rest, other_bytes, in_other_letters, release(OTHER_FILES)[1])
    claims = read(OWNER.entry.line, STRANGER.entry.line, *(each.line for each in entries))
    chosen = next(each for each in claims.publications if each.entry == GOOD.publication)
    found = rivals(claims, chosen)
    assert [each.entry for each in found] == [same_bytes, other_bytes, in_other_letters]
    assert [each.publisher.id for each in found] == [STRANGER.id, OWNER.id, STRANGER.id]


UPSTREAM = Upstream("https://hub.example", "org/tiny", COMMIT, "main")


def test_observations_of_an_upstream_count_where_their_node_signed_them() -> None:
    rival = sha256(b"other bytes")
    seen = [observation(CH, ARTIFACT), observation(SG, ARTIFACT, how="carried")]
    against, elsewhere = observation(ES, rival), observation(ES, rival, commit="2e" * 20)
    changed = sign_content(Changed(CH.record.node.id, UPSTREAM, ARTIFACT, "3d" * 20, 5), CH.online)
    gone = sign_content(Gone(SG.record.node.id, UPSTREAM, ARTIFACT, "commit", 5), SG.online)
    of_other = sign_content(Gone(SG.record.node.id, UPSTREAM, rival, "commit", 5), SG.online)
    bad = [forged(each) for each in (*seen, against, changed, gone)]
    odd = [sign_statement(replace(each.statement, body={}), CH.online) for each in (seen[0], changed)]
    nobody = [without_author(each) for each in (seen[0], gone)]
    entries = (GOOD.publication, *bad, *odd, *nobody, against, elsewhere, gone, of_other, *seen, changed)
    found = collect_mirror_evidence(entries, ARTIFACT, bound(CH, SG, ES))
    assert [each.entry for each in found.seen] == seen
    assert [each.entry for each in found.rivals] == [against]
    assert [(entry, members) for entry, _, members in found.changes] == [
        (gone, (SG.seat.member,)),
        (changed, (CH.seat.member,)),
    ]
    name = f"hf:org/tiny@{COMMIT}"
    assert (found.names, found.corroborating(name), found.corroborated) == ((name,), (CH.seat.member,), 1)
    nothing = collect_mirror_evidence((), ARTIFACT, bound(CH))
    assert (nothing.corroborated, nothing.upstream) == (0, None)


def test_the_upstream_of_an_artifact_is_taken_from_a_node_that_fetched_it() -> None:
    carried = observation(SG, ARTIFACT, how="carried", commit="2e" * 20)
    fetched = [observation(CH, ARTIFACT), observation(ES, ARTIFACT, commit="3f" * 20)]
    for entries in ((carried, *fetched), (fetched[0], carried, fetched[1])):
        upstream = collect_mirror_evidence(entries, ARTIFACT, bound(CH, SG, ES)).upstream
        assert upstream is not None and upstream.commit == COMMIT


@pytest.mark.parametrize("commits", [("1f" * 20,), ("1f" * 20, "2e" * 20)])
def test_members_corroborate_one_another_for_one_commit(commits: tuple[str, ...]) -> None:
    second = node(CH.seat, "second.example")
    entries = [observation(each, ARTIFACT, commit=commits[0]) for each in (CH, second, SG)]
    entries += [observation(ES, ARTIFACT, commit=commits[-1])]
    both = replace(bound(SG)[0], member=KR.seat.member)
    found = collect_mirror_evidence(entries, ARTIFACT, (*bound(CH, second, SG, ES), both))
    assert found.corroborated == (4 if len(commits) == 1 else 3)
    assert [each.jurisdiction for each in found.corroborating(f"hf:org/tiny@{commits[0]}")][:3] == ["CH", "SG", "KR"]


def test_one_reader_reads_the_same_claims_once_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, asked = EvidenceReader(), list[int]()

    def counted(pins: Iterable[Body], entries: Iterable[Entry], chains: RotationChains) -> Binding:
        asked.append(1)
        return bind_nodes(pins, entries, chains)

    monkeypatch.setattr("comity.trust.claims.bind_nodes", counted)
    first = read_claims(GOOD.claims, ARTIFACT, reader)
    second = read_claims(reversed(GOOD.claims), ARTIFACT, reader)
    assert [entry.line for entry in second.entries] == list(reversed(GOOD.claims))
    assert first.entries == tuple(reversed(second.entries))
    assert all(mine is other for mine, other in zip(first.entries, reversed(second.entries), strict=True))
    assert first.bound(GOOD.policy.pins) is second.bound(GOOD.policy.pins)
    assert read_claims(GOOD.claims, sha256(b"another"), reader).publications == ()
    records = {entry.digest for entry in first.entries if entry.statement.predicate == NODE_RECORD}
    assert (len(asked), {each.entry.digest for each in first.bound(GOOD.policy.pins)}) == (1, records)


def test_what_others_follow_in_the_same_claims_makes_no_remark() -> None:
    """Otherwise a verdict would depend on what the session did before."""
    reader, lost = EvidenceReader(), of(STRANGER).to("more")[0].to("again")[1]
    lines = (*GOOD.claims, STRANGER.entry.line, lost.line)
    first, second = (read_claims(lines, ARTIFACT, reader) for _ in range(2))
    assert first.chain(STRANGER.id) is not None
    assert [remark.evidence for remark in first.chains.remarks()] == [lost.digest]
    assert second.chains.remarks() == ()
    assert read_claims(lines, ARTIFACT, reader).chains.remarks() == ()
