"""The report: a verdict as a document. RFC 8785 JSON, the same bytes for the same evidence and policy.

    {"accepted":true,"artifact":"9f2c…","exit_status":0,"inputs":["0a1b…"],"name":"swiss-ai/apertus-8b@v1",
     "policy":"77c0…","required":["artifact","bytes"],"rows":[{"cause":"","facts":[{"basis":"verified here","by":"",
     "evidence":"…","text":"…"}],"hint":"","row":"artifact","state":"pass","step":1,"summary":"…"}],
     "schema":"comity.dev/report/v1","tool":{"name":"comity","version":"0.1.0"}}

A report contains no time, path or host. The `verified` statement that signs it has the time and the signer, and sums
the report up in the form of SLSA's VSA v1. Source: protocol, sections 5 and 8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Final, TypeVar

from comity.trust.codec import (
    JsonFollows,
    JsonInner,
    JsonItems,
    JsonObject,
    JsonPath,
    JsonRead,
    JsonText,
    JsonTime,
    JsonWord,
)
from comity.trust.content import ById, Content, Label, SubjectDigest
from comity.trust.encoding import Digest, Fields, Json, canonical, parse_canonical
from comity.trust.errors import Malformed, Untrusted
from comity.trust.evidence import BASES, CAUSES, STATES, Row, RowFact, Verdict
from comity.trust.exit_statuses import OK
from comity.trust.frozen import frozen
from comity.trust.identity import Signatory
from comity.trust.statement import Entry, SideObject
from comity.trust.statement_kinds import VERIFIED

Choice = TypeVar("Choice", bound=str)

SCHEMA: Final = "comity.dev/report/v1"
TOOL: Final = "comity"
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_ROWS: Final = 64
MAX_FACTS_PER_ROW: Final = 200
MAX_TEXT: Final = 1000
MAX_FACTS: Final = 100_000
MAX_INPUTS: Final = 10_000
MAX_STATUS: Final = 255
MAX_INPUT_ATTESTATIONS: Final = 256
"""Maximum of attestations in the statement; the report lists all."""
MAX_LEVELS: Final = 64
RESULTS: Final = {True: "PASSED", False: "FAILED"}
_ARTIFACT_URN: Final = re.compile(r"urn:comity:artifact:[0-9a-f]{64}\Z")
_IDENTITY_URN: Final = re.compile(r"urn:comity:identity:[0-9a-f]{64}\Z")
_LEVEL: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


@frozen
class VerdictReport:
    """A verdict, and the version of the program that made it."""

    version: str
    verdict: Verdict

    @classmethod
    def of(cls, verdict: Verdict, version: str) -> VerdictReport:
        """Build a report that always fits the limits, whatever an attacker put into the evidence. Per row at most
        `MAX_FACTS_PER_ROW` facts are kept, verified facts before claims, and `MAX_TEXT` characters per text; of the
        inputs above `MAX_INPUTS`, those of the kept facts. Bytes of file names that are not Unicode are escaped."""
        rows, inputs = tuple(_bounded(row) for row in verdict.rows), verdict.inputs
        if len(inputs) > MAX_INPUTS:
            named = {fact.evidence for row in rows for fact in row.facts}
            inputs = tuple(digest for digest in inputs if digest in named)[:MAX_INPUTS]
        return cls(version, replace(verdict, name=_text(verdict.name), rows=rows, inputs=inputs))

    def encode(self) -> bytes:
        """Raises Malformed if the report is larger than 16 MiB."""
        document = self.verdict.to_json() | {"schema": SCHEMA, "tool": {"name": TOOL, "version": self.version}}
        data = canonical(document)
        if len(data) > MAX_BYTES:
            raise Malformed("report is too large", why=f"{len(data)} bytes, at most {MAX_BYTES} are allowed")
        return data

    @classmethod
    def parse(cls, data: bytes) -> VerdictReport:
        """Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_BYTES, what="report"), "report")
        fields.constant("schema", SCHEMA)
        tool = fields.object("tool")
        tool.constant("name", TOOL)
        version = tool.text("version", most=64)
        tool.done()
        verdict = Verdict(
            artifact=fields.digest_or_none("artifact"),
            name=_string(fields, "name"),
            rows=tuple(_row(item) for item in fields.items("rows", most=MAX_ROWS)),
            exit_status=fields.integer("exit_status", most=MAX_STATUS),
            policy=fields.digest_or_none("policy"),
            required=tuple(_row_name(item) for item in fields.items("required", most=MAX_ROWS)),
            inputs=fields.digests("inputs", most=MAX_INPUTS),
        )
        if fields.take("accepted") is not (verdict.exit_status == OK):
            raise fields.error("'accepted' must be true exactly if 'exit_status' is 0")
        fields.done()
        return cls(version, verdict)


def _row(item: Json) -> Row:
    fields = Fields(item, "report row")
    row = Row(
        name=fields.text("row", most=64),
        state=_one_of(fields, "state", STATES),
        summary=_string(fields, "summary"),
        step=fields.integer("step", most=MAX_ROWS),
        cause=_one_of(fields, "cause", CAUSES),
        facts=tuple(_fact(each) for each in fields.items("facts", most=MAX_FACTS)),
        hint=_string(fields, "hint"),
    )
    fields.done()
    return row


def _fact(item: Json) -> RowFact:
    fields = Fields(item, "report fact")
    basis = _one_of(fields, "basis", BASES)
    fact = RowFact(_string(fields, "text"), basis, _string(fields, "by"), fields.digest_or_none("evidence"))
    fields.done()
    return fact


def _one_of(fields: Fields, name: str, choices: Sequence[Choice]) -> Choice:
    value = fields.take(name)
    for choice in choices:
        if value == choice:
            return choice
    raise fields.error(f"member {name!r} must be one of {', '.join(map(repr, choices))}")


def _string(fields: Fields, name: str) -> str:
    """Any string. The caller escapes it for display."""
    value = fields.take(name)
    if not isinstance(value, str):
        raise fields.error(f"member {name!r} must be a string")
    return value


def _row_name(item: Json) -> str:
    if not isinstance(item, str):
        raise Malformed("report is malformed", why="names of required rows must be strings")
    return item


def _bounded(row: Row) -> Row:
    indexes = sorted(range(len(row.facts)), key=lambda index: row.facts[index].basis == "claimed")
    kept = set(indexes[:MAX_FACTS_PER_ROW])
    listed = (fact for index, fact in enumerate(row.facts) if index in kept)
    facts = tuple(replace(fact, text=_text(fact.text), by=_text(fact.by)) for fact in listed)
    if (more := len(row.facts) - len(facts)) > 0:
        facts += (RowFact(f"{more} more are not listed", "verified here"),)
    return replace(row, summary=_text(row.summary), facts=facts, hint=_text(row.hint))


def _text(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


@frozen
class _Attestation(JsonObject):
    sha256: Annotated[Digest, JsonPath("digest.sha256")]


class _AttestationDigest(JsonInner):
    def __init__(self) -> None:
        super().__init__(_Attestation)

    def read(self, fields: Fields, name: str) -> Digest:
        named: _Attestation = super().read(fields, name)
        return named.sha256

    def write(self, value: Digest) -> Json:
        return _Attestation(value).to_json()


class _ResultWord(JsonWord):
    def read(self, fields: Fields, name: str) -> bool:
        return bool(super().read(fields, name) == RESULTS[True])

    def write(self, value: bool) -> Json:
        return RESULTS[value]


def _level(text: str) -> str:
    if not _LEVEL.match(text):
        raise Malformed("verified is malformed", why="a level must be upper-case letters, digits and underscores")
    return text


LEVELS: Final = JsonItems(MAX_LEVELS, of=JsonRead(_level, _LEVEL))
"""The names of levels in a member."""


@frozen
class Verified(Content):
    """The result of verifying an artifact under a policy (SLSA VSA v1). Source: protocol, sections 5 and 8.

        {"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":9120}],
         "inputAttestations":[{"digest":{"sha256":"…"}}],"policy":{"digest":{"sha256":"77c0…"}},
         "report":{"digest":"0a1b…","size":9120},"resourceUri":"urn:comity:artifact:9f2c…",
         "timeVerified":"2026-11-25T15:04:05Z","verificationResult":"PASSED","verifiedLevels":["COMITY_BYTES"],
         "verifier":{"id":"urn:comity:identity:51aa…","version":{"comity":"0.1.0"}}}

    The report is a side object. All members except the time and the signer follow from it (`check_report`). `time` is
    the signer's claim, in seconds since 1970; `by` is the claimed signer, an identity.
    """

    predicate: ClassVar = VERIFIED
    constants: ClassVar = {
        "resourceUri": JsonFollows(lambda said: f"urn:comity:artifact:{said.artifact}", _ARTIFACT_URN),
        "verifier.id": JsonFollows(lambda said: f"urn:comity:identity:{said.by}", _IDENTITY_URN),
    }
    by: ById
    name: Label
    artifact: SubjectDigest
    time: Annotated[int, JsonTime(), JsonPath("timeVerified")]
    policy: Annotated[Digest, JsonPath("policy.digest.sha256")]
    passed: Annotated[bool, _ResultWord(tuple(RESULTS.values())), JsonPath("verificationResult")]
    levels: Annotated[tuple[str, ...], LEVELS, JsonPath("verifiedLevels")]
    inputs: Annotated[
        tuple[Digest, ...],
        JsonItems(MAX_INPUT_ATTESTATIONS, of=_AttestationDigest()),
        JsonPath("inputAttestations"),
    ]
    report: SideObject
    version: Annotated[str, JsonText(64), JsonPath("verifier.version.comity")]


def summarise_report(report: VerdictReport, by: Digest, time: int) -> Verified:
    """The summary of `report` by the identity `by` at `time`. Raises Malformed without an artifact or a policy."""
    verdict = report.verdict
    if verdict.artifact is None or verdict.policy is None:
        missing = "a manifest" if verdict.artifact is None else "a policy file"
        why = f"a verification summary needs an artifact and a policy; the report is without {missing}"
        raise Malformed("report cannot be signed", why=why, hint="comity policy new", code="UNSIGNABLE-REPORT")
    return Verified(
        by=by,
        name=verdict.name,
        artifact=verdict.artifact,
        time=time,
        policy=verdict.policy,
        passed=verdict.accepted,
        levels=tuple(vsa_level(row.name) for row in verdict.rows if row.state == "pass"),
        inputs=verdict.inputs[:MAX_INPUT_ATTESTATIONS],
        report=SideObject.of(report.encode()),
        version=report.version,
    )


def check_report(entry: Entry, signer: Signatory, report: VerdictReport) -> Verified:
    """Return the content if `signer` signed the statement and it agrees with `report`.

    Raises Malformed, and Untrusted with code SIGNATURE or REPORT.
    """
    verified = Verified.parse(entry.statement)
    if not signer.signed(entry.envelope):
        raise Untrusted("report refused", why="not signed by the keys of its author", code="SIGNATURE")
    if SideObject.of(report.encode()) != verified.report:
        raise Untrusted("report refused", why="another report was signed", code="REPORT")
    if verified != summarise_report(report, verified.by, verified.time):
        raise Untrusted("report refused", why="the signed summary differs from the report", code="REPORT")
    return verified


def vsa_level(row: str) -> str:
    """The VSA level of a report row: `key policy` gives COMITY_KEY_POLICY."""
    return f"COMITY_{row.upper().replace(' ', '_')}"
