"""Digests and ids as users type them: all digits, the spelled form, or enough digits to know which one is meant.

    9f2c…            64 hex digits, also behind `sha256:`
    MFZWI3D-…        the spelled form of an id, with its check digits (`format_id`)
    9f2c41d0         at least 8 of its first hex digits
    9f2c41…e01a      its first and last digits, as commands show a digest

An abbreviation is looked up among known ids; it is refused if several match. Anybody can make an id or an artifact
whose digest begins with 8 given digits, so an abbreviation is for people at a terminal and never for a policy of
unknown publishers: what it stands for is always shown in full.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Digest, bare_digest, format_id
from comity.trust.errors import Malformed, NotFound

MIN_DIGITS: Final = 8
"""Hex digits of an abbreviation."""
SHOWN: Final = 8
"""Candidates that an error lists."""
_PREFIX: Final = "sha256:"
_PARTIAL: Final = re.compile(r"([0-9a-f]{1,64})(?:(?:…|\.\.\.)([0-9a-f]{0,64}))?\Z")
_SPELLED: Final = re.compile(r"[A-Z2-7]{7}(?:-?[A-Z2-7]{7}){7}\Z")


def parse_id(text: str) -> Digest:
    """Parse a digest or an id with all its digits: hex, behind `sha256:` or not, or the spelled form. Raises Malformed
    (BAD-ID)."""
    spelled = text.strip().upper()
    if _SPELLED.match(spelled):
        return _unspelled(spelled.replace("-", ""), text)
    try:
        return bare_digest(text.strip().lower().removeprefix(_PREFIX))
    except Malformed as error:
        raise _no_id(text, "expected 64 hex digits, or the spelled form") from error


def _unspelled(digits: str, text: str) -> Digest:
    found = Digest(base64.b32decode(f"{digits[:52]}====").hex())
    if format_id(found).replace("-", "") != digits:
        raise _no_id(text, "its check digits do not match: at least one digit is wrong")
    return found


@dataclass(frozen=True, slots=True)
class Abbreviation:
    """The first hex digits of a digest, and its last ones if they were given."""

    head: str
    tail: str = ""

    @classmethod
    def parse(cls, text: str) -> Abbreviation | None:
        """Return the abbreviation; None if the text is not made of hex digits, or has all of them. Raises Malformed
        (BAD-ID) for too few digits."""
        found = _PARTIAL.match(text.strip().lower().removeprefix(_PREFIX))
        if found is None or len(found[1]) == 64:
            return None
        head, tail = found[1], found[2] or ""
        if len(head) + len(tail) < MIN_DIGITS:
            raise _no_id(text, f"{len(head) + len(tail)} digits; at least {MIN_DIGITS} are needed")
        return cls(head, tail)

    def matches(self, digest: str) -> bool:
        return digest.startswith(self.head) and digest.endswith(self.tail)

    @property
    def text(self) -> str:
        return f"{self.head}…{self.tail}"


def find_id(text: str, known: Mapping[Digest, str], what: str, hint: str) -> Digest:
    """Return the id that the text gives in full, or the only one of `known` that it abbreviates.

    Args:
        known: the candidates, each with the label under which an error lists it.
        what: what the id is of, for errors: `publisher`.
        hint: where ids are listed, for errors.

    Raises Malformed (BAD-ID, AMBIGUOUS-ID), NotFound (UNKNOWN-ID).
    """
    abbreviation = Abbreviation.parse(text)
    if abbreviation is None:
        return parse_id(text)
    found = {digest: label for digest, label in known.items() if abbreviation.matches(digest)}
    if not found:
        why = f"{len(known)} {what} ids are known here, and none begins like this"
        raise NotFound(f"no {what} {abbreviation.text!r}", why=why, hint=hint, code="UNKNOWN-ID")
    if len(found) > 1:
        raise ambiguous(abbreviation, found, what)
    return next(iter(found))


def is_meant(text: str, digest: str) -> bool:
    """Whether the text gives this digest, or abbreviates it. False for text that is no digest."""
    try:
        abbreviation = Abbreviation.parse(text)
        return abbreviation.matches(digest) if abbreviation else parse_id(text) == digest
    except Malformed:
        return False


def ambiguous(abbreviation: Abbreviation, found: Mapping[Digest, str], what: str) -> Malformed:
    """Return the error that lists the candidates of an abbreviation."""
    listed = "; ".join(f"{digest} {label}".strip() for digest, label in sorted(found.items())[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Malformed(
        f"{abbreviation.text!r} is ambiguous",
        why=f"{len(found)} {what} ids match: {listed}{more}",
        hint="give more digits",
        code="AMBIGUOUS-ID",
    )


def _no_id(text: str, why: str) -> Malformed:
    return Malformed(f"{text[:80]!r} is no digest or id", why=why, hint="give all 64 hex digits", code="BAD-ID")
