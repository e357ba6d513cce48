"""Statements by which an officer approves an artifact for a scope, and ends the approval; and who fills which place.

    approved         a named officer approves an artifact for a scope, from one time until another, under conditions
    approval-ended   the same officer ends that approval from a time on

An approval means only what a policy makes of it: the owner of the policy names the officers by their ids and asks for
a scope (`[approvals]`). Nobody else adds an officer, and no officer ends the approval of another one. The times are
claims of the officer, and are compared with the time of the policy. Source: protocol, sections 5 and 8.

Each statement names three subjects: the artifact, `approval_key` of officer and artifact, and `officer_key`. So a node
finds the few statements of one officer about one artifact, or all of one officer, whatever other people sign.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, Fields, Json, format_time, read_time, sha256
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import APPROVAL_ENDED, APPROVED

MAX_CONDITIONS: Final = 256 * 1024
"""Bytes of the text of the conditions."""
MAX_REASON: Final = 1000
_SCOPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z")
_FILE_NAME: Final = re.compile(r"[^/\\]{1,200}\Z")
_OFFICER, _KEY = "officer", "approval"


def approval_key(officer: Digest, artifact: Digest) -> Digest:
    """The subject under which the statements of one officer about the approval of one artifact are found."""
    return sha256(f"comity/approval/v1\n{officer}\n{artifact}\n".encode())


def officer_key(officer: Digest) -> Digest:
    """The subject under which all approvals of one officer are found."""
    return sha256(f"comity/officer/v1\n{officer}\n".encode())


def check_scope(text: str) -> str:
    """Return `text` if it is a scope: letters without accents, digits and `._/-`, so that two scopes that look alike
    are the same. Raises Malformed (SCOPE)."""
    if not _SCOPE.match(text):
        why = "expected 1 to 100 letters without accents, digits and ._/-, such as hospital-bern"
        raise Malformed(f"{text[:40]!r} is not a scope", why=why, code="SCOPE")
    return text


@dataclass(frozen=True, slots=True)
class ApprovalConditions:
    """The text to which an approval is bound: its file name, and the text as a side object."""

    name: str
    text: SideObject

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "text": self.text.to_json()}

    @classmethod
    def read(cls, value: Json) -> ApprovalConditions:
        """Raises Malformed."""
        fields = Fields(value, "approved.conditions")
        name, text = fields.text("name", most=200), SideObject.from_json(fields.take("text"))
        fields.done()
        if not _FILE_NAME.match(name) or text.size > MAX_CONDITIONS:
            why = f"conditions are a file name without slashes, and a text of at most {MAX_CONDITIONS} bytes"
            raise Malformed("approved is malformed", why=why)
        return cls(name, text)


@dataclass(frozen=True, slots=True)
class Approved:
    """Content of an `approved` statement. Source: protocol, section 5.

        {"by":{"identity":"51aa…"},"conditions":{"name":"conditions.txt","text":{"digest":"0a1b…","size":612}},
         "from":"2026-11-27T00:00:00Z","objects":[{"digest":"0a1b…","size":612}],"scope":"hospital-bern",
         "time":"2026-11-27T09:30:00Z","until":"2027-03-31T23:59:59Z"}

    `since` (in JSON `from`), `until` and `time`, the time of signing, are in seconds since 1970, as the officer claims.
    """

    by: Digest
    artifact: Digest
    scope: str
    since: int
    until: int
    time: int
    conditions: ApprovalConditions | None = None
    title: str = ""

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "scope": self.scope,
            "from": format_time(self.since),
            "until": format_time(self.until),
            "time": format_time(self.time),
            "conditions": self.conditions.to_json() if self.conditions else None,
        }
        subjects = _subjects(self.title, self.artifact, self.by)
        return Statement(APPROVED, subjects, Author("identity", self.by), body, self.objects())

    def objects(self) -> tuple[SideObject, ...]:
        return (self.conditions.text,) if self.conditions else ()


def sign_approved(approved: Approved, *signers: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    statement = approved.statement()
    parse_approved(statement)
    return sign_statement(statement, *signers)


def parse_approved(statement: Statement) -> Approved:
    """Raises Malformed."""
    by, artifact = _officer_and_artifact(statement, APPROVED)
    fields = statement.fields()
    conditions = fields.take("conditions")
    approved = Approved(
        by=by,
        artifact=artifact,
        scope=check_scope(fields.text("scope")),
        since=read_time(fields, "from"),
        until=read_time(fields, "until"),
        time=read_time(fields, "time"),
        conditions=None if conditions is None else ApprovalConditions.read(conditions),
        title=statement.subjects[0].name,
    )
    fields.done()
    if approved.since >= approved.until:
        raise Malformed("approved is malformed", why="it ends before it begins")
    if statement.objects != approved.objects():
        raise Malformed("approved is malformed", why="the text of its conditions must be its only side object")
    return approved


@dataclass(frozen=True, slots=True)
class ApprovalEnded:
    """Content of an `approval-ended` statement: its author ends the approval with this statement digest from `since`
    on (in JSON `from`, seconds since 1970).

        {"approval":"77c0…","by":{"identity":"51aa…"},"from":"2027-01-15T00:00:00Z","text":"a new version is due"}
    """

    by: Digest
    artifact: Digest
    approval: Digest
    since: int
    text: str = ""

    def statement(self) -> Statement:
        body: dict[str, Json] = {"approval": self.approval, "from": format_time(self.since), "text": self.text}
        return Statement(APPROVAL_ENDED, _subjects("", self.artifact, self.by), Author("identity", self.by), body)


def sign_approval_ended(ended: ApprovalEnded, *signers: Signer) -> Entry:
    """Raises Malformed if the statement is not valid."""
    statement = ended.statement()
    parse_approval_ended(statement)
    return sign_statement(statement, *signers)


def parse_approval_ended(statement: Statement) -> ApprovalEnded:
    """Raises Malformed."""
    by, artifact = _officer_and_artifact(statement, APPROVAL_ENDED)
    fields = statement.fields()
    ended = ApprovalEnded(
        by=by,
        artifact=artifact,
        approval=fields.digest("approval"),
        since=read_time(fields, "from"),
        text=fields.text("text", least=0, most=MAX_REASON, lines=True),
    )
    fields.done()
    return ended


def _subjects(title: str, artifact: Digest, officer: Digest) -> tuple[Subject, ...]:
    key, all_of = approval_key(officer, artifact), officer_key(officer)
    return (Subject(title, artifact), Subject(_KEY, key), Subject(_OFFICER, all_of))


def _officer_and_artifact(statement: Statement, predicate: str) -> tuple[Digest, Digest]:
    """The author and the first subject. Raises Malformed unless the other subjects follow from these two."""
    by = statement.author(predicate)
    first = statement.subjects[0]
    if statement.subjects != _subjects(first.name, first.digest, by.id):
        why = "its subjects must be the artifact, the approval key and the officer key"
        raise Malformed(f"{predicate} is malformed", why=why)
    return by.id, first.digest


def filled_places(places: Sequence[Collection[Digest]], approvers: Sequence[Collection[Digest]]) -> Mapping[int, int]:
    """Assign approvers to places so that as many places as possible are filled. Returns approvers by place, as indexes.

    Args:
        places: for each person or role that a policy names, the ids of those who may fill it.
        approvers: for each approver, the ids under which they sign. One approver fills one place.
    """
    filled: dict[int, int] = {}

    def assign(approver: int, tried: set[int]) -> bool:
        for place, ids in enumerate(places):
            if place in tried or set(ids).isdisjoint(approvers[approver]):
                continue
            tried.add(place)
            if place not in filled or assign(filled[place], tried):
                filled[place] = approver
                return True
        return False

    for approver in range(len(approvers)):
        assign(approver, set())
    return filled
