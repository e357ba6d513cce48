"""The rows about a publication, its logs and its keys: what they name first, and which statement or proof
they rest on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from comity.trust.encoding import Digest, sha256, short
from comity.trust.evidence import EvidenceReader, InclusionEvidence, Row
from comity.trust.key_validity import prove_entry
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import MAX_TIMESTAMP, SignedNote
from comity.trust.tlog.proof import TlogProof
from comity.trust.verify import choose_publication, counted_publication
from support.case import Case, case, filled, nodes, release
from support.rotations import of
from support.verdict_rows import proven
from support.world import NOW, Identity, Node, found, identity, node, seat

GOOD = case()
OWNER = identity("Swiss AI", "CH")
CH, SG, ES, KR = nodes(4)
DAY = 86_400
RULE = '[cosigners]\nat_least = 2\njurisdictions = 2\noutside = ["publisher"]\n'


def changed(change: Callable[[TlogProof], TlogProof]) -> InclusionEvidence:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    return replace(proof, data=change(TlogProof.parse(proof.data)).encode())


def forged_but_for(count: int) -> Callable[[TlogProof], TlogProof]:
    """Damages the signatures behind so many lines: the first is that of the log, and each cosigner has two."""

    def change(proof: TlogProof) -> TlogProof:
        lines = proof.checkpoint.signatures
        forged = [replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1])) for line in lines]
        return replace(proof, checkpoint=SignedNote(proof.checkpoint.text, (*lines[:count], *forged[count:])))

    return change


def elsewhere(code: str) -> InclusionEvidence:
    log = filled(node(seat(code)))
    log.append(GOOD.publication.line)
    return log.proof(GOOD.publication.line)


def row(what: Case, name: str) -> Row:
    return what.verdict().row(name)


def test_cosigners_are_reported_as_forged_only_if_no_valid_one_is_left() -> None:
    none, one = (
        row(proven(changed(forged_but_for(1))), "cosigners"),
        row(proven(changed(forged_but_for(3))), "cosigners"),
    )
    assert (none.state, none.cause, len(none.facts)) == ("fail", "false", 3)
    assert none.summary == none.facts[0].text
    assert (one.state, one.cause, one.summary[:9]) == ("fail", "short", "1 counted")


def test_the_first_of_several_proofs_that_do_not_verify_is_named() -> None:
    line = sha256(GOOD.publication.line)
    broken = proven(InclusionEvidence(line, b"junk"), changed(lambda proof: replace(proof, index=1)))
    shown = row(broken, "transparency")
    assert (shown.state, shown.cause, len({fact.text for fact in shown.facts})) == ("fail", "false", 2)
    assert shown.summary == shown.facts[0].text


def test_proofs_that_do_not_verify_are_listed_in_one_order_however_they_come() -> None:
    junk = [InclusionEvidence(sha256(GOOD.publication.line), b"junk %d" % number) for number in range(8)]
    for order in (junk, junk[::-1], [*junk[3:], *junk]):
        broken = replace(GOOD, proofs=(*order, *GOOD.proofs))
        assert [fact.evidence for fact in row(broken, "notes").facts] == [sha256(each.data) for each in junk]


def test_the_first_of_several_logs_that_are_bound_to_no_member_is_named() -> None:
    shown = row(proven(elsewhere("BR"), elsewhere("IN")), "transparency")
    assert (shown.state, shown.cause, len({fact.text for fact in shown.facts})) == ("fail", "short", 2)
    assert shown.summary == shown.facts[0].text


def test_a_dispute_is_shown_by_the_first_of_its_two_rotations() -> None:
    lines = [of(OWNER).to(name)[1].line for name in ("Swiss AI second", "thief")]
    (said,) = (
        fact
        for fact in row(GOOD.saying(*lines), "disputes and advisories").facts
        if "two rotations of one state" in fact.text
    )
    assert said.evidence is not None and said.evidence in map(sha256, lines)
    assert f"one state, {short(said.evidence)} and " in said.text


def rival(by: Identity, other: bytes) -> tuple[bytes, bytes]:
    """The same name, published for other bytes."""
    return by.entry.line, release({"LICENSE": other}, by=by)[1].line


def test_a_publisher_that_gave_the_name_to_other_bytes_too_is_a_dispute_beside_any_stranger() -> None:
    strangers = [identity(f"Rival {number}", "SG") for number in range(2)]
    lines = [line for who in strangers for line in rival(who, b"other")]
    assert row(GOOD.saying(*lines), "disputes and advisories").state == "unknown"
    shown = row(GOOD.saying(*lines, *rival(OWNER, b"own")), "disputes and advisories")
    assert (shown.state, len(shown.facts)) == ("fail", 3)


def test_of_several_rivals_the_first_is_named_with_the_first_digits_of_its_id() -> None:
    strangers = [identity(f"Rival {number}", "SG") for number in range(3)]
    lines = [line for who in strangers for line in rival(who, b"other")]
    free = replace(GOOD.demanding(f'accept = ["{OWNER.id}"]', "accept = []"), federation=found(nodes()))
    shown = row(free.saying(*lines), "disputes and advisories")
    first = next(who for who in strangers if f"[{who.id}]" in shown.facts[0].text)
    assert shown.state == "fail"
    assert shown.summary == shown.facts[0].text.replace(first.id, first.id[:12]) + "; 3 in all"


def test_the_time_is_shown_by_the_proof_with_the_cosignatures() -> None:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    assert [fact.evidence for fact in row(GOOD, "time").facts] == [sha256(proof.data)]


def test_a_line_is_hashed_once_however_many_proofs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [InclusionEvidence(sha256(b"%d" % number), b"") for number in range(20)]
    hashed = list[bytes]()

    def counted(data: bytes) -> Digest:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr("comity.trust.statement.sha256", counted)
    entry = parse_entry(GOOD.publication.line)
    for _ in range(2):
        assert prove_entry(entry, others, (), EvidenceReader()) == ((), (), ())
    assert hashed.count(entry.line) == 1


def beside(*cosigners: Node, time: int = NOW) -> Case:
    """GOOD with a proof at a lower index, of another log of the same member."""
    second = node(CH.seat, "second.example")
    log = filled(second, 0)
    log.append(GOOD.publication.line)
    said = GOOD.saying(second.entry.line)
    return replace(said, proofs=(*GOOD.proofs, log.proof(GOOD.publication.line, cosigners, time)))


def test_an_old_proof_beside_a_new_one_makes_nothing_older() -> None:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    both = beside(SG, ES, KR, time=NOW - 365 * DAY)
    shown = row(both, "time")
    assert (shown.state, [fact.evidence for fact in shown.facts]) == ("pass", [sha256(proof.data)])
    assert row(replace(both, proofs=tuple(each for each in both.proofs if each != proof)), "time").state == "fail"


def test_the_clock_of_one_member_alone_passes_no_time() -> None:
    late = GOOD.demanding("at_least = 2", "at_least = 1").demanding("jurisdictions = 2", "jurisdictions = 1")
    late = late.demanding("as_of = 2026-11-24T00:00:00Z", "as_of = 2035-11-24T00:00:00Z")
    ahead = NOW + 9 * 365 * DAY + 3 * DAY
    log = filled(CH)
    log.append(GOOD.publication.line)
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    without = replace(late, proofs=tuple(each for each in late.proofs if each != proof))
    alone = replace(without, proofs=(*without.proofs, log.proof(GOOD.publication.line, (SG,), ahead)))
    assert row(alone, "time").state == "pass", "one member is what this policy asks for"
    both = replace(alone, proofs=(*alone.proofs, log.proof(GOOD.publication.line, (ES,), NOW)))
    assert row(both, "time").state == "fail"
    assert row(both, "time").summary.startswith("2 cosigners saw it at most 32")


def test_a_time_after_the_time_of_the_policy_is_shown_as_that() -> None:
    early = GOOD.demanding("as_of = 2026-11-24T00:00:00Z", "as_of = 2026-11-01T00:00:00Z")
    shown = row(early, "time")
    assert (shown.state, shown.summary) == ("pass", "2 cosigners saw it after as_of, by their clocks on 2026-11-18")


def test_a_cosigner_may_state_any_time_and_the_shown_one_is_a_date() -> None:
    evaluation = choose_publication(beside(SG, ES, KR, time=MAX_TIMESTAMP).evidence, GOOD.policy, EvidenceReader())
    assert evaluation is not None
    newest = evaluation.newest_cosigned(GOOD.policy)
    assert newest is not None and datetime.fromtimestamp(newest.time, UTC).year == 9999
    assert {at for seen in evaluation.witnessed for each in seen.cosigners for at, _ in each.lines} == {
        NOW,
        newest.time,
    }


def test_a_proof_with_classical_cosignatures_only_hides_no_better_one() -> None:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    both = beside(*(node(each.seat, "", ("ed25519",)) for each in (SG, ES, KR)))
    assert row(both, "crypto health").state == "pass"
    alone = replace(both, proofs=tuple(each for each in both.proofs if each != proof))
    assert row(alone, "crypto health").state == "fail"


def test_the_publication_that_a_verdict_follows_is_found_without_the_files() -> None:
    reader = EvidenceReader()
    later = release(name="swiss-ai/tiny@v2", spdx="MIT")[1]
    two = GOOD.saying(later.line)
    for what, spdx in ((GOOD, "Apache-2.0"), (replace(two, proofs=()), "MIT")):
        unread = replace(what.evidence, files=None)
        counted = counted_publication(unread, what.policy, reader)
        assert counted is not None and counted.published.licence.spdx == spdx
        evaluation = choose_publication(unread, what.policy, reader)
        assert evaluation is not None and evaluation.publication == counted
        assert what.verdict().row("licence").summary.split()[0].rstrip(",") == spdx


def test_no_publication_is_followed_without_a_manifest_or_without_a_statement_about_it() -> None:
    unpublished = tuple(line for line in GOOD.claims if line != GOOD.publication.line)
    for evidence in (
        replace(GOOD.evidence, manifest=None),
        replace(GOOD.evidence, manifest=b"{}"),
        replace(GOOD.evidence, claims=unpublished),
    ):
        assert counted_publication(evidence, GOOD.policy, EvidenceReader()) is None
        assert choose_publication(evidence, GOOD.policy, EvidenceReader()) is None


def test_the_owners_list_names_a_publisher_and_without_one_the_charter() -> None:
    other, free = identity("Rival", "SG"), GOOD.demanding(f'accept = ["{OWNER.id}"]', "accept = []")

    def named(what: Case) -> bool | None:
        evaluation = choose_publication(what.evidence, what.policy, EvidenceReader())
        assert evaluation is not None
        return evaluation.named

    assert named(GOOD) is named(free) is True
    assert named(GOOD.demanding(OWNER.id, other.id)) is False
    assert named(replace(free, federation=found(nodes(), {"swiss-ai": other.id}))) is False
    assert named(replace(free, federation=found(nodes()))) is None
