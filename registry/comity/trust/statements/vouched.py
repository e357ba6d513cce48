"""`vouched`: somebody's word about an artifact's digest, beside its publisher's.

    {"statement":"rehashed","text":"on two machines","document":null}

    rehashed     its bytes were here, and hashed to the manifest; `comity vouch` logs it only after it did so
    evaluated    somebody measured what it does; the document holds the results
    reproduced   somebody made it again, from data and code; the document says how

The subject is the artifact. Whoever said it stands for it; nothing else follows. Source: protocol, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement

PREDICATE: Final = "vouched"
STATEMENTS: Final = ("rehashed", "evaluated", "reproduced")
MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Vouched:
    """What `by` says of `artifact`; `document` is a side object of the line."""

    by: Author
    artifact: Digest
    statement: str
    text: str = ""
    document: SideObject | None = None


def sign_vouched(vouched: Vouched, *signers: Signer) -> Entry:
    """Raises Malformed for what nobody would read."""
    body = {
        "statement": vouched.statement,
        "text": vouched.text,
        "document": vouched.document.to_json() if vouched.document else None,
    }
    objects = (vouched.document,) if vouched.document else ()
    statement = Statement(PREDICATE, (Subject("", vouched.artifact),), vouched.by, body, objects)
    parse_vouched(statement)
    return sign_statement(statement, *signers)


def parse_vouched(statement: Statement) -> Vouched:
    """Raises Malformed."""
    if statement.predicate != PREDICATE or statement.by is None:
        raise Malformed("vouched is malformed", why="not a vouched statement")
    fields = statement.fields()
    made = Vouched(
        by=statement.by,
        artifact=statement.sole_subject(),
        statement=fields.choice("statement", STATEMENTS),
        text=fields.text("text", least=0, most=MAX_TEXT, lines=True),
        document=_document(fields),
    )
    fields.done()
    if statement.objects != ((made.document,) if made.document else ()):
        raise Malformed("vouched is malformed", why="its side objects are its document, and nothing else")
    return made


def _document(fields: Fields) -> SideObject | None:
    value = fields.take("document")
    return None if value is None else SideObject.from_json(value)
