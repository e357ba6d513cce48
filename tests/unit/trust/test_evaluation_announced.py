"""Evaluations that were announced before they were done: how a verdict shows them, and those that were not
announced.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust import evaluation
from comity.trust.encoding import LAST_TIME, Json, sha256
from comity.trust.errors import Malformed
from comity.trust.evaluation import (
    MAX_EVALUATIONS,
    EvaluationAnnounced,
    EvaluationCriteria,
    EvaluationResults,
    Threshold,
)
from comity.trust.evidence import RowFact
from comity.trust.statement import Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statements import Vouched
from comity.trust.tlog.note import log_verifier_key
from comity_client.vouching import TEMPLATE, read_criteria, results_of
from hypothesis import given
from hypothesis import strategies as st
from support.case import Case, case, filled, nodes
from support.world import Identity, Log, identity, node

CH, SG, ES, KR = nodes(4)
GOOD = case()
LAB = identity("Evaluation lab", "ES")
CRITERIA = EvaluationCriteria(
    "refusals", "1.2", (Threshold("refusal_rate", ">=", "0.98"), Threshold("latency", "<", "1.5")), 500, "ab" * 16
)
RESULTS = EvaluationResults(CRITERIA, ("0.991", "1.50"), 1_795_000_000)


def announced(by: Identity = LAB, criteria: EvaluationCriteria = CRITERIA) -> Entry:
    return sign_content(EvaluationAnnounced(by.inception.author, GOOD.artifact, criteria.digest), by.signer)


def evaluated(by: Identity = LAB, results: EvaluationResults = RESULTS, text: str = "") -> Entry:
    document = SideObject.of(results.encode())
    return sign_content(Vouched(by.inception.author, GOOD.artifact, "evaluated", text, document), by.signer)


def with_lines(*lines: Entry, log: Log | None = None, proven: tuple[Entry, ...] = (), by: Identity = LAB) -> Case:
    proofs = tuple(log.proof(entry.line, (SG, ES)) for entry in proven) if log else ()
    objects = {**GOOD.objects, sha256(RESULTS.encode()): RESULTS.encode()}
    claimed = GOOD.saying(by.entry.line, *(entry.line for entry in lines))
    return replace(claimed, proofs=(*GOOD.proofs, *proofs), objects=objects)


def facts(made: Case) -> list[RowFact]:
    """The facts about evaluations; the other rows of the verdict are asserted to be unchanged."""
    verdict = made.verdict()
    assert (verdict.exit_status, verdict.name) == (GOOD.verdict().exit_status, GOOD.verdict().name)
    return [fact for fact in verdict.row("documents").facts if fact.text.startswith("evaluation ")]


def logged(*entries: Entry) -> Log:
    log = filled(CH)
    for entry in entries:
        log.append(entry.line)
    return log


def test_criteria_that_one_log_holds_before_the_result_were_announced_first() -> None:
    first, second = announced(), evaluated()
    made = with_lines(first, second, log=logged(first, second), proven=(first, second))
    values, order = facts(made)[:-1], facts(made)[-1]
    assert [(fact.text, fact.basis, fact.by) for fact in values] == [
        ("evaluation refusals 1.2: refusal_rate >= 0.98: 0.991, met", "claimed", values[0].by),
        ("evaluation refusals 1.2: latency < 1.5: 1.50, not met", "claimed", values[0].by),
    ]
    assert values[0].by.startswith("Evaluation lab")
    assert (order.text, order.basis) == (
        "evaluation refusals 1.2: announced first: entry 5 before entry 6 of node-ch.example/log",
        "verified here",
    )
    assert order.evidence == first.digest


def test_criteria_that_the_log_holds_after_the_result_were_not_announced_first() -> None:
    first, second = announced(), evaluated()
    (order,) = facts(with_lines(first, second, log=logged(second, first), proven=(first, second)))[-1:]
    assert order.text.endswith("announced after its result: entry 6 after entry 5 of node-ch.example/log")


def test_without_an_announcement_an_evaluation_is_not_announced() -> None:
    (order,) = facts(with_lines(evaluated()))[-1:]
    assert (order.text, order.basis) == ("evaluation refusals 1.2: not announced", "stale or absent")


@pytest.mark.parametrize("proven", ["neither", "announcement", "result"])
def test_an_order_is_proven_by_two_proofs_or_not_at_all(proven: str) -> None:
    first, second = announced(), evaluated()
    entries = {"neither": (), "announcement": (first,), "result": (second,)}[proven]
    (order,) = facts(with_lines(first, second, log=logged(first, second), proven=entries))[-1:]
    assert order.text.endswith("announced, and no proof here that one log has both in this order")
    assert order.basis == "stale or absent"


def test_positions_in_two_logs_prove_no_order() -> None:
    first, second = announced(), evaluated()
    made = with_lines(first, second, log=logged(first), proven=(first,))
    other = filled(SG, 40)
    other.append(second.line)
    made = replace(made, proofs=(*made.proofs, other.proof(second.line, (CH, ES))))
    assert "no proof here" in facts(made)[-1].text


def test_positions_in_two_logs_of_one_origin_and_member_prove_no_order() -> None:
    """A member that evaluates may make a second log with another key, and log its announcement there first."""
    first, second = announced(), evaluated()
    other = node(CH.seat, "second")
    record = replace(other.record, log=log_verifier_key(CH.origin, other.log.public))
    made = with_lines(first, second, log=logged(second), proven=(second,))
    made = made.saying(sign_content(record, CH.seat.signer, *other.bound).line)
    log = Log(CH.origin, other.log)
    log.append(first.line)
    made = replace(made, proofs=(*made.proofs, log.proof(first.line, (SG, ES))))
    assert "no proof here" in facts(made)[-1].text


def test_the_opposite_order_in_another_log_is_shown_and_hides_nothing() -> None:
    """Anyone may log copies of both statements in any order."""
    first, second = announced(), evaluated()
    made = with_lines(first, second, log=logged(first, second), proven=(first, second))
    other = filled(SG)
    other.append(second.line)
    other.append(first.line)
    proofs = tuple(other.proof(entry.line, (CH, ES)) for entry in (first, second))
    text = facts(replace(made, proofs=(*made.proofs, *proofs)))[-1].text
    assert "announced first: entry 5 before entry 6" in text and "in node-sg.example/log the result comes first" in text


def test_announcements_of_others_or_of_other_criteria_do_not_count() -> None:
    stranger, second = identity("Somebody", "BR"), evaluated()
    other = announced(criteria=replace(CRITERIA, samples=9))
    theirs = announced(stranger)
    log = logged(other, theirs, second)
    made = with_lines(other, theirs, second, log=log, proven=(other, theirs, second)).saying(stranger.entry.line)
    assert facts(made)[-1].text == "evaluation refusals 1.2: not announced"


@pytest.mark.parametrize("more", [0, 1, 3])
def test_the_number_of_the_authors_announced_evaluations_is_shown(more: int) -> None:
    first, second = announced(), evaluated()
    others = [announced(criteria=replace(CRITERIA, samples=number)) for number in range(more)]
    made = with_lines(first, second, *others, log=logged(first, second), proven=(first, second))
    said = f"; its author announced {more + 1} evaluations of this artifact" if more else ""
    assert facts(made)[-1].text.endswith(f"of node-ch.example/log{said}")


def test_announcements_about_other_artifacts_are_not_counted() -> None:
    first, second = announced(), evaluated()
    said = EvaluationAnnounced(LAB.inception.author, sha256(b"another"), CRITERIA.digest)
    elsewhere = sign_content(said, LAB.signer)
    made = with_lines(first, second, elsewhere, log=logged(elsewhere, second, first), proven=(elsewhere, second, first))
    assert facts(made)[-1].text.endswith("announced after its result: entry 7 after entry 6 of node-ch.example/log")


def test_another_envelope_of_an_announcement_hides_no_proof_and_is_no_other_announcement() -> None:
    """Signatures are randomised, and a statement is its payload: the log has one of its envelopes."""
    second = evaluated()
    envelopes = sorted((announced() for _ in range(5)), key=lambda entry: entry.digest)
    for first in envelopes:
        order = facts(with_lines(*envelopes, second, log=logged(first, second), proven=(first, second)))[-1]
        assert order.text.endswith("announced first: entry 5 before entry 6 of node-ch.example/log")
        assert order.evidence == first.digest
        order = facts(with_lines(*envelopes, second, log=logged(second, first), proven=(second, first)))[-1]
        assert order.text.endswith("announced after its result: entry 6 after entry 5 of node-ch.example/log")
        assert order.evidence == first.digest
    unproven = facts(with_lines(*envelopes, second))[-1]
    assert unproven.evidence == min(envelopes, key=lambda entry: entry.line).digest


def test_of_several_logs_that_prove_an_order_the_first_by_name_is_shown() -> None:
    first, second = announced(), evaluated()
    logs = {owner: filled(owner) for owner in (SG, CH, ES)}
    for log in logs.values():
        log.append(first.line)
        log.append(second.line)
    proofs = [log.proof(entry.line, (KR,)) for log in logs.values() for entry in (first, second)]
    for order in (proofs, proofs[::-1]):
        made = with_lines(first, second)
        text = facts(replace(made, proofs=(*made.proofs, *order)))[-1].text
        assert text.endswith("announced first: entry 5 before entry 6 of node-ch.example/log")


def test_of_several_logs_that_prove_the_opposite_the_first_by_name_is_shown() -> None:
    first, second = announced(), evaluated()
    logs = {owner: filled(owner) for owner in (SG, CH, ES)}
    for log in logs.values():
        log.append(second.line)
        log.append(first.line)
    proofs = [log.proof(entry.line, (KR,)) for log in logs.values() for entry in (first, second)]
    made = with_lines(first, second)
    text = facts(replace(made, proofs=(*made.proofs, *proofs)))[-1].text
    assert text.endswith("announced after its result: entry 6 after entry 5 of node-ch.example/log")
    in_order = filled(KR)
    in_order.append(first.line)
    in_order.append(second.line)
    proofs += [in_order.proof(entry.line, (CH,)) for entry in (first, second)]
    text = facts(replace(made, proofs=(*made.proofs, *proofs)))[-1].text
    assert text.endswith(
        "announced first: entry 5 before entry 6 of node-kr.example/log; in node-ch.example/log the result comes first"
    )


def test_of_several_indexes_in_one_log_the_first_is_shown() -> None:
    envelopes, second = [announced() for _ in range(12)], evaluated()
    for lines, said in (
        ((*envelopes, second), "announced first: entry 5 before entry 17 of"),
        ((second, *envelopes), "announced after its result: entry 6 after entry 5 of"),
    ):
        made = with_lines(second, *envelopes, log=logged(*lines), proven=lines)
        assert said in facts(made)[-1].text


def test_a_result_that_a_log_has_twice_is_announced_first_only_before_both() -> None:
    first, second = announced(), evaluated()
    log = filled(CH)
    log.append(second.line)
    early = log.proof(second.line, (SG, ES))
    log.append(first.line)
    late = filled(CH)
    for line in (second.line, first.line, second.line):
        late.append(line)
    late.lines[5] = b""  # the proof is for the last place
    made = with_lines(first, second)
    proofs = (early, late.proof(first.line, (SG, ES)), late.proof(second.line, (SG, ES)))
    for order in (proofs, proofs[::-1]):
        text = facts(replace(made, proofs=(*made.proofs, *order)))[-1].text
        assert "announced after its result: entry 6 after entry 5" in text


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (15, 15), (16, 16), (17, 16), (40, 16)])
def test_so_many_thresholds_are_shown_and_the_others_are_counted(count: int, shown: int) -> None:
    thresholds = tuple(Threshold(f"metric {number}", ">=", "0") for number in range(count))
    results = EvaluationResults(replace(CRITERIA, thresholds=thresholds), ("1",) * count, 5)
    made = with_lines(evaluated(results=results))
    made = replace(made, objects={**GOOD.objects, sha256(results.encode()): results.encode()})
    texts = [fact.text for fact in facts(made)[:-1]]
    assert texts[:shown] == [f"evaluation refusals 1.2: metric {number} >= 0: 1, met" for number in range(shown)]
    more = count - shown
    assert texts[shown:] == ([f"evaluation refusals 1.2: {more} more thresholds"] if more else [])


def test_a_forged_announcement_is_a_note() -> None:
    said = EvaluationAnnounced(LAB.inception.author, GOOD.artifact, CRITERIA.digest)
    forged, second = sign_content(said, identity("Somebody", "BR").signer), evaluated()
    made = with_lines(forged, second, log=logged(forged, second), proven=(forged, second))
    assert facts(made)[-1].text == "evaluation refusals 1.2: not announced"
    assert "is not proven to be signed by" in made.verdict().row("notes").summary


def test_a_document_in_another_form_stays_a_plain_vouched_statement() -> None:
    for data in (b"free text", b'{"schema":"comity/evaluation-results/v1"}', RESULTS.encode() + b" "):
        vouch = Vouched(LAB.inception.author, GOOD.artifact, "evaluated", "", SideObject.of(data))
        line = sign_content(vouch, LAB.signer)
        made = replace(with_lines(line), objects={**GOOD.objects, sha256(data): data})
        assert facts(made) == []
        assert any(fact.text.startswith("evaluated") for fact in made.verdict().row("documents").facts)


def test_no_number_of_evaluations_of_strangers_hides_that_of_a_member() -> None:
    member = CH.seat
    own = sign_content(
        Vouched(member.inception.author, GOOD.artifact, "evaluated", "own", SideObject.of(RESULTS.encode())),
        member.signer,
    )
    many = [evaluated(text=str(number)) for number in range(MAX_EVALUATIONS + 5)]
    found = facts(with_lines(own, *many).saying(member.entry.line))
    assert len(found) == 3 * MAX_EVALUATIONS
    assert sum(fact.evidence == own.digest for fact in found) == 2


def test_no_number_of_evaluations_of_one_member_hides_that_of_another() -> None:
    one, other = CH.seat, SG.seat

    def said(by: Identity, text: str) -> Entry:
        document = SideObject.of(RESULTS.encode())
        return sign_content(Vouched(by.inception.author, GOOD.artifact, "evaluated", text, document), by.signer)

    many = [said(one, str(number)) for number in range(MAX_EVALUATIONS + 5)]
    last = max((said(other, f"of another {number}") for number in range(200)), key=lambda entry: entry.digest)
    found = facts(with_lines(last, *many).saying(one.entry.line, other.entry.line))
    assert len(found) == 3 * MAX_EVALUATIONS
    assert sum(fact.evidence == last.digest for fact in found) == 2


def test_a_document_is_parsed_once_for_all_statements_that_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, parsed = RESULTS.encode()[:-1], list[bytes]()
    vouches = [
        sign_content(Vouched(LAB.inception.author, GOOD.artifact, "evaluated", str(n), SideObject.of(data)), LAB.signer)
        for n in range(20)
    ]
    made = replace(with_lines(*vouches), objects={**GOOD.objects, sha256(data): data})

    def parse(given: bytes, *, limit: int, what: str) -> Json:
        parsed.append(given)
        return {}

    monkeypatch.setattr(evaluation, "parse_canonical", parse)
    assert facts(made) == []
    assert parsed == [data]


def test_an_announcement_reads_back_and_nothing_else_is_read() -> None:
    entry = announced()
    said = EvaluationAnnounced.parse(entry.statement)
    assert (said.criteria, said.artifact, said.by) == (CRITERIA.digest, GOOD.artifact, LAB.inception.author)
    bodies: list[dict[str, Json]] = [{}, {"criteria": "x"}, {"criteria": CRITERIA.digest, "more": 1}]
    for body in bodies:
        statement = Statement("evaluation-announced", (Subject("", GOOD.artifact),), LAB.inception.author, body)
        with pytest.raises(Malformed):
            EvaluationAnnounced.parse(sign_statement(statement, LAB.signer).statement)


decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?", fullmatch=True)
metrics = st.lists(st.text("abcdefgh_", min_size=1, max_size=8), min_size=1, max_size=4, unique=True)


@given(metrics, st.data())
def test_results_round_trip_and_meet_a_threshold_as_numbers_do(names: list[str], data: st.DataObject) -> None:
    comparators = st.sampled_from((">=", ">", "<=", "<"))
    thresholds = tuple(Threshold(name, data.draw(comparators), data.draw(decimals)) for name in names)
    made = EvaluationResults(
        EvaluationCriteria("s", "", thresholds, 1, "0" * 32), tuple(data.draw(decimals) for _ in names), 5
    )
    assert EvaluationResults.parse(made.encode()) == made
    assert EvaluationCriteria.parse(made.criteria.encode()) == made.criteria
    opposite = {">=": "<", ">": "<=", "<=": ">", "<": ">="}
    for threshold, value, met in zip(thresholds, made.values, made.met, strict=True):
        assert met != replace(threshold, comparator=opposite[threshold.comparator]).is_met_by(value)
        assert threshold.is_met_by(threshold.threshold) == ("=" in threshold.comparator)


def test_results_of_a_time_outside_of_the_calendar_are_invalid() -> None:
    last = replace(RESULTS, at=LAST_TIME)
    assert EvaluationResults.parse(last.encode()).predicate(LAB.id, GOOD.artifact).time == "9999-12-31T23:59:59Z"
    with pytest.raises(Malformed):
        EvaluationResults.parse(replace(last, at=LAST_TIME + 1).encode())


def test_criteria_are_written_by_people_and_every_document_is_another() -> None:
    one, two = read_criteria(TEMPLATE.encode()), read_criteria(TEMPLATE.encode())
    assert one.digest != two.digest and replace(one, nonce=two.nonce) == two
    results = results_of(one, ["refusal_rate=0.991"], 5)
    assert (results.values, results.met) == (("0.991",), (True,))
    said = results.predicate(LAB.id, GOOD.artifact)
    assert said.registered is not None and said.registered.value == one.digest and said.claims[0].passed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "suite = ",
        TEMPLATE.replace('"0.98"', "0.98"),
        TEMPLATE.replace("samples = 500", 'samples = "x"'),
        TEMPLATE + 'extra = "x"\n',
        TEMPLATE + '[[claims]]\nmetric = "refusal_rate"\ncomparator = ">"\nthreshold = "1"\n',
    ],
)
def test_invalid_criteria_are_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        read_criteria(text.encode())
    assert refused.value.code == "CRITERIA"


@pytest.mark.parametrize(
    "values", [[], ["refusal_rate"], ["x=1"], ["refusal_rate=1", "refusal_rate=2"], ["refusal_rate=1e3"]]
)
def test_invalid_results_are_refused(values: list[str]) -> None:
    with pytest.raises(Malformed) as refused:
        results_of(read_criteria(TEMPLATE.encode()), values, 5)
    assert refused.value.code == "CRITERIA"
