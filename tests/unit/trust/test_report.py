"""The report: one spelling, the same in every run, and who signed it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import BASES, CAUSES, STATES, FoundFile, Row, RowFact, Verdict
from comity.trust.policy import ROWS
from comity.trust.report import (
    MAX_FACTS_PER_ROW,
    MAX_INPUT_ATTESTATIONS,
    MAX_INPUTS,
    MAX_ROWS,
    MAX_TEXT,
    RESULTS,
    VerdictReport,
    Verified,
    check_report,
    summarise_report,
    vsa_level,
)
from comity.trust.statement import Author, Statement, parse_entry, sign_statement
from comity.trust.verify import verify
from comity.verifier import collect_evidence, load_policy
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import Case, advisory, case
from support.examples import examples
from support.world import NOW, Identity, draft, identity, seat

GOOD = case()
OFFICER, OTHER = identity("Security officer", "ES"), identity("Somebody else", "SG")
REPORT = VerdictReport.of(GOOD.verdict(), "1.0")
SUMMARY = summarise_report(REPORT, OFFICER.id, NOW)
SIGNED = sign_content(SUMMARY, OFFICER.signer)

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
texts = st.text(st.characters(), max_size=20)
facts = st.builds(RowFact, texts, st.sampled_from(BASES), texts, st.none() | digests)
rows = st.builds(
    Row,
    st.sampled_from(ROWS),
    st.sampled_from(STATES),
    texts,
    st.integers(0, 16),
    st.sampled_from(CAUSES),
    st.lists(facts, max_size=3).map(tuple),
    texts,
)
verdicts = st.builds(
    Verdict,
    st.none() | digests,
    texts,
    st.lists(rows, max_size=16).map(tuple),
    st.sampled_from([0, 3, 4, 5, 8]),
    st.none() | digests,
    st.lists(st.sampled_from(ROWS), max_size=5).map(tuple),
    st.lists(digests, max_size=3).map(tuple),
)
summaries = st.builds(
    Verified,
    by=digests,
    name=st.just("swiss-ai/tiny@v1") | st.just(""),
    artifact=digests,
    time=st.integers(0, 4_000_000_000),
    policy=digests,
    passed=st.booleans(),
    levels=st.lists(st.sampled_from([vsa_level(row) for row in ROWS]), unique=True).map(tuple),
    inputs=st.lists(digests, max_size=4).map(tuple),
    report=st.just(SUMMARY.report),
    version=st.just("1.0"),
)


@given(verdicts)
@settings(max_examples=examples(60))
def test_a_report_reads_back_in_one_spelling(verdict: Verdict) -> None:
    report = VerdictReport.of(verdict, "1.0")
    assert VerdictReport.parse(report.encode()) == report
    assert VerdictReport.parse(report.encode()).encode() == report.encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"accepted":true', b'"accepted":false'),
        (b'"exit_status":0', b'"exit_status":4'),
        (b'"state":"pass"', b'"state":"fine"'),
        (b'"basis":"verified here"', b'"basis":"well known"'),
        (b'report/v1"', b'report/v2"'),
        (b'{"accepted"', b'{ "accepted"'),
        (b'"name":"comity"', b'"name":"other"'),
        (b'"hint":""', b'"hint":"","host":"laptop"'),
    ],
)
def test_an_invalid_report_is_refused(old: bytes, new: bytes) -> None:
    data = REPORT.encode()
    assert old in data
    with pytest.raises(Malformed):
        VerdictReport.parse(data.replace(old, new, 1))


def changed(**change: Json) -> bytes:
    return canonical({**json.loads(REPORT.encode()), **change})


def with_row(**change: Json) -> bytes:
    first, *others = json.loads(REPORT.encode())["rows"]
    return changed(rows=[{**first, **change}, *others])


def with_fact(**change: Json) -> bytes:
    facts = json.loads(REPORT.encode())["rows"][0]["facts"]
    return with_row(facts=[{**facts[0], **change}, *facts[1:]])


TOOL_NAME = json.loads(REPORT.encode())["tool"]["name"]


@pytest.mark.parametrize(
    "data",
    [
        changed(more=1),
        changed(tool={"name": TOOL_NAME, "version": "1.0", "host": "laptop"}),
        changed(tool={"name": TOOL_NAME, "version": "v" * 65}),
        changed(name=1),
        changed(required=["artifact", 1]),
        with_row(more=1),
        with_row(row="r" * 65),
        with_row(summary=None),
        with_row(hint=7),
        with_fact(more=1),
        with_fact(text=1),
        with_fact(by=None),
    ],
)
def test_another_member_or_type_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        VerdictReport.parse(data)


def test_names_may_be_as_long_as_the_limits() -> None:
    assert VerdictReport.parse(changed(tool={"name": TOOL_NAME, "version": "v" * 64})).version == "v" * 64
    assert VerdictReport.parse(with_row(row="r" * 64)).verdict.rows[0].name == "r" * 64


def test_a_report_may_be_as_large_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = REPORT.encode()
    monkeypatch.setattr("comity.trust.report.MAX_BYTES", len(data))
    assert VerdictReport.parse(REPORT.encode()) == REPORT
    monkeypatch.setattr("comity.trust.report.MAX_BYTES", len(data) - 1)
    with pytest.raises(Malformed, match="too large"):
        REPORT.encode()


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_facts_and_texts_over_the_limit_are_counted_and_cut(extra: int) -> None:
    facts = (RowFact("fact", "verified here"),) * (MAX_FACTS_PER_ROW + extra)
    row = replace(GOOD.verdict().rows[0], facts=facts, summary="s" * (MAX_TEXT + extra))
    (kept, *_) = VerdictReport.of(replace(GOOD.verdict(), rows=(row,)), "1.0").verdict.rows
    told = [f"{extra} more are not listed"] if extra else []
    assert [fact.text for fact in kept.facts] == ["fact"] * MAX_FACTS_PER_ROW + told
    assert kept.summary == "s" * MAX_TEXT + "…" * bool(extra)


def test_the_same_evidence_and_policy_give_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    written = GOOD.write(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    claims = tmp_path / "elsewhere" / "two" / "model" / ".comity" / "statements.jsonl"
    claims.write_bytes(b"".join(reversed(claims.read_bytes().splitlines(keepends=True))))
    reports = []
    for folder in (written, tmp_path / "elsewhere" / "two" / "model"):
        verdict = verify(collect_evidence(folder), load_policy(folder.parent / "policy.toml"))
        reports.append(VerdictReport.of(verdict, "1.0").encode())
    assert reports[0] == reports[1]
    assert str(tmp_path).encode() not in reports[0]


def test_a_report_has_no_time_of_its_making() -> None:
    assert not re.search(rb"20\d\d-\d\d-\d\dT|\b1[67]\d{8}\b", REPORT.encode())


def test_a_report_has_all_rows_and_the_inputs_that_they_rest_on() -> None:
    document = json.loads(REPORT.encode())
    assert [row["row"] for row in document["rows"]] == list(ROWS)
    assert [row["step"] for row in document["rows"]] == list(range(1, len(ROWS) + 1))
    assert sha256(GOOD.publication.line) in document["inputs"]
    assert set(document["inputs"]) <= {sha256(line) for line in GOOD.claims}
    named = {fact["evidence"] for row in document["rows"] for fact in row["facts"]}
    assert set(document["inputs"]) <= named


def test_a_file_name_without_a_valid_encoding_is_escaped() -> None:
    odd = FoundFile("evil\udcff\x1b[2J.py", 1, sha256(b"x"))
    verdict = verify(replace(GOOD.evidence, files=(*(GOOD.evidence.files or ()), odd)), GOOD.policy)
    row = VerdictReport.parse(VerdictReport.of(verdict, "1.0").encode()).verdict.row("bytes")
    assert row.summary.startswith(r"evil\udcff" + "\x1b[2J.py: not in the manifest")


def test_no_flood_of_statements_makes_a_report_too_large_to_write() -> None:
    facts = tuple(RowFact("\U0001f600" * 4000, "claimed", "somebody") for _ in range(MAX_FACTS_PER_ROW + 7))
    rows = tuple(replace(row, summary="x" * 5000, facts=facts) for row in GOOD.verdict().rows)
    report = VerdictReport.of(replace(GOOD.verdict(), rows=rows), "1.0")
    assert VerdictReport.parse(report.encode()) == report
    row = report.verdict.row("notes")
    assert row.facts[-1].text == "7 more are not listed"
    assert {len(fact.text) for fact in row.facts[:-1]} == {len(row.summary)} == {MAX_TEXT + 1}


def test_no_number_of_statements_makes_a_report_that_cannot_be_read() -> None:
    digests = tuple(sha256(b"%d" % number) for number in range(MAX_INPUTS + 1))
    facts = tuple(RowFact("note", "verified here", evidence=digest) for digest in digests)
    flooded = replace(GOOD.verdict().row("notes"), facts=facts)
    rows = tuple(flooded if row.name == "notes" else row for row in GOOD.verdict().rows)
    inputs = tuple(sorted((*digests, *GOOD.verdict().inputs)))
    report = VerdictReport.of(replace(GOOD.verdict(), rows=rows, inputs=inputs), "1.0")
    assert VerdictReport.parse(report.encode()) == report
    assert {*GOOD.verdict().inputs, *digests[:MAX_FACTS_PER_ROW]} == set(report.verdict.inputs)


def test_as_many_inputs_as_a_report_may_have_are_listed_whether_facts_name_them_or_not() -> None:
    digests = tuple(sorted(sha256(b"%d" % number) for number in range(MAX_INPUTS + 1)))
    for count in (1, 2, MAX_INPUTS):
        report = VerdictReport.of(replace(GOOD.verdict(), inputs=digests[:count]), "1.0")
        assert report.verdict.inputs == digests[:count]
    assert MAX_ROWS * MAX_FACTS_PER_ROW > MAX_INPUTS
    flooded = tuple(
        replace(
            GOOD.verdict().rows[0],
            facts=tuple(RowFact("note", "verified here", evidence=digest) for digest in digests[at::MAX_ROWS]),
        )
        for at in range(MAX_ROWS)
    )
    report = VerdictReport.of(replace(GOOD.verdict(), rows=flooded, inputs=digests), "1.0")
    assert report.verdict.inputs == digests[:MAX_INPUTS]


def test_a_flood_of_claims_hides_nothing_that_is_verified_here() -> None:
    claims = tuple(RowFact(str(number), "claimed", "somebody") for number in range(MAX_FACTS_PER_ROW + 7))
    last = RowFact("seen", "verified here")
    flooded = replace(GOOD.verdict().row("policy"), facts=(*claims, last))
    report = VerdictReport.of(replace(GOOD.verdict(), rows=(flooded,)), "1.0")
    assert last in report.verdict.rows[0].facts
    assert report.verdict.rows[0].facts[:2] == claims[:2]


def test_notes_of_the_most_important_authors_are_first() -> None:
    stranger, machine = identity("Somebody"), identity("Security machine", "ES")
    told = GOOD.saying(
        *advisory(GOOD, by=stranger),
        *advisory(GOOD, by=identity("Swiss AI", "CH"), kind="yank"),
        *advisory(GOOD, by=machine),
    ).saying(OFFICER.entry.line, checked(GOOD, OFFICER), checked(GOOD, seat("SG")))
    verdict = verify(told.evidence, replace(GOOD.policy, refuse_from=frozenset({machine.id})))
    warned = [fact.by for fact in verdict.row("disputes and advisories").facts]
    assert warned[:3] == [machine.id, "its publisher", stranger.id]
    by = [fact.by for fact in verdict.row("policy").facts if fact.basis == "claimed"]
    assert by[0] == "Institute SG (SG)"


@given(summaries)
@settings(max_examples=examples(40))
def test_a_summary_reads_back(verified: Verified) -> None:
    assert Verified.parse(verified.statement()) == verified


def test_a_signed_report_holds_for_its_signer_and_its_report_alone() -> None:
    assert check_report(SIGNED, OFFICER.inception.keys, REPORT) == SUMMARY
    assert SUMMARY.passed
    assert set(SUMMARY.levels) >= {"COMITY_BYTES", "COMITY_KEY_POLICY", "COMITY_POLICY"}
    with pytest.raises(Untrusted, match="not signed"):
        check_report(SIGNED, OTHER.inception.keys, REPORT)
    with pytest.raises(Untrusted, match="another report"):
        check_report(SIGNED, OFFICER.inception.keys, replace(REPORT, version="1.1"))


def without(summary: Verified) -> list[Verified]:
    """Summaries of the same report that name facts which are not in it."""
    other = sha256(b"other")
    return [
        replace(summary, passed=False),
        replace(summary, artifact=other),
        replace(summary, policy=other),
        replace(summary, levels=summary.levels[1:]),
        replace(summary, inputs=(*summary.inputs, other)),
        replace(summary, name="swiss-ai/other@v1"),
        replace(summary, version="2.0"),
    ]


@pytest.mark.parametrize("other", without(SUMMARY), ids=range(7))
def test_a_summary_with_more_facts_than_its_report_is_refused(other: Verified) -> None:
    with pytest.raises(Untrusted, match="the signed summary differs"):
        check_report(sign_content(other, OFFICER.signer), OFFICER.inception.keys, REPORT)


@pytest.mark.parametrize(("gone", "missing"), [("artifact", "a manifest"), ("policy", "a policy file")])
def test_without_an_artifact_or_a_policy_there_is_nothing_to_sign(gone: str, missing: str) -> None:
    verdict = replace(REPORT.verdict, artifact=None) if gone == "artifact" else replace(REPORT.verdict, policy=None)
    with pytest.raises(Malformed, match=f"the report is without {missing}") as caught:
        summarise_report(replace(REPORT, verdict=verdict), OFFICER.id, NOW)
    assert caught.value.code == "UNSIGNABLE-REPORT"


def test_a_summary_names_so_many_inputs_as_fit_a_log_line() -> None:
    inputs = tuple(sha256(bytes([number % 256, number // 256])) for number in range(MAX_INPUT_ATTESTATIONS + 5))
    many = replace(REPORT, verdict=replace(REPORT.verdict, inputs=inputs))
    entry = sign_content(summarise_report(many, OFFICER.id, NOW), OFFICER.signer)
    assert check_report(entry, OFFICER.inception.keys, many).inputs == inputs[:MAX_INPUT_ATTESTATIONS]


def altered(**members: Json) -> Statement:
    """The statement of the summary with other members."""
    statement = SUMMARY.statement()
    return replace(statement, body={**statement.body, **members})


DIGEST: Json = {"sha256": "0" * 64}
VERIFIER = f"urn:comity:identity:{OFFICER.id}"
OTHER_FORMS = {
    "no verified statement": replace(SUMMARY.statement(), predicate="vouched"),
    "no author": replace(SUMMARY.statement(), by=None),
    "another member": altered(more=1),
    "no side object": replace(SUMMARY.statement(), objects=()),
    "a level in small letters": altered(verifiedLevels=["comity"]),
    "a level that is a number": altered(verifiedLevels=[5]),
    "a long version": altered(verifier={"id": VERIFIER, "version": {"comity": "1" * 65}}),
    "a version of something else": altered(verifier={"id": VERIFIER, "version": {"comity": "1", "other": "2"}}),
    "more of the verifier": altered(verifier={"id": VERIFIER, "version": {"comity": "1"}, "more": 1}),
    "another hash of the policy": altered(policy={"digest": {"sha256": "0" * 64, "sha1": "0"}}),
    "more of the policy": altered(policy={"digest": DIGEST, "more": 1}),
}


@pytest.mark.parametrize("statement", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_a_summary_of_another_form_is_refused(statement: Statement) -> None:
    with pytest.raises(Malformed):
        Verified.parse(statement)


def test_a_version_has_at_most_64_characters_and_a_longer_one_is_not_signed() -> None:
    longest = replace(SUMMARY, version="1" * 64)
    assert Verified.parse(longest.statement()) == longest
    with pytest.raises(Malformed):
        sign_content(replace(SUMMARY, version="1" * 65), OFFICER.signer)


def test_a_node_cannot_sign_a_verification() -> None:
    spoken = replace(SUMMARY.statement(), by=Author("node", OFFICER.id))
    with pytest.raises(Malformed):
        Verified.parse(parse_entry(sign_statement(spoken, OFFICER.signer).line).statement)


# What others checked


def checked(good: Case, by: Identity, **changes: Any) -> bytes:
    return sign_content(replace(SUMMARY, by=by.id, artifact=good.artifact, **changes), by.signer).line


def test_verifications_by_others_are_their_claims_and_change_no_row() -> None:
    member = seat("SG")
    line = checked(GOOD, OFFICER)
    told = GOOD.saying(OFFICER.entry.line, line, checked(GOOD, member, passed=False))
    before, after = GOOD.verdict(), told.verdict()
    assert [(row.name, row.state) for row in after.rows] == [(row.name, row.state) for row in before.rows]
    said = {fact.by: fact for fact in after.row("policy").facts if fact.basis == "claimed"}
    assert RESULTS[True] in said[f"Security officer [{OFFICER.id[:12]}]"].text
    assert RESULTS[False] in said["Institute SG (SG)"].text
    assert said[f"Security officer [{OFFICER.id[:12]}]"].evidence == sha256(line)


@pytest.mark.parametrize(
    ("levels", "rows"),
    [((), "0 rows pass"), (("COMITY_BYTES",), "one row passes"), (("COMITY_BYTES", "COMITY_LICENCE"), "2 rows pass")],
)
def test_a_verification_by_others_says_how_many_rows_passed(levels: tuple[str, ...], rows: str) -> None:
    told = GOOD.saying(OFFICER.entry.line, checked(GOOD, OFFICER, levels=levels))
    (said,) = (fact.text for fact in told.verdict().row("policy").facts if fact.basis == "claimed")
    assert said.endswith(f", {rows}")


def test_a_verifying_member_has_its_name_of_the_newest_pinned_charter() -> None:
    member, older = seat("SG"), GOOD.policy.pins[0]
    renamed = [replace(each, name=f"New {each.name}") for each in older.members]
    policy = replace(GOOD.policy, pins=(older, draft(renamed)))
    told = verify(GOOD.saying(checked(GOOD, member)).evidence, policy)
    assert [fact.by for fact in told.row("policy").facts if fact.basis == "claimed"] == ["New Institute SG (SG)"]


@pytest.mark.parametrize(
    "lines",
    [(checked(GOOD, OFFICER),), (OTHER.entry.line, OFFICER.entry.line, sign_content(SUMMARY, OTHER.signer).line)],
)
def test_a_verification_without_a_proven_author_is_a_note(lines: tuple[bytes, ...]) -> None:
    verdict = GOOD.saying(*lines).verdict()
    assert "verified" in verdict.row("notes").summary
    assert all(fact.basis == "verified here" for fact in verdict.row("policy").facts)


def test_a_refusing_issuer_is_seen_in_the_summary() -> None:
    issuer = identity("Security machine", "ES")
    warned = GOOD.saying(*advisory(GOOD, by=issuer))
    verdict = verify(warned.evidence, replace(GOOD.policy, refuse_from=frozenset({issuer.id})))
    assert not summarise_report(VerdictReport.of(verdict, "1.0"), OFFICER.id, NOW).passed


def test_reports_of_hostile_bytes_raise_nothing_else() -> None:
    for data in (b"", b"{}", b"[" * 100, b"\xff", REPORT.encode()[:-1]):
        with pytest.raises(ComityError):
            VerdictReport.parse(data)
