"""Folders that were downloaded by other programs: what their layout says, and what is refused.

The layouts are generated here; tests/integration/test_import_with_nodes.py imports those of real clients.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Untrusted
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import METADATA, MirrorResult, copy_folder, recognise_folder

COMMIT, OTHER = "1f" * 20, "2e" * 20
WEIGHTS, CARD = b"weights" * 1000, b"# Card\n"
NAMED = UpstreamRequest("org/name", COMMIT)


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        raise AssertionError(why)


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def cache(root: Path, *, commit: str = COMMIT, card: str = "") -> Path:
    """A Hub client's cache of org/name with one snapshot. Returns the snapshot."""
    repository = root / "models--org--name"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (snapshot / "sub").mkdir(parents=True)
    for path, data, blob in (
        ("weights.bin", WEIGHTS, sha256(WEIGHTS)),
        ("sub/README.md", CARD, card or git_blob(CARD)),
    ):
        (repository / "blobs" / blob).write_bytes(data)
        (snapshot / path).symlink_to(os.path.relpath(repository / "blobs" / blob, (snapshot / path).parent))
    return snapshot


def taken(folder: Path, named: UpstreamRequest | None, into: Path) -> MirrorResult:
    into.mkdir()
    return copy_folder(recognise_folder(folder, named), into, Silent())


@pytest.mark.parametrize("of", ["the snapshot", "the repository"])
def test_a_cache_gives_repository_commit_branch_and_hashes(tmp_path: Path, of: str) -> None:
    snapshot = cache(tmp_path)
    folder = snapshot if of == "the snapshot" else snapshot.parent.parent
    found = recognise_folder(folder, None)
    upstream = found.listing.revision_info.upstream
    assert (upstream.name, upstream.requested, upstream.endpoint) == (f"hf:org/name@{COMMIT}", "main", "")
    assert found.how == "cache"
    done = taken(folder, None, tmp_path / "into")
    assert {seen.entry.path: seen.match for seen in done.observations} == {
        "sub/README.md": "git-blob",
        "weights.bin": "sha256",
    }
    assert [path.read_bytes() for path in done.paths] == [CARD, WEIGHTS]
    assert not any(path.is_symlink() for path in done.paths)


def test_a_cache_with_bytes_that_do_not_match_their_names_is_damaged(tmp_path: Path) -> None:
    snapshot = cache(tmp_path, card=git_blob(b"another card\n"))
    with pytest.raises(Untrusted) as damaged:
        taken(snapshot, None, tmp_path / "into")
    assert damaged.value.code == "UPSTREAM-LIED"
    assert damaged.value.hint


def test_an_operators_statement_that_contradicts_the_cache_is_refused(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    assert recognise_folder(snapshot, NAMED).how == "cache"
    for other in (UpstreamRequest("org/name", OTHER), UpstreamRequest("org/other", COMMIT)):
        with pytest.raises(Conflict):
            recognise_folder(snapshot, other)


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../outside", "../../refs/main", "../../blobs/link"])
def test_a_link_of_a_cache_leads_to_its_blobs_or_is_refused(tmp_path: Path, target: str) -> None:
    snapshot = cache(tmp_path)
    (tmp_path / "outside").write_text("somebody else's")
    (snapshot.parent.parent / "blobs" / "link").symlink_to("/etc/hostname")
    (snapshot / "link.txt").symlink_to(target)
    with pytest.raises(Malformed) as refused:
        recognise_folder(snapshot, None)
    assert refused.value.code == "NOT-A-FILE"


def test_the_metadata_files_of_a_client_give_commit_and_hashes(tmp_path: Path) -> None:
    folder = noted(tmp_path / "folder", COMMIT)
    found = recognise_folder(folder, UpstreamRequest("org/name", "v1"))
    assert (found.how, found.listing.revision_info.upstream.commit) == ("cache", COMMIT)
    assert {seen.match for seen in taken(folder, UpstreamRequest("org/name"), tmp_path / "into").observations} == {
        "sha256"
    }
    with pytest.raises(Conflict):
        recognise_folder(folder, UpstreamRequest("org/name", OTHER))


def noted(folder: Path, commit: str) -> Path:
    (folder / METADATA).mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS)
    (folder / METADATA / "weights.bin.metadata").write_text(f"{commit}\n{sha256(WEIGHTS)}\n1.5\n")
    return folder


def test_metadata_of_two_commits_or_of_some_files_only_are_not_used(tmp_path: Path) -> None:
    folder = noted(tmp_path / "folder", COMMIT)
    (folder / "later.bin").write_bytes(b"later")
    with pytest.raises(Malformed) as unclear:
        recognise_folder(folder, UpstreamRequest("org/name"))
    assert unclear.value.code == "WHICH-UPSTREAM"
    (folder / METADATA / "later.bin.metadata").write_text(f"{OTHER}\n{sha256(b'later')}\n1.5\n")
    with pytest.raises(Malformed):
        recognise_folder(folder, UpstreamRequest("org/name"))
    assert recognise_folder(folder, NAMED).how == "carried"


def test_any_other_folder_has_the_origin_that_its_operator_states(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(WEIGHTS)
    with pytest.raises(Malformed) as nameless:
        recognise_folder(tmp_path / "folder", None)
    assert "--from" in nameless.value.hint
    with pytest.raises(Malformed):
        recognise_folder(tmp_path / "folder", UpstreamRequest("org/name", "main"))
    done = taken(tmp_path / "folder", NAMED, tmp_path / "into")
    assert [seen.match for seen in done.observations] == ["none"]


def test_a_file_that_is_not_regular_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "pipe")
    with pytest.raises(Malformed):
        recognise_folder(tmp_path / "folder", NAMED)
    (tmp_path / "folder" / "pipe").unlink()
    (tmp_path / "folder" / "link").symlink_to("/etc/hostname")
    with pytest.raises(Malformed):
        recognise_folder(tmp_path / "folder", NAMED)


def test_names_that_meet_on_another_file_system_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("Readme.md", "README.md"):
        (tmp_path / "folder" / name).write_bytes(b"")
    with pytest.raises(Malformed) as refused:
        recognise_folder(tmp_path / "folder", NAMED)
    assert refused.value.code == "BAD-PATH"


def test_a_file_that_changes_while_it_is_copied_is_detected(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(WEIGHTS)
    found = recognise_folder(tmp_path / "folder", NAMED)
    (tmp_path / "folder" / "weights.bin").write_bytes(WEIGHTS + b"more")
    (tmp_path / "into").mkdir()
    with pytest.raises(Conflict) as changed:
        copy_folder(found, tmp_path / "into", Silent())
    assert changed.value.code == "CHANGED"


@pytest.mark.parametrize("made", ["nothing", "empty", "a file"])
def test_where_there_are_no_files_nothing_is_imported(tmp_path: Path, made: str) -> None:
    folder = tmp_path / "folder"
    if made == "empty":
        folder.mkdir()
    if made == "a file":
        folder.write_bytes(b"")
    with pytest.raises(NotFound):
        recognise_folder(folder, NAMED)


def test_an_invalid_repository_is_refused(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    snapshot.parent.parent.rename(tmp_path / "models--name")
    with pytest.raises(ComityError):
        recognise_folder(tmp_path / "models--name", None)
