"""Smaller statements: what nodes say of their copies and addresses, and what anybody warns of.

    hold        a node: I keep a full verified copy
    addresses   a node: I listen here (hints, never trust)
    advisory    anybody: a warning beside an artifact; it deletes nothing and blocks nothing by itself

Readers here parse; whether the author is who they claim to be is decided by their record (`signed_by_node`) or
identity. Source: protocol, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import parse_decimal
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer
from comity.trust.node_record import NodeRecord
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", "key-compromise")
SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
STATE_SETTING: Final = ("yank", "superseded")
MAX_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Hold:
    """A node's claim to hold every byte of `artifact`, cut as `pieces` says."""

    by: Author
    artifact: Digest
    pieces: Digest


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a node says it listens, `host:port` each: `mutual` needs a known certificate, `open` serves anybody."""

    by: Author
    mutual: tuple[str, ...]
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advisory:
    """A logged warning about `artifact`."""

    by: Author
    artifact: Digest
    kind: str
    severity: str
    text: str


def sign_hold(record: NodeRecord, artifact: Digest, manifest: SideObject, pieces: SideObject, online: Signer) -> Entry:
    body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
    statement = Statement("hold", (Subject("", artifact),), record.node, body, (manifest, pieces))
    return sign_statement(statement, online)


def parse_hold(statement: Statement) -> Hold:
    """Raises Malformed."""
    by = _author(statement, "hold", "node")
    fields = statement.fields()
    manifest, pieces = SideObject.from_json(fields.take("manifest")), SideObject.from_json(fields.take("pieces"))
    fields.done()
    artifact = statement.sole_subject()
    if manifest.digest != artifact or {manifest, pieces} - set(statement.objects):
        raise Malformed("hold is malformed", why="its subject must be the digest of a manifest it carries")
    return Hold(by, artifact, pieces.digest)


def sign_addresses(record: NodeRecord, mutual: Sequence[str], open_: Sequence[str], online: Signer) -> Entry:
    body = {"mutual": list(mutual), "open": list(open_)}
    statement = Statement("addresses", (Subject(record.origin, record.node.id),), record.node, body)
    parse_addresses(statement)
    return sign_statement(statement, online)


def parse_addresses(statement: Statement) -> Addresses:
    """Raises Malformed."""
    by = _author(statement, "addresses", "node")
    fields = statement.fields()
    mutual, open_ = read_addresses(fields, "mutual"), read_addresses(fields, "open")
    fields.done()
    return Addresses(by, mutual, open_)


def read_addresses(fields: Fields, name: str) -> tuple[str, ...]:
    """The list of at most eight `host:port` called `name`. Raises Malformed."""
    return tuple(_address(item) for item in fields.items(name, most=MAX_ADDRESSES))


def sign_advisory(advisory: Advisory, *signers: Signer) -> Entry:
    body = {"kind": advisory.kind, "severity": advisory.severity, "text": advisory.text}
    statement = Statement("advisory", (Subject("", advisory.artifact),), advisory.by, body)
    parse_advisory(statement)
    return sign_statement(statement, *signers)


def parse_advisory(statement: Statement) -> Advisory:
    """Raises Malformed."""
    if statement.predicate != "advisory" or statement.by is None:
        raise Malformed("advisory is malformed", why="not an advisory statement")
    fields = statement.fields()
    kind, severity = fields.choice("kind", ADVISORIES), fields.choice("severity", SEVERITIES)
    advisory = Advisory(
        statement.by, statement.sole_subject(), kind, severity, fields.text("text", least=0, most=4000, lines=True)
    )
    fields.done()
    return advisory


def signed_by_node(entry: Entry, record: NodeRecord) -> bool:
    """Whether the entry is a statement of exactly this node, by its online key."""
    return entry.statement.by == record.node and entry.envelope.verified_by(record.online)


def _author(statement: Statement, predicate: str, kind: str) -> Author:
    if statement.predicate != predicate or statement.by is None or statement.by.kind != kind:
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a {kind}")
    return statement.by


def _address(item: object) -> str:
    if isinstance(item, str) and 3 <= len(item) <= 300 and item.isprintable() and " " not in item:
        host, _, port = item.rpartition(":")
        if host and parse_decimal(port, limit=65_535) > 0:
            return item
    raise Malformed("addresses are malformed", why="expected host:port")
