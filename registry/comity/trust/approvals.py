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
from typing import Annotated, ClassVar, Final

from comity.trust.codec import JsonObject, JsonPath, JsonRead, JsonText, JsonTime
from comity.trust.content import ById, Content, Label, SideFile, SubjectDigest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject, Statement, Subject
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


def _file_name(text: str) -> str:
    if not _FILE_NAME.match(text):
        raise Malformed("approved is malformed", why="the name of its conditions is a file name without slashes")
    return text


@frozen
class ApprovalConditions(JsonObject):
    """The text to which an approval is bound: its file name, and the text as a side object."""

    name: Annotated[str, JsonRead(_file_name, _FILE_NAME, most=200), "The name of the file."]
    text: Annotated[SideObject, SideFile(MAX_CONDITIONS)]


@frozen
class Approved(Content):
    """An officer approves an artifact for a scope. Source: protocol, section 5.

        {"by":{"identity":"51aa…"},"conditions":{"name":"conditions.txt","text":{"digest":"0a1b…","size":612}},
         "from":"2026-11-27T00:00:00Z","objects":[{"digest":"0a1b…","size":612}],"scope":"hospital-bern",
         "time":"2026-11-27T09:30:00Z","until":"2027-03-31T23:59:59Z"}

    `since` (in JSON `from`), `until` and `time`, the time of signing, are in seconds since 1970, as the officer claims.
    """

    predicate: ClassVar = APPROVED
    subject_count: ClassVar = (3, 3)
    by: ById
    artifact: SubjectDigest
    scope: Annotated[str, JsonRead(check_scope, _SCOPE)]
    since: Annotated[int, JsonTime(), JsonPath("from")]
    until: Annotated[int, JsonTime(), "Later than `from`."]
    time: Annotated[int, JsonTime(), "The time of signing, as the officer claims."]
    conditions: ApprovalConditions | None = None
    title: Label = ""

    def subjects(self) -> tuple[Subject, ...]:
        return _subjects(self.title, self.artifact, self.by)

    def check(self, statement: Statement) -> None:
        _check_subjects(self, statement)
        if self.since >= self.until:
            raise self.malformed("it ends before it begins")


@frozen
class ApprovalEnded(Content):
    """An officer ends an approval of its own. `since` (in JSON `from`) is in seconds since 1970.

    {"approval":"77c0…","by":{"identity":"51aa…"},"from":"2027-01-15T00:00:00Z","text":"a new version is due"}
    """

    predicate: ClassVar = APPROVAL_ENDED
    subject_count: ClassVar = (3, 3)
    by: ById
    artifact: SubjectDigest
    approval: Annotated[Digest, "The statement digest of the approval."]
    since: Annotated[int, JsonTime(), JsonPath("from")]
    text: Annotated[str, JsonText(MAX_REASON, 0, lines=True)] = ""

    def subjects(self) -> tuple[Subject, ...]:
        return _subjects("", self.artifact, self.by)

    def check(self, statement: Statement) -> None:
        _check_subjects(self, statement)


def _subjects(title: str, artifact: Digest, officer: Digest) -> tuple[Subject, ...]:
    key, all_of = approval_key(officer, artifact), officer_key(officer)
    return (Subject(title, artifact), Subject(_KEY, key), Subject(_OFFICER, all_of))


def _check_subjects(said: Approved | ApprovalEnded, statement: Statement) -> None:
    if statement.subjects != _subjects(statement.subjects[0].name, said.artifact, said.by):
        raise said.malformed("its subjects must be the artifact, the approval key and the officer key")


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
