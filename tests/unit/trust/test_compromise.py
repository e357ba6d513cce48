"""Compromised keys: who may declare it, from which entry on it counts, and which rows change."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content, statement_of
from comity.trust.bound_nodes import WitnessedEntry
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.evidence import Row, Verdict
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK
from comity.trust.home_logs import HomeLogs
from comity.trust.key_validity import CompromiseNotice, is_logged_before
from comity.trust.keys import HybridSigner
from comity.trust.statement import assemble_envelope, sign_payload
from comity.trust.statements import Advisory, Compromise
from comity.trust.tlog.note import log_verifier_key
from comity.trust.verify import verify
from support.case import Case, case, filled, nodes, read_policy, release
from support.observations import observation
from support.several_keys import several_keys
from support.world import Identity, Log, found, identity, node

GOOD = case()
OWNER = identity("Swiss AI", "CH")
HOME = "node-ch.example/log"
PLACE = 5
"""The index of the publication in its home log."""


def notice(index: int, *, by: Identity = OWNER, about: Identity = OWNER, origin: str = HOME) -> bytes:
    lost = Compromise(about.signer.public.id, origin, index)
    said = Advisory(by.inception.author, about.id, "key-compromise", "critical", "the laptop is gone", lost)
    return sign_content(said, by.signer).line


def key_policy(what: Case) -> Row:
    return what.verdict().row("key policy")


def test_a_notice_reads_back() -> None:
    lost = Compromise(OWNER.signer.public.id, HOME, 7)
    said = Advisory(OWNER.inception.author, OWNER.id, "key-compromise", "high", "", lost)
    assert Advisory.parse(sign_content(said, OWNER.signer).statement) == said


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "yank", "severity": "info", "text": "", "key": OWNER.id, "since": {"origin": HOME, "index": 1}},
        {"kind": "key-compromise", "severity": "info", "text": "", "key": OWNER.id},
        {"kind": "key-compromise", "severity": "info", "text": "", "since": {"origin": HOME, "index": 1}},
        {"kind": "key-compromise", "severity": "info", "text": "", "key": "x", "since": {"origin": HOME, "index": 1}},
        {
            "kind": "key-compromise",
            "severity": "info",
            "text": "",
            "key": OWNER.id,
            "since": {"origin": "a b", "index": 1},
        },
        {
            "kind": "key-compromise",
            "severity": "info",
            "text": "",
            "key": OWNER.id,
            "since": {"origin": HOME, "index": -1},
        },
    ],
    ids=["another kind", "no entry", "no key", "no digest", "no origin", "a negative entry"],
)
def test_an_invalid_notice_is_refused(body: dict[str, Json]) -> None:
    made = sign_content(Advisory(OWNER.inception.author, OWNER.id, "yank", "info", ""), OWNER.signer).statement
    with pytest.raises(Malformed):
        Advisory.parse(replace(made, body=body))


@pytest.mark.parametrize("index", [0, PLACE])
def test_statements_at_or_after_the_declared_entry_fail_the_key_policy(index: int) -> None:
    lost = GOOD.saying(notice(index))
    row = key_policy(lost)
    assert (row.state, row.cause) == ("fail", "short")
    assert [fact.basis for fact in row.facts[-2:]] == ["claimed", "verified here"]
    warned = lost.verdict().row("disputes and advisories")
    assert (warned.state, warned.facts[0].text) == ("fail", "key-compromise (critical): the laptop is gone")
    assert "from entry" in lost.verdict().row("time").facts[-1].text
    assert lost.verdict().row("time").state == "pass"


def test_statements_before_the_declared_entry_stay_valid() -> None:
    lost = GOOD.saying(notice(PLACE + 1))
    assert key_policy(lost).state == "pass"
    assert key_policy(lost).facts[-1].text == f"this statement is in {HOME} below that entry"


def test_without_a_proof_in_that_log_the_result_is_unknown() -> None:
    elsewhere = GOOD.saying(notice(PLACE, origin="node-sg.example/log"))
    row = key_policy(elsewhere)
    assert (row.state, row.cause) == ("unknown", "missing")
    assert elsewhere.verdict().exit_status == 5, "a thief logs where nobody looked"


@pytest.mark.parametrize("lies", [0, 1], ids=["alone", "beside a log of another member under its origin"])
def test_an_entry_outside_of_the_home_log_is_searched_in_the_log_of_its_owner(lies: int) -> None:
    ch, sg, es, kr = nodes()
    log = filled(sg)
    index = log.append(GOOD.publication.line)
    other = node(es.seat, "second")
    bound = sign_content(
        replace(other.record, log=log_verifier_key(sg.origin, other.log.public)), es.seat.signer, *other.bound
    )
    lying = Log(sg.origin, other.log)
    lying.append(GOOD.publication.line)
    proofs = (log.proof(GOOD.publication.line), *[lying.proof(GOOD.publication.line, [ch, kr])] * lies)
    for since, state in ((index, "fail"), (index + 1, "pass")):
        told = GOOD.saying(notice(since, origin=sg.origin), *[bound.line] * lies)
        assert key_policy(replace(told, proofs=(*told.proofs, *proofs))).state == state


def test_the_earliest_of_several_entries_counts() -> None:
    assert key_policy(GOOD.saying(notice(PLACE + 1), notice(2))).state == "fail"


def test_the_rows_of_signatures_logs_and_cosigners_are_unchanged() -> None:
    before, after = GOOD.verdict(), GOOD.saying(notice(0)).verdict()
    for name in ("artifact", "bytes", "signatures", "transparency", "cosigners"):
        assert before.row(name) == after.row(name)


def test_what_was_signed_after_the_loss_is_refused_by_a_policy_that_does_not_list_key_policy() -> None:
    refused = GOOD.saying(notice(0)).verdict()
    assert "key policy" not in GOOD.policy.require
    assert (refused.exit_status, "key policy" in refused.required) == (4, True)
    assert refused.row("key policy").summary.endswith("signed after the publisher says its key was stolen")
    assert refused.row("policy").summary == "not met: key policy"
    older = GOOD.saying(notice(PLACE + 1)).verdict()
    assert (older.exit_status, older.required) == (0, GOOD.policy.require)


def test_it_is_refused_where_nobody_names_the_publisher() -> None:
    nobody = f"accept = {json.dumps([OWNER.id])}"
    unnamed = replace(GOOD.demanding(nobody, "accept = []"), federation=found(nodes()))
    assert unnamed.verdict().exit_status == 0
    assert unnamed.saying(notice(0)).verdict().exit_status == 4


def test_a_policy_relaxes_it_by_name() -> None:
    lax = GOOD.saying(notice(0)).demanding("[cosigners]", 'lost_keys = "report"\n[cosigners]')
    verdict = lax.verdict()
    assert (verdict.exit_status, verdict.row("key policy").state) == (0, "pass")
    assert "at that entry or above it" in verdict.row("key policy").facts[-1].text
    assert verdict.row("disputes and advisories").state == "fail"
    with pytest.raises(Malformed, match="lost_keys"):
        read_policy(lax.policy_text.replace('"report"', '"ignore"'), lax.federation.encode())


def test_a_notice_refuses_nothing_where_no_row_rests_on_a_publication() -> None:
    rows = 'require = ["artifact", "bytes", "signatures", "transparency", "cosigners"]'
    mirrored = GOOD.saying(notice(0), *(observation(each, GOOD.artifact).line for each in nodes(2)))
    mirrored = mirrored.demanding(rows, 'require = ["artifact"]').demanding(
        "[rows]", "[upstream]\ncorroborated = 2\n[rows]"
    )
    assert mirrored.verdict().exit_status == 0


def test_a_statement_of_a_lost_key_corrects_no_older_one() -> None:
    later = release(spdx="MIT")[1]
    log = filled(nodes()[0])
    log.append(GOOD.publication.line)
    log.append(later.line)
    proofs = tuple(log.proof(line, nodes()[1:]) for line in (GOOD.publication.line, later.line))
    both = replace(GOOD.saying(later.line), proofs=(*GOOD.proofs, *proofs))
    assert both.verdict().row("licence").state == "fail", "its publisher corrected the licence"
    stolen = both.saying(notice(PLACE + 1)).verdict()
    assert (stolen.exit_status, stolen.row("licence").state) == (0, "pass")


def test_no_other_identity_can_declare_a_publishers_keys_compromised() -> None:
    rival = identity("Rival", "SG")
    for line in (notice(0, by=rival), notice(0, about=rival), notice(0, by=rival, about=rival)):
        assert key_policy(GOOD.saying(rival.entry.line, line)) == key_policy(GOOD)


def test_a_forged_notice_counts_for_nothing() -> None:
    lost = Compromise(OWNER.signer.public.id, HOME, 0)
    said = Advisory(OWNER.inception.author, OWNER.id, "key-compromise", "high", "", lost)
    assert key_policy(GOOD.saying(sign_content(said, identity("Rival", "SG").signer).line)) == key_policy(GOOD)


def test_a_notice_counts_only_about_a_key_that_signed_and_about_its_own_identity() -> None:
    rival = identity("Rival", "SG")
    own, other = OWNER.signer.public.id, rival.signer.public.id
    for by, about, key, signer in (
        (OWNER, OWNER, other, OWNER),
        (OWNER, rival, own, OWNER),
        (rival, OWNER, own, OWNER),
        (OWNER, OWNER, own, rival),
    ):
        lost = Compromise(key, HOME, 0)
        said = Advisory(by.inception.author, about.id, "key-compromise", "critical", "", lost)
        line = sign_content(said, signer.signer).line
        assert key_policy(GOOD.saying(rival.entry.line, line)) == key_policy(GOOD)
    yanked = sign_content(Advisory(OWNER.inception.author, OWNER.id, "yank", "info", ""), OWNER.signer).line
    assert key_policy(GOOD.saying(yanked)) == key_policy(GOOD)


def published_with(*signers: HybridSigner, invalid: HybridSigner | None = None) -> Case:
    """The publication of an identity with several keys, signed with some, and its notice that the third is lost; with
    an invalid signature that names another key."""
    several, (node, *others) = several_keys(), nodes()
    said = statement_of(replace(release()[0], by=several.id)).encode()
    signatures = sign_payload(said, *signers).signatures
    if invalid is not None:
        signatures += tuple(replace(each, sig=bytes(each.sig)[::-1]) for each in sign_payload(said, invalid).signatures)
    line, log = assemble_envelope(said, signatures).encode(), filled(node)
    log.append(line)
    return replace(
        GOOD,
        claims=(several.entry.line, *(each.entry.line for each in nodes()), line, several.lost.line),
        proofs=(log.proof(line, others),),
        policy_text=GOOD.policy_text.replace(OWNER.id, several.id),
    )


def test_only_the_keys_that_signed_are_asked_for_of_an_identity_with_several() -> None:
    one, two, lost = several_keys().keys
    verdict = published_with(one, two).verdict()
    assert (verdict.exit_status, verdict.row("signatures").state) == (0, "pass")
    assert "key policy" not in verdict.required
    for signers in ((one, lost), (two, lost), (one, two, lost)):
        verdict = published_with(*signers).verdict()
        assert (verdict.exit_status, verdict.row("signatures").state) == (4, "pass")
        assert verdict.row("key policy").summary.endswith("signed after the publisher says its key was stolen")


def test_an_invalid_signature_is_no_use_of_the_key_that_it_names_and_its_line_no_statement() -> None:
    one, two, lost = several_keys().keys
    verdict = published_with(one, two, invalid=lost).verdict()
    assert (verdict.exit_status, verdict.row("signatures").state) == (3, "fail")
    assert "stolen" not in verdict.row("key policy").summary


def test_notices_are_shown_with_the_lowest_entry_first() -> None:
    texts = [fact.text for fact in GOOD.saying(*map(notice, (9, 12, 7, 8))).verdict().row("time").facts]
    entries = [text.split(" of ")[0].rsplit(" ", 1)[1] for text in texts if "is compromised from entry" in text]
    assert entries == ["7", "8", "9", "12"]


def test_a_statement_that_is_in_the_log_twice_is_as_old_as_its_first_entry() -> None:
    lost = CompromiseNotice(OWNER.entry, OWNER.signer.public.id, HOME, PLACE, "critical", "")
    log, home = str(nodes(1)[0].record.log), HomeLogs(((str(nodes(1)[0].record.log),),), {HOME: 0})
    seen = [WitnessedEntry(HOME, index, 20, nodes(1)[0].seat.member, (), (), log=log) for index in (9, 4)]
    elsewhere = replace(seen[0], log=str(nodes(2)[1].record.log))
    assert is_logged_before(lost, seen, home) is is_logged_before(lost, seen[::-1], home) is True
    assert is_logged_before(lost, [seen[0], replace(seen[1], log=elsewhere.log)], home) is False
    assert is_logged_before(lost, [replace(seen[0], index=PLACE)], home) is False
    assert is_logged_before(lost, [elsewhere], home) is is_logged_before(lost, [], home) is None


def test_a_log_of_another_member_under_the_same_origin_makes_no_statement_older() -> None:
    sg = nodes(2)[1]
    other = node(sg.seat, "second")
    record = replace(other.record, log=log_verifier_key(HOME, other.log.public))
    log = Log(HOME, other.log)
    log.append(GOOD.publication.line)
    bound = sign_content(record, sg.seat.signer, *other.bound)
    stolen = GOOD.saying(notice(PLACE), bound.line)
    stolen = replace(stolen, proofs=(*stolen.proofs, log.proof(GOOD.publication.line, nodes()[2:])))
    assert key_policy(stolen).state == "fail"
    unlogged = replace(stolen, proofs=tuple(p for p in stolen.proofs if p not in GOOD.proofs_of(GOOD.publication.line)))
    assert len(unlogged.proofs_of(GOOD.publication.line)) == 1
    assert (key_policy(unlogged).state, key_policy(unlogged).cause) == ("unknown", "missing")


def unread(policy: str, required: tuple[str, ...]) -> Verdict:
    """The verdict if more statements of the publisher were made than were read."""
    evidence = replace(GOOD.evidence, cut=frozenset({OWNER.id}))
    return verify(evidence, replace(GOOD.policy, require=required, refuse_lost_keys=policy != "report"))


def test_a_notice_that_may_not_have_been_read_leaves_the_key_policy_unknown() -> None:
    verdict = unread("refuse", GOOD.policy.require)
    row = verdict.row("key policy")
    assert (row.state, row.cause, verdict.exit_status) == ("unknown", "missing", EVIDENCE_MISSING)
    assert "more statements than were read" in row.summary


def test_a_notice_that_may_not_have_been_read_counts_without_a_required_key_policy() -> None:
    required = tuple(name for name in GOOD.policy.require if name != "key policy")
    assert unread("refuse", required).exit_status == EVIDENCE_MISSING
    assert unread("report", required).exit_status == OK


def test_a_policy_that_rests_on_no_signature_of_the_publisher_does_not_ask_for_its_keys() -> None:
    assert unread("refuse", ("artifact", "bytes")).exit_status == OK
    assert unread("refuse", ("artifact", "bytes", "licence")).exit_status == EVIDENCE_MISSING
