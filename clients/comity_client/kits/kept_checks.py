"""The last check of each kit, kept in the home of this user: `kits/<digest of kit.json>.json`.

It is this user's own record of what was proven here, and when. A later check takes its place; when the kit passed last
stays beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.trust.codec import JsonItems, JsonObject, JsonText, JsonWord
from comity.trust.encoding import Digest, canonical, parse_canonical, printable
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen

from comity_client.home import Home
from comity_client.kits.check import CHECKS, FAILED, NOT_CHECKED, PARTIAL, PASSED, KitChecked

MAX_KEPT: Final = 64 * 1024
MAX_SUMMARY: Final = 1000


@frozen
class KeptRow(JsonObject):
    """A row of a check."""

    name: Annotated[str, JsonWord(CHECKS)]
    state: Annotated[str, JsonWord((PASSED, FAILED, NOT_CHECKED))]
    summary: Annotated[str, JsonText(MAX_SUMMARY)]


@frozen
class KeptCheck(JsonObject):
    """The last check of a kit.

    Attributes:
        kit: SHA-256 of its `kit.json`, which the manifest of its artifact lists.
        name: that the kit gives itself.
        at: when it was checked, in POSIX seconds.
        state: passed, failed, or partial: something could not be checked here.
        last_passed: when the same kit last passed here, in POSIX seconds; None if it never has.
    """

    constants: ClassVar = {"schema": "comity/kept-kit-check/v1"}
    kit: Digest
    name: str
    at: int
    state: Annotated[str, JsonWord((PASSED, FAILED, PARTIAL))]
    rows: Annotated[tuple[KeptRow, ...], JsonItems(len(CHECKS), 1)]
    last_passed: int | None


def last_check(home: Home, kit: Digest) -> KeptCheck | None:
    """The last check of the kit whose `kit.json` has this SHA-256; None if it was not checked here. Blocking. Raises
    Malformed (KIT-CHECK) if the record is damaged, Unavailable."""
    try:
        data = read_bounded(_file(home, kit), MAX_KEPT)
    except NotFound:
        return None
    try:
        kept = KeptCheck.from_json(parse_canonical(data, limit=MAX_KEPT, what="kept check"))
        if kept.kit != kit:
            raise Malformed("kept check is of another kit")
    except Malformed as error:
        hint = "comity kit check DIR"
        raise Malformed("the record of a check is damaged", why=str(error), hint=hint, code="KIT-CHECK") from error
    return kept


def keep_check(home: Home, checked: KitChecked) -> KeptCheck:
    """Keep what a check found, in the place of the one before. Blocking. Raises OutOfSpace, Unavailable."""
    try:
        before = last_check(home, checked.kit)
    except Malformed:
        before = None  # it says nothing any more
    rows = tuple(KeptRow(row.name, row.state, printable(row.summary)[:MAX_SUMMARY]) for row in checked.rows)
    passed = checked.at if checked.state == PASSED else before.last_passed if before else None
    kept = KeptCheck(checked.kit, checked.name, checked.at, checked.state, rows, passed)
    home.ensure(home.kits)
    durable.write_file(_file(home, kept.kit), canonical(kept.to_json()), point="kit")
    return kept


def _file(home: Home, kit: Digest) -> Path:
    return home.kits / f"{kit}.json"
