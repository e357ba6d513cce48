"""`verified`: somebody checked these bytes under a policy, and signs what came out. The shape is SLSA's verification
summary (VSA v1), its members spelled as there.

    {"by":{"identity":"51aa…"},"objects":[{"digest":"0a1b…","size":9120}],
     "inputAttestations":[{"digest":{"sha256":"…"}}],"policy":{"digest":{"sha256":"77c0…"}},
     "report":{"digest":"0a1b…","size":9120},"resourceUri":"urn:comity:artifact:9f2c…",
     "timeVerified":"2026-11-25T15:04:05Z","verificationResult":"PASSED","verifiedLevels":["COMITY_BYTES"],
     "verifier":{"id":"urn:comity:identity:51aa…","version":{"comity":"0.1.0"}}}

The report is a side object; all but the time and the signer follows from it, and `check_report` holds it to that. To
everybody else it stays a claim of its signer's. Source: protocol, sections 5 and 8.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.identity import Signatory
from comity.trust.keys import Signer
from comity.trust.report import Report
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

VERIFIED: Final = "verified"
MAX_INPUTS: Final = 256
"""Attestations that the statement names; the report has all of them."""
MAX_LEVELS: Final = 64
RESULTS: Final = {True: "PASSED", False: "FAILED"}
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM: Final = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_LEVEL: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a `verified` statement says. `time` is its signer's, in seconds since 1970; `by` an identity that claims to
    speak, signatures decide elsewhere."""

    by: Digest
    name: str
    artifact: Digest
    time: int
    policy: Digest
    passed: bool
    levels: tuple[str, ...]
    inputs: tuple[Digest, ...]
    report: SideObject
    version: str

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "inputAttestations": [{"digest": {"sha256": digest}} for digest in self.inputs],
            "policy": {"digest": {"sha256": self.policy}},
            "report": self.report.to_json(),
            "resourceUri": _resource(self.artifact),
            "timeVerified": moment(self.time),
            "verificationResult": RESULTS[self.passed],
            "verifiedLevels": list(self.levels),
            "verifier": {"id": _verifier(self.by), "version": {"comity": self.version}},
        }
        subjects = (Subject(self.name, self.artifact),)
        return Statement(VERIFIED, subjects, Author("identity", self.by), body, (self.report,))

    @classmethod
    def parse(cls, statement: Statement) -> Verified:
        """Raises Malformed."""
        if statement.predicate != VERIFIED or statement.by is None or statement.by.kind != "identity":
            raise Malformed("verified is malformed", why="not a verified statement of an identity")
        fields = statement.fields()
        artifact = statement.sole_subject()
        fields.constant("resourceUri", _resource(artifact))
        made = cls(
            by=statement.by.id,
            name=statement.subjects[0].name,
            artifact=artifact,
            time=_time(fields),
            policy=_sha256(fields.object("policy")),
            passed=fields.choice("verificationResult", list(RESULTS.values())) == RESULTS[True],
            levels=tuple(_level(item) for item in fields.items("verifiedLevels", most=MAX_LEVELS)),
            inputs=tuple(
                _sha256(Fields(item, "verified.inputAttestations"))
                for item in fields.items("inputAttestations", most=MAX_INPUTS)
            ),
            report=SideObject.from_json(fields.take("report")),
            version=_version(fields.object("verifier"), statement.by.id),
        )
        fields.done()
        if statement.objects != (made.report,):
            raise Malformed("verified is malformed", why="its report must be its one side object")
        return made


def summarise(report: Report, by: Digest, time: int) -> Verified:
    """What `by` says who came to `report` at `time`. Raises Malformed for a report without an artifact or a policy."""
    verdict = report.verdict
    if verdict.artifact is None or verdict.policy is None:
        missing = "a manifest" if verdict.artifact is None else "a policy file"
        why = f"a verification summary is about an artifact under a policy, and there was no {missing}"
        raise Malformed("report cannot be signed", why=why, hint="comity policy new", code="UNSIGNABLE-REPORT")
    return Verified(
        by=by,
        name=verdict.name,
        artifact=verdict.artifact,
        time=time,
        policy=verdict.policy,
        passed=verdict.accepted,
        levels=tuple(level(row.name) for row in verdict.rows if row.state == "pass"),
        inputs=verdict.inputs[:MAX_INPUTS],
        report=SideObject.of(report.encode()),
        version=report.version,
    )


def sign_verified(verified: Verified, *signers: Signer) -> Entry:
    """Raises Malformed for what nobody could read back."""
    statement = verified.statement()
    Verified.parse(statement)
    return sign_statement(statement, *signers)


def check_report(entry: Entry, signer: Signatory, report: Report) -> Verified:
    """The statement, proven to be signed by `signer`'s keys and to say of `report` what is in it.

    Raises Malformed, and Untrusted with code SIGNATURE or REPORT.
    """
    verified = Verified.parse(entry.statement)
    if not signer.signed(entry.envelope):
        raise Untrusted("report refused", why="it is not signed by the keys of who it says", code="SIGNATURE")
    if SideObject.of(report.encode()) != verified.report:
        raise Untrusted("report refused", why="another report was signed", code="REPORT")
    if verified != summarise(report, verified.by, verified.time):
        raise Untrusted("report refused", why="what was signed is not what is in it", code="REPORT")
    return verified


def moment(time: int) -> str:
    """`2026-11-25T15:04:05Z` for seconds since 1970."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(_TIME)


def level(row: str) -> str:
    """The VSA level that a row stands for: `key policy` is COMITY_KEY_POLICY."""
    return f"COMITY_{row.upper().replace(' ', '_')}"


def _resource(artifact: Digest) -> str:
    return f"urn:comity:artifact:{artifact}"


def _verifier(identity: Digest) -> str:
    return f"urn:comity:identity:{identity}"


def _time(fields: Fields) -> int:
    text = fields.text("timeVerified", most=20)
    try:
        if _TIME_FORM.match(text):
            return int(datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        pass
    raise fields.error("'timeVerified' must be a moment in UTC, such as 2026-11-25T15:04:05Z")


def _version(fields: Fields, by: Digest) -> str:
    fields.constant("id", _verifier(by))
    versions = fields.object("version")
    version = versions.text("comity", most=64)
    versions.done()
    fields.done()
    return version


def _sha256(fields: Fields) -> Digest:
    digests = fields.object("digest")
    digest = digests.digest("sha256")
    digests.done()
    fields.done()
    return digest


def _level(item: Json) -> str:
    if not isinstance(item, str) or not _LEVEL.match(item):
        raise Malformed("verified is malformed", why="a level is upper-case letters, digits and underscores")
    return item
