"""Folders and files are matched with artifacts by manifests alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.wire.files import file_reference
from comity_client.identify.disk import DiskFile
from comity_client.identify.match import ALIKE, MatchedFiles, cover, match, within_folders
from hypothesis import given
from hypothesis import strategies as st

BIG = b"weights" * 100
FILES = {"config.json": b"{}", "model.bin": BIG, "sub/card.md": b"card"}


def manifest(files: Mapping[str, bytes]) -> Manifest:
    return Manifest.of(FileEntry(path, len(data), sha256(data)) for path, data in files.items())


def disk(files: Mapping[str, bytes]) -> list[DiskFile]:
    """Files with these contents; equal ones are not one file."""
    return [
        DiskFile(Path(path), len(data), sha256(data), identity=(1, number))
        for number, (path, data) in enumerate(files.items())
    ]


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{path}": data for path, data in files.items()}


def matched(files: Mapping[str, bytes], *artifacts: Mapping[str, bytes]) -> MatchedFiles:
    manifests = [manifest(each) for each in artifacts]
    return match(disk(files), {each.digest: each for each in manifests})


def test_a_complete_folder_is_found_wherever_it_lies() -> None:
    for folder in ("/x", "x/models--a--b/snapshots/1f", "."):
        found = matched(below(folder, FILES), FILES)
        (only,) = found.folders
        assert (only.folder, only.artifact, only.state) == (Path(folder), manifest(FILES).digest, "complete")
        assert (found.files, found.unknown, only.complete) == ((), (), True)


def test_missing_changed_and_further_files_are_named() -> None:
    here = below("/m", {"model.bin": BIG, "config.json": b"other", "new.txt": b"new", ".git/HEAD": b"x"})
    found = matched(here, FILES)
    (only,) = found.folders
    assert (only.missing, only.changed, only.extra) == (("sub/card.md",), ("config.json",), ("new.txt",))
    assert (only.state, only.present, only.files) == ("changed", 1, 3)
    assert {each.path.name for each in found.unknown} == {"config.json", "new.txt", "HEAD"}
    assert [each.state for each in matched(below("/m", {"model.bin": BIG}), FILES).folders] == ["partial"]
    with_more = matched(below("/m", {**FILES, "more": b"more"}), FILES)
    assert [each.state for each in with_more.folders] == ["complete, with other files"]


def test_a_file_in_another_place_is_named_with_its_path() -> None:
    found = matched({"/store/blobs/sha256-ab": BIG, "/store/x": b"x"}, FILES)
    assert [(str(each.file.path), each.path) for each in found.files] == [("/store/blobs/sha256-ab", "model.bin")]
    assert [str(each.path) for each in found.unknown] == ["/store/x"]


def test_a_small_file_of_a_large_artifact_makes_no_folder() -> None:
    found = matched({"/home/config.json": b"{}"}, FILES)
    assert not found.folders
    assert [each.path for each in found.files] == ["config.json"]


def test_files_that_are_the_same_on_the_disk_are_reported_once() -> None:
    file = DiskFile(Path("/c/snapshots/1/model.bin"), len(BIG), sha256(BIG), identity=(1, 7))
    blob = DiskFile(Path("/c/blobs/ab"), len(BIG), sha256(BIG), identity=(1, 7))
    only = manifest({"model.bin": BIG})
    found = match([blob, file], {only.digest: only})
    assert (len(found.folders), found.files, found.unknown) == (1, (), ())


def test_of_several_artifacts_a_folder_is_the_one_that_it_fits() -> None:
    later = {**FILES, "model-2.bin": b"two"}
    found = matched(below("/m", FILES), later, FILES)
    assert [each.artifact for each in found.folders] == [manifest(FILES).digest]
    assert found.others == {}
    both = matched(below("/m", later), FILES, later)
    assert [each.artifact for each in both.folders] == [manifest(later).digest]
    assert both.others == {Path("/m"): (manifest(FILES).digest,)}


def test_folders_within_a_folder_are_found() -> None:
    inner = {"adapter.bin": b"adapter" * 9, "adapter.json": b"[]"}
    found = matched({**below("/m", FILES), **below("/m/lora", inner)}, FILES, inner)
    assert {str(each.folder) for each in found.folders} == {"/m", "/m/lora"}
    assert not found.unknown


def test_a_file_is_in_one_folder_where_several_artifacts_have_it_at_different_depths() -> None:
    found = matched({"/m/sub/model.bin": BIG}, {"sub/model.bin": BIG}, {"model.bin": BIG})
    assert len(found.folders) == 1 and (found.files, found.unknown) == ((), ())


def test_a_folder_may_be_exactly_an_artifact_of_which_another_one_has_all_files() -> None:
    more = {**FILES, "README.md": b"more", "sub/notes": b"notes"}
    here = {**below("/a/less", FILES), **below("/b/more", more), **below("/c", {"config.json": b"{}"})}
    candidates = {
        made.digest: frozenset(file_reference(entry.sha256) for entry in made.files)
        for made in map(manifest, (more, FILES, {"config.json": b"{}", "other": b"not here"}))
    }
    known = {file_reference(each.sha256 or Digest("")) for each in disk(here)}
    claimed = {artifact: references & known for artifact, references in candidates.items()}
    assert cover(claimed) == [manifest(more).digest]
    chosen = within_folders(claimed, disk(here))
    assert set(chosen) == set(claimed)  # the third one may be all of /c, as far as claims say
    found = match(disk(here), {each.digest: each for each in map(manifest, (more, FILES))})
    assert {each.folder: each.artifact for each in found.folders if each.complete} == {
        Path("/a/less"): manifest(FILES).digest,
        Path("/b/more"): manifest(more).digest,
    }


@given(st.lists(st.tuples(st.integers(0, 5), st.frozensets(st.integers(1, 9), min_size=1)), min_size=1, max_size=12))
def test_each_folder_that_is_all_of_an_artifact_has_it_looked_at(made: list[tuple[int, frozenset[int]]]) -> None:
    """Artifacts that lie whole in folders of their own; some folders have the files of several."""
    files = [
        DiskFile(Path(f"/{folder}/{data}"), 1, sha256(b"%d" % data), identity=(folder, data))
        for folder, some in made
        for data in some
    ]
    claimed = {
        sha256(repr(sorted(some)).encode()): frozenset(file_reference(sha256(b"%d" % each)) for each in some)
        for _, some in made
    }
    here = {folder: frozenset().union(*(some for each, some in made if each == folder)) for folder, _ in made}
    chosen = within_folders(claimed, files)
    for folder, some in made:
        if here[folder] == some:
            assert sha256(repr(sorted(some)).encode()) in chosen


def test_an_empty_file_is_neither_unknown_nor_of_anything() -> None:
    found = matched({"/x/empty": b""}, FILES)
    assert (found.folders, found.files, found.unknown) == ((), (), ())


REFERENCES = st.frozensets(st.integers(0, 9).map(lambda number: bytes([number])), max_size=6)


@given(st.lists(REFERENCES, max_size=12))
def test_a_cover_has_every_reference_and_no_artifact_for_nothing(sets: list[frozenset[bytes]]) -> None:
    candidates = {sha256(b"%d" % number): references for number, references in enumerate(sets)}
    chosen = cover(candidates)
    left = set[bytes]().union(*sets)
    seen = set[frozenset[bytes]]()
    for artifact in chosen:
        references = candidates[artifact]
        if references in seen:
            continue  # another one with the same references
        best = max(len(each & left) for each in sets)
        assert len(references & left) == best > 0
        left -= references
        seen.add(references)
    assert not left


def test_artifacts_with_the_same_files_are_looked_at_too_the_first_ones() -> None:
    artifacts = [Digest(f"{number:064x}") for number in range(ALIKE + 9)]
    candidates = dict.fromkeys(artifacts, frozenset({b"a", b"b"}))
    assert cover(candidates) == artifacts[: ALIKE + 1]
