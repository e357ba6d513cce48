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
from comity.trust.encoding import Json, parse_decimal
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statements.node_record import NodeRecord
from comity.trust.tlog.note import check_name

KEY_COMPROMISE: Final = "key-compromise"
ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", KEY_COMPROMISE)
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
class Compromise:
    """The key (the SHA-256 of its JSON) that was in other hands from entry `index` of the log `origin` on."""

    key: Digest
    origin: str
    index: int


@dataclass(frozen=True, slots=True)
class Advisory:
    """A logged warning about `artifact`; with `compromise`, about the keys of the identity that `artifact` names."""

    by: Author
    artifact: Digest
    kind: str
    severity: str
    text: str
    compromise: Compromise | None = None


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
    if manifest.digest != artifact or {manifest, pieces} != set(statement.objects):
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
    body: dict[str, Json] = {"kind": advisory.kind, "severity": advisory.severity, "text": advisory.text}
    if advisory.compromise is not None:
        since: dict[str, Json] = {"origin": advisory.compromise.origin, "index": advisory.compromise.index}
        body |= {"key": advisory.compromise.key, "since": since}
    statement = Statement("advisory", (Subject("", advisory.artifact),), advisory.by, body)
    parse_advisory(statement)
    return sign_statement(statement, *signers)


def parse_advisory(statement: Statement) -> Advisory:
    """Raises Malformed."""
    if statement.predicate != "advisory" or statement.by is None:
        raise Malformed("advisory is malformed", why="not an advisory statement")
    fields = statement.fields()
    kind, severity = fields.choice("kind", ADVISORIES), fields.choice("severity", SEVERITIES)
    text = fields.text("text", least=0, most=4000, lines=True)
    compromise = _compromise(fields) if kind == KEY_COMPROMISE and fields.has("key") else None
    fields.done()
    return Advisory(statement.by, statement.sole_subject(), kind, severity, text, compromise)


def _compromise(fields: Fields) -> Compromise:
    key, since = fields.digest("key"), fields.object("since")
    made = Compromise(key, since.text("origin", most=255), since.integer("index"))
    since.done()
    check_name(made.origin)
    return made


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
