"""The validity of keys that were rotated away: for readers that pin the rotation, and for all others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import consistency_proof
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import EvidenceReader, InclusionEvidence, Verdict
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.key_validity import BEFORE, CURRENT, UNKNOWN, KeyValidity, judge_keys
from comity.trust.keys import PublicKey
from comity.trust.names import Name
from comity.trust.rotation import LogCut, Rotation, follow, parse_rotation, rotate
from comity.trust.statement import Entry
from comity.trust.tlog.proof import ConsistencyProof, TlogProof, consistency_proofs
from support.case import Case, case, filled, nodes, release
from support.rotations import CLASSICAL, begun, of
from support.world import Log, identity, signer

CH, SG, ES, KR = nodes(4)
SWISS_AI = identity("Swiss AI", "CH")
FIRST = of(SWISS_AI)
OLD = case()
SAID = OLD.publication


def logged(before: int = 5, after: int = 0) -> Log:
    """The log of CH with the publication at index `before`, and more lines after it."""
    log = filled(CH, before)
    log.append(SAID.line)
    for number in range(after):
        log.append(b"later %d" % number)
    return log


def cut(log: Log, size: int) -> LogCut:
    return LogCut(log.origin, size, prefix(log, size).tree.root())


def prefix(log: Log, size: int) -> Log:
    shorter = Log(log.origin, log.key)
    for line in log.lines[:size]:
        shorter.append(line)
    return shorter


def growth(log: Log, old: int, new: int) -> bytes:
    return ConsistencyProof(log.origin, old, new, consistency_proof(old, new, prefix(log, new).tree.node)).encode()


LOG = logged(after=4)
SECOND, ROTATED = FIRST.to("Swiss AI second", cut=[cut(LOG, 8)])
NUMBER_ONE = parse_rotation(ROTATED)[0].digest
PROOFS = {size: prefix(LOG, size).proof(SAID.line, (SG, ES, KR)) for size in (6, 8, 10)}


def under(
    good: Case, *rotations: Entry, proofs: Iterable[InclusionEvidence] = (), objects: Iterable[bytes] = ()
) -> Case:
    """The case with these rotations, and only these proofs of the publication."""
    claims = [line for line in good.claims if line not in (r.line for r in rotations)]
    more = {sha256(data): data for data in objects}
    return replace(
        good,
        claims=(*claims, *(rotation.line for rotation in rotations)),
        proofs=tuple(proofs) or good.proofs,
        objects={**good.objects, **more},
    )


def pinning(good: Case, rotation: Digest) -> Case:
    pin = f"[publishers.rotations]\n{json.dumps(SWISS_AI.id)} = {json.dumps(rotation)}\n"
    return good.demanding("[cosigners]\n", f"{pin}[cosigners]\n")


def said_of_keys(verdict: Verdict) -> set[str]:
    return {fact.text for row in ("key policy", "crypto health") for fact in verdict.row(row).facts} & {
        CURRENT,
        BEFORE,
        UNKNOWN,
    }


def outcome(good: Case) -> tuple[str, int]:
    verdict = good.verdict()
    return verdict.row("signatures").state, verdict.exit_status


def test_a_publication_under_a_new_key_needs_the_rotation() -> None:
    renewed = case(publisher=replace(SWISS_AI, signer=SECOND.keys[0]))
    assert outcome(renewed) == ("fail", 3)
    assert outcome(under(renewed, ROTATED)) == ("pass", 0)
    assert said_of_keys(under(renewed, ROTATED).verdict()) == {CURRENT}


def test_a_publication_under_a_retired_key_stays_its_publishers() -> None:
    assert said_of_keys(OLD.verdict()) == {CURRENT}
    for good in (under(OLD, ROTATED), under(OLD, ROTATED, SECOND.to("Swiss AI third")[1])):
        assert outcome(good) == ("pass", 0)
        assert said_of_keys(good.verdict()) == {UNKNOWN}


def judged(
    *rotations: Entry,
    pinned: Digest | None = None,
    proofs: Iterable[bytes] = (),
    consistency: Iterable[bytes] = (),
    entry: Entry = SAID,
) -> KeyValidity:
    return judge_keys(
        entry, follow(FIRST.state, rotations), pinned, proofs, consistency_proofs(consistency), EvidenceReader()
    )


def test_only_a_proof_that_verifies_says_where_a_statement_is() -> None:
    whole = TlogProof.parse(PROOFS[8].data)
    assert judged(ROTATED, pinned=NUMBER_ONE, proofs=[whole.encode()]) == KeyValidity(BEFORE, True)
    wrong = (whole.hashes[0][:-1] + bytes([whole.hashes[0][-1] ^ 1]), *whole.hashes[1:])
    for forged in (replace(whole, hashes=wrong), replace(whole, index=4), replace(whole, hashes=whole.hashes[1:])):
        assert judged(ROTATED, pinned=NUMBER_ONE, proofs=[forged.encode(), b"junk"]).accepted is False
        assert judged(ROTATED, proofs=[forged.encode()]) == KeyValidity(UNKNOWN, True)
    other = LOG.proof(LOG.lines[0]).data
    assert judged(ROTATED, pinned=NUMBER_ONE, proofs=[other]).accepted is False, "a proof of another line"


def test_only_growth_that_verifies_leads_to_the_cut() -> None:
    proven = ConsistencyProof.parse(growth(LOG, 8, 10))
    changed = (bytes(32), *proven.hashes[1:])
    forged = replace(proven, hashes=changed).encode()
    for consistency, accepted in (([proven.encode()], True), ([forged], False), ([forged, proven.encode()], True)):
        found = judged(ROTATED, pinned=NUMBER_ONE, proofs=[PROOFS[10].data], consistency=consistency)
        assert found.accepted is accepted


def test_one_proof_below_the_cut_is_enough_and_the_last_leaf_below_it_counts() -> None:
    elsewhere = filled(SG)
    elsewhere.append(SAID.line)
    apart = elsewhere.proof(SAID.line).data
    assert judged(ROTATED, pinned=NUMBER_ONE, proofs=[apart, PROOFS[8].data]) == KeyValidity(BEFORE, True)
    for size, accepted in ((6, True), (5, False)):
        _, rotated = FIRST.to("at the edge", cut=[cut(LOG, size)])
        number = parse_rotation(rotated)[0].digest
        consistency = [growth(LOG, size, 6)]
        assert judged(rotated, pinned=number, proofs=[PROOFS[6].data], consistency=consistency).accepted is accepted


def test_a_key_that_a_rotation_keeps_is_current() -> None:
    recovery = signer("kept recovery", CLASSICAL)
    kept = Rotation(SWISS_AI.id, 1, FIRST.state.digest, FIRST.state.keys, (recovery.public.id,))
    entry = rotate(FIRST.state, kept, FIRST.recovery, FIRST.keys)
    assert judged(entry) == KeyValidity(CURRENT, True)
    assert judged(entry, pinned=kept.digest).accepted is True


def test_the_first_of_three_rotations_counts_where_the_last_is_pinned() -> None:
    third, again = SECOND.to("Swiss AI third")
    _, last = third.to("Swiss AI fourth")
    number_three = parse_rotation(last)[0].digest
    found = judged(ROTATED, again, last, pinned=number_three, proofs=[PROOFS[8].data])
    assert found == KeyValidity(BEFORE, True)


def test_the_cut_of_a_rotation_on_another_branch_does_not_count_under_the_pinned_one() -> None:
    _, early = FIRST.to("Swiss AI early", cut=[cut(LOG, 3)])
    found = judged(ROTATED, early, pinned=parse_rotation(early)[0].digest, proofs=[PROOFS[8].data])
    assert found.accepted is False
    assert judged(ROTATED, early, pinned=NUMBER_ONE, proofs=[PROOFS[8].data]) == KeyValidity(BEFORE, True)


def test_statements_in_the_log_at_the_cut_were_made_before_the_rotation() -> None:
    at_the_cut = under(OLD, ROTATED, proofs=[PROOFS[8]])
    assert said_of_keys(at_the_cut.verdict()) == {BEFORE}
    assert outcome(pinning(at_the_cut, NUMBER_ONE)) == ("pass", 0)


def test_a_later_proof_needs_one_of_growth_from_the_cut() -> None:
    later = pinning(under(OLD, ROTATED, proofs=[PROOFS[10]]), NUMBER_ONE)
    assert outcome(later) == ("fail", 4)
    assert outcome(under(later, ROTATED, proofs=[PROOFS[10]], objects=[growth(LOG, 8, 10)])) == ("pass", 0)
    for useless in (
        growth(LOG, 6, 10),
        growth(LOG, 8, 9),
        growth(LOG, 8, 10).replace(b"8 10\n", b"8 10\n" + b"A" * 44),
    ):
        assert outcome(under(later, ROTATED, proofs=[PROOFS[10]], objects=[useless])) == ("fail", 4)


def test_an_earlier_proof_needs_one_of_growth_to_the_cut() -> None:
    earlier = pinning(under(OLD, ROTATED, proofs=[PROOFS[6]]), NUMBER_ONE)
    assert outcome(earlier) == ("fail", 4)
    assert outcome(under(earlier, ROTATED, proofs=[PROOFS[6]], objects=[growth(LOG, 6, 8)])) == ("pass", 0)


def test_statements_that_a_thief_logs_after_the_cut_are_refused_under_a_pinned_rotation() -> None:
    log = logged(before=9)
    _, rotated = FIRST.to("Swiss AI in time", cut=[cut(log, 9)])
    late = under(OLD, rotated, proofs=[log.proof(SAID.line, (SG, ES, KR))], objects=[growth(log, 9, 10)])
    assert outcome(late) == ("pass", 0)
    assert said_of_keys(late.verdict()) == {UNKNOWN}
    refused = pinning(late, parse_rotation(rotated)[0].digest)
    assert outcome(refused) == ("fail", 4)
    assert "after the cut, or unknown" in refused.verdict().row("key policy").summary


def test_a_log_that_the_rotation_does_not_name_is_cut_at_nothing() -> None:
    elsewhere = filled(SG)
    elsewhere.append(SAID.line)
    proof = elsewhere.proof(SAID.line, (CH, ES, KR))
    assert outcome(pinning(under(OLD, ROTATED, proofs=[proof]), NUMBER_ONE)) == ("fail", 4)
    _, everywhere = FIRST.to("Swiss AI everywhere", cut=[cut(LOG, 8), cut(elsewhere, 6)])
    number = parse_rotation(everywhere)[0].digest
    assert outcome(pinning(under(OLD, everywhere, proofs=[proof]), number)) == ("pass", 0)


def test_a_log_may_not_borrow_the_cut_of_another() -> None:
    renamed = Log("elsewhere.example/log", LOG.key)
    for line in LOG.lines[:8]:
        renamed.append(line)
    proof = renamed.proof(SAID.line)
    assert outcome(pinning(under(OLD, ROTATED, proofs=[proof, PROOFS[10]]), NUMBER_ONE)) == ("fail", 4)


def test_new_keys_need_no_cut() -> None:
    renewed = pinning(under(case(publisher=replace(SWISS_AI, signer=SECOND.keys[0])), ROTATED), NUMBER_ONE)
    assert outcome(renewed) == ("pass", 0)
    third, again = SECOND.to("Swiss AI third")
    assert outcome(under(renewed, again)) == ("pass", 0)
    newest = pinning(under(case(publisher=replace(SWISS_AI, signer=third.keys[0])), ROTATED, again), NUMBER_ONE)
    assert outcome(newest) == ("pass", 0)


def test_each_retired_key_is_judged_by_the_rotation_that_retired_it() -> None:
    _, again = SECOND.to("Swiss AI third", cut=[cut(LOG, 10)])
    number_two = parse_rotation(again)[0].digest
    good = under(OLD, ROTATED, again, proofs=[PROOFS[8]])
    assert outcome(pinning(good, number_two)) == ("pass", 0)
    _, early = FIRST.to("Swiss AI early", cut=[cut(LOG, 3)])
    second = FIRST.to("Swiss AI early", cut=[cut(LOG, 3)])[0]
    _, later = second.to("Swiss AI late", cut=[cut(LOG, 10)])
    number_two = parse_rotation(later)[0].digest
    late = under(OLD, early, later, proofs=[PROOFS[10]], objects=[growth(LOG, 3, 10)])
    assert outcome(pinning(late, number_two)) == ("fail", 4)


def test_a_pinned_rotation_that_is_not_here_is_missing_evidence() -> None:
    assert outcome(pinning(OLD, NUMBER_ONE)) == ("unknown", 5)
    verdict = pinning(OLD, NUMBER_ONE).verdict()
    assert verdict.row("key policy").state == "unknown"
    assert "missing" in verdict.row("signatures").summary


def test_a_pin_decides_between_the_branches_of_a_dispute() -> None:
    thief, alternate = FIRST.to("thief")
    forged = under(case(publisher=replace(SWISS_AI, signer=thief.keys[0])), ROTATED, alternate)
    assert outcome(forged) == ("pass", 0)
    assert outcome(pinning(forged, NUMBER_ONE)) == ("fail", 4)
    assert outcome(pinning(forged, parse_rotation(alternate)[0].digest)) == ("pass", 0)


def test_conflicting_rotations_are_shown_in_their_own_row_and_change_no_other() -> None:
    _, alternate = FIRST.to("thief")
    disputed, before = under(OLD, ROTATED, alternate).verdict(), under(OLD, ROTATED).verdict()
    row = disputed.row("disputes and advisories")
    assert row.state == "fail"
    assert "two rotations of one state" in row.summary
    assert before.row("disputes and advisories").state == "unknown"
    names = [row.name for row in before.rows if row.name not in ("disputes and advisories",)]
    assert [disputed.row(name).state for name in names] == [before.row(name).state for name in names]


def test_a_strangers_disputed_rotation_is_not_shown() -> None:
    somebody = of(identity("Somebody"))
    lines = (somebody.to("one")[1].line, somebody.to("other")[1].line, identity("Somebody").entry.line)
    assert OLD.saying(*lines).verdict() == OLD.verdict()


def test_a_rotation_without_a_known_predecessor_is_a_note() -> None:
    assert SECOND.to("Swiss AI third")[1].line not in OLD.claims
    verdict = OLD.saying(SECOND.to("Swiss AI third")[1].line).verdict()
    assert "starts from no known keys" in verdict.row("notes").summary


def test_crypto_health_judges_the_signing_keys_and_those_of_their_rotations() -> None:
    classical = identity("Classical", "CH", algs=("ed25519",))
    weak = replace(classical, signer=of(classical).to("still classical")[0].keys[0])
    good = case(publisher=weak).saying(of(classical).to("still classical")[1].line)
    assert good.verdict().row("crypto health").summary == "classical only: the publisher's signature"
    assert (
        under(case(publisher=replace(SWISS_AI, signer=SECOND.keys[0])), ROTATED).verdict().row("crypto health").state
        == "pass"
    )


def test_a_hostile_identity_costs_a_check_a_signature_and_not_one_for_each_of_its_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many, shared = 40, signer("shared", CLASSICAL)
    hostile = begun("hostile")
    inception = Inception("publisher", hostile.state.keys, hostile.state.recovery, "node.example/log", "", "hostile")
    lines = [sign_content(InceptionStatement(inception), *hostile.keys).line]
    for number in range(many):
        own = signer(f"hostile {number}", CLASSICAL)
        keys = KeySet((shared.public, own.public), 2)
        change = Rotation(inception.id, 1, hostile.state.digest, keys, ())
        lines.append(rotate(hostile.state, change, hostile.recovery, [own, shared]).line)
        said = replace(release()[0], by=inception.id, name=Name("hostile", "tiny", f"v{number}"))
        lines.append(sign_content(said, shared, hostile.keys[0]).line)
    asked: list[bytes] = []
    real = PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> None:
        asked.append(key.raw)
        real(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    assert OLD.saying(*lines).verdict().exit_status == 0
    few = len(asked)
    OLD.verdict()
    assert few - (len(asked) - few) <= 10 * many
