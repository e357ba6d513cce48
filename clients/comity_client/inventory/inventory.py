"""The inventory of a machine, as a file: every file with its digest, and what it is of, and what a policy said of that.

The file is JSON with an item on each line, in a fixed order, so that two of them differ only where the disks or the
verdicts do. It is data from a disk: it is bounded, and refused with a reason, before anything is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Final

from comity.bounded_file import read_bounded
from comity.trust.codec import ABSENT, JsonItems, JsonNumber, JsonObject, JsonText, JsonTime, JsonWord
from comity.trust.encoding import Digest, Json, canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statements import ADVISORIES, SEVERITIES

SCHEMA: Final = "comity.dev/inventory/v1"
MAX_BYTES: Final = 512 * 1024 * 1024
MAX_FILES: Final = 2_000_000
MAX_ARTIFACTS: Final = 100_000
MAX_LISTED: Final = 1_000
"""Items of a list about one artifact or one folder, and of differences that were not delivered."""
MAX_PATH: Final = 32 * 1024
"""Characters of a path: those that cannot be printed are escaped."""
MAX_LINE: Final = 4096
MAX_MACHINE: Final = 255
VERDICTS: Final = ("accepted", "refused", "not judged")
STATES: Final = ("complete", "complete, with other files", "partial", "changed")
KNOWN: Final = ("artifact", "unknown", "unsure", "archive", "empty")
_OF_KNOWN: Final = "unsure: nothing was found, and nodes said not all; archive: what it has or names is listed."
KINDS: Final = ("warned", "verdict", "changed", "new", "gone", "answer", "unread")
"""Of differences, in the order in which they are told."""


@frozen
class InventoryWarning(JsonObject):
    """An advisory about an artifact."""

    kind: Annotated[str, JsonWord(ADVISORIES)]
    severity: Annotated[str, JsonWord(SEVERITIES)]
    by: Digest
    by_publisher: Annotated[bool, "Whether the publisher of the artifact gave it."]
    text: Annotated[str, JsonText(MAX_LINE, 0)]


@frozen
class InventoryArtifact(JsonObject):
    """An artifact that files on the machine are of, and what the policy said of it."""

    artifact: Digest
    title: Annotated[str, JsonText(MAX_LINE), "Its name and version, or its digest."]
    verdict: Annotated[str, JsonWord(VERDICTS)]
    why: Annotated[str, JsonText(MAX_LINE, 0), "Why it is not accepted."]
    exit_status: Annotated[int, JsonNumber(0, 255)]
    advisories: Annotated[tuple[InventoryWarning, ...], JsonItems(MAX_LISTED)]


@frozen
class InventoryFolder(JsonObject):
    """A folder with files of an artifact at their paths; lists of paths below it have at most 1,000 items."""

    path: Annotated[str, JsonText(MAX_PATH)]
    artifact: Digest
    state: Annotated[str, JsonWord(STATES)]
    present: Annotated[int, JsonNumber(), "Files of the artifact that are there."]
    files: Annotated[int, JsonNumber(), "Files of the artifact."]
    missing: Annotated[tuple[str, ...], JsonItems(MAX_LISTED, of=JsonText(MAX_PATH))]
    changed: Annotated[tuple[str, ...], JsonItems(MAX_LISTED, of=JsonText(MAX_PATH))]
    extra: Annotated[tuple[str, ...], JsonItems(MAX_LISTED, of=JsonText(MAX_PATH))]
    or_any_of: Annotated[tuple[Digest, ...], JsonItems(MAX_LISTED), "Other artifacts whose files are all there."]
    since: Annotated[int, JsonTime(), "The first of these inventories with the artifact there."]
    stored_as: Annotated[str | None, JsonText(MAX_LINE), ABSENT, "What a store, such as a Hub cache, calls it."] = None


@frozen
class InventoryFile(JsonObject):
    """A file, or one in an archive. `artifact` and `named` are there where it is of an artifact, and not in a folder of
    that; of a file with several paths at one of them."""

    path: Annotated[str, JsonText(MAX_PATH)]
    sha256: Digest
    size: int
    known: Annotated[str, JsonWord(KNOWN), _OF_KNOWN]
    since: Annotated[int, JsonTime(), "The first of these inventories with these bytes there."]
    artifact: Annotated[Digest | None, ABSENT] = None
    named: Annotated[str | None, JsonText(MAX_PATH), ABSENT, "Its path in the artifact."] = None


@frozen
class UnreadPath(JsonObject):
    """What was not read, and why. Of a folder, nothing below it was."""

    path: Annotated[str, JsonText(MAX_PATH)]
    problem: Annotated[str, JsonText(MAX_LINE, 0)]


@frozen
class InventoryNode(JsonObject):
    """A node that was asked, and whether it says that it left nothing out."""

    name: Annotated[str, JsonText(MAX_LINE)]
    said_all: bool


@frozen
class InventoryDifference(JsonObject):
    """What is different from the inventory before: one of something."""

    kind: Annotated[str, JsonWord(KINDS)]
    path: Annotated[str, JsonText(MAX_PATH), "Where it is; of an artifact in several places, the first one."]
    text: Annotated[str, JsonText(MAX_LINE, 0)]
    artifact: Annotated[Digest | None, ABSENT] = None


@frozen
class Inventory(JsonObject):
    """What lies at some paths of a machine. All lists are sorted. Paths are absolute, with what cannot be printed
    escaped.

    Attributes:
        machine: its name.
        taken: POSIX seconds.
        paths: where was looked, and below.
        policy: the SHA-256 of the policy; None if nothing was judged.
        undelivered: differences that the receiver of notifications did not take yet.
    """

    constants: ClassVar = {"schema": SCHEMA}
    machine: Annotated[str, JsonText(MAX_MACHINE)]
    taken: Annotated[int, JsonTime()]
    paths: Annotated[tuple[str, ...], JsonItems(MAX_LISTED, of=JsonText(MAX_PATH))]
    policy: Digest | None
    artifacts: Annotated[tuple[InventoryArtifact, ...], JsonItems(MAX_ARTIFACTS)] = ()
    folders: Annotated[tuple[InventoryFolder, ...], JsonItems(MAX_FILES)] = ()
    files: Annotated[tuple[InventoryFile, ...], JsonItems(MAX_FILES)] = ()
    unread: Annotated[tuple[UnreadPath, ...], JsonItems(MAX_FILES)] = ()
    nodes: Annotated[tuple[InventoryNode, ...], JsonItems(MAX_LISTED)] = ()
    undelivered: Annotated[tuple[InventoryDifference, ...], JsonItems(MAX_LISTED)] = ()

    def encode(self) -> bytes:
        """The file. Raises Malformed (INVENTORY) if it would be too large to be read again."""
        members = {name: _member(value) for name, value in replace(self, files=()).to_json().items()}
        members["files"] = _lines(each.to_json() for each in self.files)  # one at a time: there may be a million
        data = ("{\n" + ",\n".join(f'"{name}": {text}' for name, text in sorted(members.items())) + "\n}\n").encode()
        if len(data) > MAX_BYTES or len(self.files) > MAX_FILES or len(self.unread) > MAX_FILES:
            why = f"{len(self.files)} files; at most {MAX_FILES} and {MAX_BYTES} bytes are allowed"
            raise Malformed("too much for one inventory", why=why, hint="name fewer paths", code="INVENTORY")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Inventory:
        """Raises Malformed."""
        return cls.from_json(parse_json(data, limit=MAX_BYTES, what="inventory"))


def _member(value: Json) -> str:
    return _lines(value) if isinstance(value, list) else canonical(value).decode()


def _lines(items: Iterable[Json]) -> str:
    """A list with an item on each line."""
    text = ",\n".join(canonical(each).decode() for each in items)
    return f"[\n{text}\n]" if text else "[]"


def read_inventory(path: Path) -> Inventory:
    """Blocking. Raises NotFound, Unavailable, Malformed (INVENTORY)."""
    try:
        return Inventory.parse(read_bounded(path, MAX_BYTES))
    except Malformed as error:
        hint = "move it away, and take the inventory again"
        raise Malformed(f"{path} is no inventory", why=str(error), hint=hint, code="INVENTORY") from error
