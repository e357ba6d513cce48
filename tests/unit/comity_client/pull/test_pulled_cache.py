"""`comity cache`: pulled artifacts are listed and removed; files of other programs, and shared files, stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.content.blobs import BlobLock
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, NotFound, Unavailable
from comity.trust.evidence import PACK
from comity.trust.names import Name, Reference
from comity_cli.main import command
from comity_client.pull.cache import cached_artifacts, find_cached, interrupted_files, remove_cached
from comity_client.pull.destinations import PARTIAL, HubCacheDestination

SHARED = b"the same in both versions"
MANIFEST = Manifest.of([FileEntry("shared.bin", len(SHARED), sha256(SHARED))])


def place(cache: Path, name: str, files: dict[str, bytes], *, partial: bool = False) -> Path:
    """Place files as a pull does. Returns the folder of the snapshot."""
    entries = [FileEntry(path, len(data), sha256(data)) for path, data in files.items()]
    manifest = Manifest.of(entries)
    made = HubCacheDestination(cache, Name.parse(name), manifest, newest=True)
    made.prepare()
    for entry in entries:
        made.path_of(entry).write_bytes(files[entry.path])
    (made.folder / PACK).mkdir(parents=True, exist_ok=True)
    (made.folder / PACK / "manifest.json").write_bytes(manifest.encode())
    if partial:
        (made.folder / PACK / PARTIAL).write_text("other\n")
    made.finish(entries)
    return made.folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    place(tmp_path, "inst/model@v1", {"a.bin": b"only in v1", "sub/shared.bin": SHARED})
    place(tmp_path, "inst/model@v2", {"b.bin": b"only in v2", "shared.bin": SHARED}, partial=True)
    other = tmp_path / "models--someone--else" / "snapshots" / ("a" * 40)
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    return tmp_path


def run(*arguments: str | Path, answer: str = "") -> Result:
    return CliRunner().invoke(command, ["cache", *map(str, arguments)], input=answer)


def test_pulled_artifacts_are_listed_and_those_of_other_programs_are_not(cache: Path) -> None:
    told = json.loads(run("ls", "--hub-cache", cache, "--json").stdout)
    assert [(item["name"], item["versions"], item["files"], item["partial"]) for item in told["artifacts"]] == [
        ("inst/model", ["v1"], 2, False),
        ("inst/model", ["v2", "main"], 2, True),
    ]
    assert told["artifacts"][0]["bytes"] == len(b"only in v1") + len(SHARED)
    assert "someone" not in run("ls", "--hub-cache", cache).stdout


def test_an_artifact_to_remove_is_also_named_by_some_digits_of_its_digest(cache: Path) -> None:
    (artifact,) = [item for item in cached_artifacts(cache) if "v1" in item.versions]
    for reference in (f"sha256:{artifact.artifact[:9]}", f"inst/model@sha256:{artifact.artifact[:9]}"):
        assert str(artifact.folder) in run("rm", reference, "--hub-cache", cache, "--dry-run").stdout


def test_a_pull_request_that_another_program_placed_hides_nothing(cache: Path) -> None:
    for repository in ("models--someone--else", "models--inst--model"):
        ref = cache / repository / "refs" / "refs" / "pr" / "1"
        ref.parent.mkdir(parents=True)
        ref.write_text("a" * 40)
    assert [item.versions for item in cached_artifacts(cache)] == [("v1",), ("v2", "main")]
    assert run("rm", "inst/model@v1", "--hub-cache", cache, "--yes").exit_code == 0


def test_removing_one_version_keeps_files_shared_with_another(cache: Path) -> None:
    blobs = cache / "models--inst--model" / "blobs"
    ran = run("rm", "inst/model@v1", "--hub-cache", cache, "--yes", "--json")
    assert json.loads(ran.stdout)["freed"] == len(b"only in v1")
    assert {path.read_bytes() for path in blobs.iterdir()} == {b"only in v2", SHARED}
    (left,) = cached_artifacts(cache)
    assert (left.folder / "shared.bin").read_bytes() == SHARED
    with pytest.raises(NotFound):
        find_cached(cache, Reference.parse("inst/model@v1"))
    assert (cache / "models--someone--else" / "snapshots" / ("a" * 40) / "config.json").exists()


@pytest.mark.parametrize("options", [("--dry-run",), ()], ids=["dry run", "declined"])
def test_nothing_is_removed_that_was_not_agreed_to(cache: Path, options: tuple[str, ...]) -> None:
    before = sorted(cache.rglob("*"))
    ran = run("rm", "inst/model@v2", "--hub-cache", cache, *options, answer="n\n")
    assert "inst/model@v2" in ran.stdout
    assert sorted(cache.rglob("*")) == before


def test_a_link_out_of_the_repository_is_no_blob_of_it(cache: Path) -> None:
    outside = cache / "outside"
    outside.write_bytes(b"not ours")
    (artifact,) = [item for item in cached_artifacts(cache) if "v1" in item.versions]
    (artifact.folder / "evil.bin").symlink_to("../../../../outside")
    remove_cached(artifact)
    assert outside.read_bytes() == b"not ours"


def test_nothing_is_removed_while_a_pull_into_the_repository_runs(cache: Path) -> None:
    running, other = (HubCacheDestination(cache, Name.parse(f"inst/model@{v}"), MANIFEST, newest=False) for v in "34")
    running.prepare()
    with running.in_use(), other.in_use(), pytest.raises(Conflict) as caught:
        remove_cached(cached_artifacts(cache)[0])
    assert caught.value.code == "CACHE-BUSY"
    assert len(cached_artifacts(cache)) == 2
    remove_cached(cached_artifacts(cache)[0])
    assert len(cached_artifacts(cache)) == 1


def test_only_what_still_names_a_snapshot_is_removed_with_it(cache: Path) -> None:
    """A pull between the question and the answer of the user may give a version to other bytes, or name these."""
    (artifact,) = [item for item in cached_artifacts(cache) if "v2" in item.versions]
    refs = cache / "models--inst--model" / "refs"
    corrected = place(cache, "inst/model@v2", {"b.bin": b"corrected"})
    (refs / "v3").write_text(artifact.folder.name)
    remove_cached(artifact)
    assert find_cached(cache, Reference.parse("inst/model@v2")).folder == corrected
    assert sorted(path.name for path in refs.iterdir()) == ["main", "v1", "v2"]


def test_a_removal_that_was_interrupted_can_be_repeated(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, unlink = cache / "models--inst--model" / "blobs", Path.unlink

    def failing(path: Path, missing_ok: bool = False) -> None:
        if path.parent == blobs:
            raise OSError("the disk is away")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing)
        for item in cached_artifacts(cache):
            with pytest.raises(Unavailable):
                remove_cached(item)
    for item in cached_artifacts(cache):
        remove_cached(item)
    assert list(blobs.iterdir()) == []


def test_interrupted_pulls_are_cleaned_up_and_running_ones_keep_their_files(cache: Path) -> None:
    incoming = cache / "models--inst--model" / PACK / "incoming"
    idle, used = incoming / sha256(b"idle"), incoming / sha256(b"used")
    for path in (idle, used):
        path.write_bytes(b"x" * 5000)
    with BlobLock(incoming, sha256(b"used")):
        assert [each.path for each in interrupted_files(cache)] == [idle]
        assert "1 file" in run("prune", "--hub-cache", cache, "--dry-run").stdout
        assert idle.exists()
        freed = json.loads(run("prune", "--hub-cache", cache, "--yes", "--json").stdout)["freed"]
    assert freed >= 5000
    assert (idle.exists(), used.exists()) == (False, True)
    assert len(cached_artifacts(cache)) == 2
