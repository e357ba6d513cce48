"""What surrounds the two readings: drafts, consents, leaving, and a node's word that it took up an epoch.

    draft       a member puts a body forward; the body is a side object, and `text` says why
    consented   a member that has no vote yet agrees to its seat in exactly this body; a founder to a genesis
    left        a member asks to be left out of the next body; n changes only when a charter says so
    adopted     a node (its online key) acts under this body from here on

None of them decides anything but `consented`, for the one who signs it. Source: protocol, sections 5, 7.3 and 7.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.charter.body import Body
from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

DRAFT: Final = "draft"
CONSENTED: Final = "consented"
LEFT: Final = "left"
ADOPTED: Final = "adopted"
MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Named:
    """The body that one of these statements is about, and who says so: a member, or a node where it is `adopted`."""

    predicate: str
    by: Digest
    federation: Digest
    prev: Digest | None
    body: Digest
    text: str = ""


def draft_statement(body: Body, member: Digest, text: str) -> Statement:
    """Put `body` forward; `text` (at most 4,000 characters) tells the other members why."""
    return _statement(DRAFT, body, Author("identity", member), {"text": text})


def consent_statement(body: Body, member: Digest) -> Statement:
    """Agree to exactly `body`; what is signed, where the signers are not in one place."""
    return _statement(CONSENTED, body, Author("identity", member))


def consent(body: Body, member: Digest, *signers: Signer) -> Entry:
    """A member's `consented`. A new seat consents with *all* its keys, a founder with its threshold."""
    return sign_statement(consent_statement(body, member), *signers)


def left_statement(body: Body, member: Digest, text: str = "") -> Statement:
    """Ask to be left out of the body after `body`, the current one."""
    return _statement(LEFT, body, Author("identity", member), {"text": text})


def adopted_statement(body: Body, node: Digest) -> Statement:
    """A node's word, under its online key (its id is `node`), that it acts under `body`."""
    return _statement(ADOPTED, body, Author("node", node))


def read_named(entry: Entry) -> Named:
    """What a `draft`, `consented`, `left` or `adopted` says; nothing is proven. Raises Malformed."""
    statement = entry.statement
    if statement.predicate not in (DRAFT, CONSENTED, LEFT, ADOPTED) or statement.by is None:
        raise Malformed("not about a charter", why=f"a statement of type {statement.predicate[:60]!r}")
    if statement.by.kind != ("node" if statement.predicate == ADOPTED else "identity"):
        raise Malformed(f"{statement.predicate} is malformed", why=f"a {statement.by.kind} cannot say it")
    fields = statement.fields()
    prev, texted = fields.take("prev"), statement.predicate in (DRAFT, LEFT)
    named = Named(
        predicate=statement.predicate,
        by=statement.by.id,
        federation=fields.digest("federation"),
        prev=None if prev is None else bare_digest(prev),
        body=fields.digest("body"),
        text=fields.text("text", least=0, most=MAX_TEXT, lines=True) if texted else "",
    )
    fields.done()
    if statement.sole_subject() != named.body:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject is another body")
    if [item.digest for item in statement.objects] != [named.body]:
        raise Malformed(f"{statement.predicate} is malformed", why="its one side object is the body, and nothing else")
    return named


def _statement(predicate: str, body: Body, by: Author, more: dict[str, Json] | None = None) -> Statement:
    return Statement(
        predicate,
        (Subject("charter", body.digest),),
        by,
        {"federation": body.federation, "prev": body.prev, "body": body.digest, **(more or {})},
        (SideObject.of(body.data),),
    )
