"""An inventory is made of what was identified: each file once, sorted, with names and texts of others escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comity.trust.encoding import Digest, sha256
from comity.trust.statement import Author
from comity.trust.statements import Advisory
from comity_client.events import Advised
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import Identified
from comity_client.identify.judging import KnownArtifact
from comity_client.identify.lookup import NodeAnswer
from comity_client.identify.match import FileOf, FolderOf, MatchedFiles
from comity_client.inventory.inventory import MAX_LISTED, Inventory
from comity_client.inventory.taking import TakenAt, make_inventory

TINY, PUBLISHER = sha256(b"tiny"), sha256(b"publisher")
AT = TakenAt("ward-3", 1_800_000_000, (Path("/srv"),))
IN, OUT, UNKNOWN, UNSURE, EMPTY = (
    DiskFile(Path("/srv", name), size, sha256(name.encode()), identity=(1, number))
    for number, (name, size) in enumerate({"m/a": 1, "copy": 2, "mine": 3, "other": 4, "empty": 0}.items())
)
BAD = DiskFile(Path("/srv/locked"), problem="Permission denied")
FILES = (IN, OUT, UNKNOWN, UNSURE, EMPTY, BAD)


def advised(kind: str, by: Digest, text: str = "a text") -> Advised:
    return Advised(Advisory(Author("identity", by), TINY, kind, "high", text), by == PUBLISHER)


def identified(*advisories: Advised) -> Identified:
    folder = FolderOf(Path("/srv/m"), TINY, 1, 2, ("b",))
    known = KnownArtifact(TINY, "swiss-ai/tiny@v1", "", None, "line one\nline two", 5, advisories)
    matched = MatchedFiles((folder,), (FileOf(OUT, TINY, "sub/b"),), (UNKNOWN,), {Path("/srv/m"): (sha256(b"alike"),)})
    return Identified(matched, {TINY: known}, (UNSURE,), (BAD,), (NodeAnswer("node-ch", unread=1),), 6, 10)


def made(*advisories: Advised, before: Inventory | None = None, at: TakenAt = AT) -> Inventory:
    return make_inventory(at, FILES, identified(*advisories), before)


def test_every_file_is_there_with_what_is_known_of_it() -> None:
    found = made()
    assert [(Path(each.path).name, each.known, each.named) for each in found.files] == [
        ("copy", "artifact", "sub/b"),
        ("empty", "empty", None),
        ("a", "artifact", None),
        ("mine", "unknown", None),
        ("other", "unsure", None),
    ]
    (folder,), (artifact,), (unread,), (node,) = found.folders, found.artifacts, found.unread, found.nodes
    assert (folder.path, folder.state, folder.missing, folder.or_any_of) == (
        "/srv/m", "partial", ("b",), (sha256(b"alike"),),
    )  # fmt: skip
    assert (artifact.verdict, artifact.why, artifact.exit_status) == ("not judged", "line one\\nline two", 5)
    assert (unread.path, unread.problem, node.said_all) == ("/srv/locked", "Permission denied", False)
    assert Inventory.parse(found.encode()) == found


def test_what_was_there_before_keeps_its_date() -> None:
    first, later = made(), replace(AT, time=AT.time + 86_400)
    again = made(before=first, at=later)
    assert {*(each.since for each in again.files), *(each.since for each in again.folders)} == {AT.time}
    other = replace(first, files=tuple(replace(each, sha256=PUBLISHER) for each in first.files), folders=())
    assert {each.since for each in made(before=other, at=later).files} == {later.time}


def test_a_file_with_several_paths_is_known_alike_at_each_and_an_archive_is_none_of_no_artifact() -> None:
    linked = replace(UNKNOWN, path=Path("/srv/link"))
    archive = DiskFile(Path("/srv/a.zip"), 5, sha256(b"zip"), identity=(1, 9), opened=True)
    found = make_inventory(AT, (*FILES, linked, archive), identified())
    known = {Path(each.path).name: each.known for each in found.files}
    assert (known["mine"], known["link"], known["a.zip"]) == ("unknown", "unknown", "archive")


def test_names_that_are_no_text_or_break_lines_are_escaped() -> None:
    strange = DiskFile(Path("/srv/a\n\udc80\u202e"), 1, TINY)
    found = make_inventory(AT, (strange,), identified())
    assert found.files[0].path == "/srv/a\\n\\udc80\\u202e"
    assert Inventory.parse(found.encode()) == found


def test_a_flood_of_warnings_leaves_out_none_of_the_publisher() -> None:
    strangers = [advised("malware", sha256(b"%d" % number)) for number in range(MAX_LISTED)]
    (artifact,) = made(*strangers, advised("yank", PUBLISHER)).artifacts
    assert len(artifact.advisories) == MAX_LISTED
    assert [each.kind for each in artifact.advisories if each.by_publisher] == ["yank"]
