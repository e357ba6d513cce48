"""What is different between two inventories: bytes by bytes, one line for each change, and in no order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from comity.trust.encoding import sha256
from comity_client.inventory.differences import differences, urgent
from comity_client.inventory.inventory import (
    Inventory,
    InventoryArtifact,
    InventoryFile,
    InventoryFolder,
    UnreadPath,
)
from hypothesis import given, settings
from support.examples import examples
from support.inventories import NOW, TINY, YANKED, a_file, a_folder, an_artifact, inventories

MODEL = [a_file(f"/srv/m/{name}", known="artifact") for name in "abc"]
ONE = a_file("/srv/notes", b"1")


def taken(
    files: Sequence[InventoryFile],
    folders: Sequence[InventoryFolder] = (),
    artifacts: Sequence[InventoryArtifact] = (),
    unread: Sequence[UnreadPath] = (),
    paths: Sequence[str] = ("/srv",),
) -> Inventory:
    return Inventory("m", NOW, tuple(paths), None, tuple(artifacts), tuple(folders), tuple(files), unread=tuple(unread))


def told(before: Inventory | None, now: Inventory) -> list[tuple[str, str, str]]:
    return [(each.kind, each.path, each.text) for each in differences(before, now)]


WITH_MODEL = taken([*MODEL, ONE], [a_folder("/srv/m")], [an_artifact()])
TITLE = WITH_MODEL.artifacts[0].title


@given(inventories())
@settings(max_examples=examples(100))
def test_nothing_is_different_from_itself(made: Inventory) -> None:
    assert differences(made, made) == ()


@given(inventories(), inventories())
@settings(max_examples=examples(200))
def test_the_order_of_the_files_does_not_matter_and_no_path_is_told_twice(one: Inventory, two: Inventory) -> None:
    found = differences(one, two)
    turned = replace(two, files=two.files[::-1], folders=two.folders[::-1], artifacts=two.artifacts[::-1])
    assert differences(one, turned) == found
    places = [each.path for each in found if each.kind in ("new", "gone", "changed", "answer")]
    assert len(places) == len(set(places))


@given(inventories(), inventories())
@settings(max_examples=examples(200))
def test_each_changed_byte_is_told_and_nothing_else_is(one: Inventory, two: Inventory) -> None:
    """Each file whose bytes differ is at or below a difference, and where no bytes differ nothing is new or gone."""
    was, has = ({each.path: each.sha256 for each in made.files} for made in (one, two))
    found = [each for each in differences(one, two) if each.kind in ("new", "gone", "changed", "unread")]
    differing = {path for path in was.keys() | has.keys() if was.get(path) != has.get(path)}
    for path in differing:
        assert any(path == each.path or path.startswith(f"{each.path.rstrip('/')}/") for each in found)
    if not differing:
        assert found == []


def test_a_folder_of_an_artifact_is_one_line_whatever_happened_there() -> None:
    without = taken([ONE])
    assert told(without, WITH_MODEL) == [("new", "/srv/m", f"{TITLE}, complete")]
    assert told(WITH_MODEL, without) == [("gone", "/srv/m", f"{TITLE}, complete")]
    other = [a_file("/srv/m/a", b"other"), MODEL[1], *(a_file(f"/srv/m/{n}") for n in "vwxyz"), ONE]
    now = taken(other, [a_folder("/srv/m", state="changed")], [an_artifact()])
    text = f"other bytes: a; new: v, w, x and 2 more; gone: c; {TITLE}, changed"
    assert told(WITH_MODEL, now) == [("changed", "/srv/m", text)]


def test_a_file_is_one_line() -> None:
    nothing = taken([])
    other = taken([a_file("/srv/notes", b"2")])
    assert told(nothing, taken([ONE])) == [("new", "/srv/notes", "no node knows it")]
    assert told(taken([ONE]), nothing) == [("gone", "/srv/notes", "no node knows it")]
    assert told(taken([ONE]), other) == [("changed", "/srv/notes", "other bytes; no node knows it")]


def test_a_moved_folder_is_gone_and_new() -> None:
    moved = [replace(each, path=each.path.replace("/srv/m", "/srv/n")) for each in MODEL]
    now = taken([*moved, ONE], [a_folder("/srv/n")], [an_artifact()])
    assert [(kind, path) for kind, path, _ in told(WITH_MODEL, now)] == [("new", "/srv/n"), ("gone", "/srv/m")]


def test_nodes_that_say_less_make_nothing_new_or_gone() -> None:
    silent = taken([*(replace(each, known="unsure") for each in MODEL), replace(ONE, known="unsure")])
    assert told(WITH_MODEL, silent) == [
        ("answer", "/srv/m", f"not found, and nodes said not all; before: {TITLE}, complete")
    ]
    assert [kind for kind, _, _ in told(silent, WITH_MODEL)] == ["answer"]


def test_what_was_not_read_or_not_looked_at_is_not_gone() -> None:
    refused = taken([], unread=[UnreadPath("/srv", "Permission denied")])
    assert told(WITH_MODEL, refused) == [("unread", "/srv", "Permission denied; 4 of the files before")]
    one = taken(MODEL[:2], unread=[UnreadPath("/srv/m/c", "Input/output error")], paths=("/srv/m",))
    assert told(WITH_MODEL, replace(one, folders=WITH_MODEL.folders)) == [
        ("unread", "/srv/m", "Input/output error; 1 of the files before"),
        ("unread", "/srv/notes", "not looked at this time; 1 of the files before"),
    ]


def test_an_advisory_since_then_is_told_once_and_with_its_author() -> None:
    warned = replace(WITH_MODEL, artifacts=(an_artifact("accepted", YANKED),))
    text = f"{TITLE}: yank (high) by its publisher: wrong tokenizer"
    assert told(WITH_MODEL, warned) == told(None, warned) == [("warned", "/srv/m", text)]
    assert told(warned, warned) == []
    stranger = replace(YANKED, by=sha256(b"stranger"), by_publisher=False)
    both = replace(WITH_MODEL, artifacts=(an_artifact("accepted", YANKED, stranger),))
    ((kind, _, said),) = told(warned, both)
    assert kind == "warned" and f"by {stranger.by[:12]}" in said


def test_an_advisory_about_an_artifact_in_several_places_is_one_line() -> None:
    copy = a_file("/srv/copy", known="artifact", artifact=TINY, named="a")
    now = taken([*MODEL, copy], [a_folder("/srv/m")], [an_artifact("accepted", YANKED)])
    ((_, path, text),) = told(None, now)
    assert path == "/srv/m" and text.endswith("; also in 1 other places")


@pytest.mark.parametrize(
    ("before", "now", "worse"),
    [("accepted", "refused", True), ("refused", "accepted", False), ("accepted", "not judged", True)],
)
def test_another_verdict_is_told_and_is_urgent_where_it_is_worse(before: str, now: str, worse: bool) -> None:
    old, new = (replace(WITH_MODEL, artifacts=(an_artifact(said),)) for said in (before, now))
    (found,) = differences(old, new)
    assert (found.kind, found.path, found.artifact) == ("verdict", "/srv/m", TINY)
    assert f"{now}, before {before}" in found.text
    assert bool(urgent([found], new)) == worse


def test_a_new_artifact_that_is_not_accepted_is_urgent_and_one_that_is_accepted_is_not() -> None:
    bad = replace(WITH_MODEL, artifacts=(an_artifact("refused"),))
    found = differences(taken([ONE]), bad)
    assert [each.kind for each in found] == ["verdict", "new"]
    assert [each.kind for each in urgent(found, bad)] == ["verdict"]
    assert urgent(differences(taken([ONE]), WITH_MODEL), WITH_MODEL) == ()


def test_a_folder_with_other_bytes_than_its_artifact_is_urgent_from_the_first_time_on() -> None:
    altered = taken([a_file("/srv/m/a", b"other"), *MODEL[1:]], [a_folder("/srv/m", state="changed")], [an_artifact()])
    for before in (None, taken([]), WITH_MODEL):
        found = [each for each in urgent(differences(before, altered), altered) if each.path == "/srv/m"]
        assert len(found) == 1 and f"{TITLE}, changed" in found[0].text
    assert differences(altered, altered) == ()


def test_an_inventory_that_contradicts_itself_is_compared() -> None:
    strange = taken([], [a_folder("/srv/m")])
    assert [kind for kind, _, _ in told(strange, WITH_MODEL)] == ["new", "new"]
    assert [kind for kind, _, _ in told(WITH_MODEL, strange)] == ["gone", "gone"]
