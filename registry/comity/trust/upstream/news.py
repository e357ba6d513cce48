"""What a node found when it asked an upstream again: `upstream-changed` and `upstream-gone`.

Neither takes anything back: what was mirrored stays what it was. Source: protocol, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.upstream.naming import Upstream, check_commit

CHANGED: Final = "upstream-changed"
GONE: Final = "upstream-gone"
LOST: Final = ("repository", "commit", "revision", "access")


@dataclass(frozen=True, slots=True)
class Changed:
    """A branch or tag that `artifact` was mirrored from stands for another commit now, `successor`; the bytes here do
    not change."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    successor: str
    at: int


@dataclass(frozen=True, slots=True)
class Gone:
    """What `artifact` was mirrored from is given out no more: repository, commit, branch or tag, access (`LOST`)."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    lost: str
    at: int


def sign_changed(changed: Changed, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": changed.upstream.to_json(), "now": changed.successor, "at": changed.at}
    return _signed(_about(CHANGED, changed, body), parse_changed, online)


def sign_gone(gone: Gone, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": gone.upstream.to_json(), "lost": gone.lost, "at": gone.at}
    return _signed(_about(GONE, gone, body), parse_gone, online)


def parse_changed(statement: Statement) -> Changed:
    """Raises Malformed."""
    by, fields = author(statement, CHANGED), statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    made = Changed(
        by, upstream, statement.sole_subject(), check_commit(fields.text("now", most=40)), fields.integer("at")
    )
    fields.done()
    _require_name(statement, upstream)
    if made.successor == upstream.commit:
        raise Malformed(f"{CHANGED} is malformed", why="it names the same commit twice")
    return made


def parse_gone(statement: Statement) -> Gone:
    """Raises Malformed."""
    by, fields = author(statement, GONE), statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    made = Gone(by, upstream, statement.sole_subject(), fields.choice("lost", LOST), fields.integer("at"))
    fields.done()
    _require_name(statement, upstream)
    return made


def _signed(statement: Statement, reader: Callable[[Statement], object], online: Signer) -> Entry:
    reader(statement)
    return sign_statement(statement, online)


def _about(predicate: str, said: Changed | Gone, body: dict[str, Json]) -> Statement:
    return Statement(predicate, (Subject(said.upstream.name, said.artifact),), Author("node", said.by), body)


def _require_name(statement: Statement, upstream: Upstream) -> None:
    if statement.subjects[0].name != upstream.name or not upstream.endpoint:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject must bear the commit's name")


def author(statement: Statement, predicate: str) -> Digest:
    if statement.predicate != predicate or statement.by is None or statement.by.kind != "node":
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a node")
    return statement.by.id
