"""What stores call their things, and which files these have, whatever a document of a store says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity_client.identify import layouts
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import hash_paths
from comity_client.identify.match import MatchedFiles, match
from support.stores import OCI_INDEX, OCI_TAR, hub_cache, oci_layout, ollama_store, tarred, write_files

FILES = {"config.json": b'{"a": 1}', "model.gguf": b"weights" * 100, "sub/card.md": b"card"}
REVISION = "1f" * 20
LAYER = "application/vnd.cncf.model.weight.v1.raw"


def manifest(files: Mapping[str, bytes]) -> Manifest:
    return Manifest.of(FileEntry(path, len(data), sha256(data)) for path, data in files.items())


def found(root: Path, *artifacts: Mapping[str, bytes]) -> tuple[list[DiskFile], MatchedFiles]:
    files = hash_paths([root], None, 1, lambda count: None)
    manifests = [manifest(each) for each in artifacts or (FILES,)]
    return files, match(files, {each.digest: each for each in manifests})


def unread(files: list[DiskFile]) -> dict[str, str]:
    return {each.path.name: each.problem for each in files if each.problem}


def layers(files: Mapping[str, bytes]) -> list[tuple[str, str, bytes]]:
    return [(LAYER, path, data) for path, data in files.items()]


def test_a_snapshot_of_a_hub_cache_is_named_by_repository_and_branch(tmp_path: Path) -> None:
    first = hub_cache(tmp_path, "org/model", REVISION, FILES, "main")
    later = hub_cache(tmp_path, "org/model", "2e" * 20, {**FILES, "config.json": b"[]"})
    _, matched = found(tmp_path, FILES, {**FILES, "config.json": b"[]"})
    assert {each.folder: (each.stored_as, each.state) for each in matched.folders} == {
        first: ("org/model@main", "complete"),
        later: (f"org/model@{'2e' * 6}", "complete"),
    }
    assert (matched.files, matched.unknown) == ((), ())


def test_two_snapshots_with_the_same_files_are_both_named(tmp_path: Path) -> None:
    for revision in (REVISION, "2e" * 20):
        hub_cache(tmp_path, "org/model", revision, FILES)
    assert len(found(tmp_path)[1].folders) == 2


def test_a_blob_of_a_hub_cache_that_is_gone_is_a_missing_file(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, "org/model", REVISION, FILES)
    (snapshot / "config.json").resolve().unlink()
    files, matched = found(tmp_path)
    assert unread(files) == {"config.json": "a link to nothing"}
    assert [(each.state, each.missing) for each in matched.folders] == [("partial", ("config.json",))]


def test_an_unknown_file_of_a_hub_cache_is_named_once_by_its_path(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, "org/model", REVISION, {"a/b.bin": b"unknown"})
    assert [each.path for each in found(tmp_path)[1].unknown] == [snapshot / "a/b.bin"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("registry.ollama.ai/library/tiny/8b", "tiny:8b"),
        ("registry.ollama.ai/swiss/tiny/latest", "swiss/tiny:latest"),
        ("hf.co/swiss/tiny/Q4_K_M", "hf.co/swiss/tiny:Q4_K_M"),
    ],
)
def test_a_model_of_an_ollama_store_has_the_name_that_ollama_gives_it(tmp_path: Path, path: str, name: str) -> None:
    weights = {"tiny.gguf": FILES["model.gguf"]}
    document = ollama_store(tmp_path, path, [("model", FILES["model.gguf"])])
    files, matched = found(tmp_path, weights)
    (only,) = matched.folders
    assert (only.stored_as, only.state, only.within) == (name, "complete", document)
    assert only.folder == document.with_name(f"{document.name}!")
    assert (matched.files, matched.unknown, unread(files)) == ((), (), {})


def test_what_an_artifact_has_and_a_model_of_ollama_lacks_is_missing_and_the_rest_is_extra(tmp_path: Path) -> None:
    made = [("model", FILES["model.gguf"]), ("template", b"{{ .Prompt }}"), ("license", b"one"), ("license", b"two")]
    ollama_store(tmp_path, "registry.ollama.ai/library/tiny/latest", made)
    (only,) = (matched := found(tmp_path)[1]).folders
    assert (only.state, only.missing) == ("partial", ("config.json", "sub/card.md"))
    assert only.extra == ("license", "license-2", "template")
    assert sorted(each.path.name for each in matched.unknown) == ["license", "license-2", "template"]


def test_two_tags_of_one_model_are_both_named(tmp_path: Path) -> None:
    for tag in ("8b", "latest"):
        ollama_store(tmp_path, f"registry.ollama.ai/library/tiny/{tag}", [("model", FILES["model.gguf"])])
    folders = found(tmp_path, {"tiny.gguf": FILES["model.gguf"]})[1].folders
    assert sorted(each.stored_as for each in folders) == ["tiny:8b", "tiny:latest"]


def test_a_blob_that_is_gone_or_has_other_bytes_than_its_name_is_a_line(tmp_path: Path) -> None:
    ollama_store(tmp_path, "registry.ollama.ai/library/tiny/latest", [("model", b"gone"), ("projector", b"other")])
    (tmp_path / "blobs" / f"sha256-{sha256(b'gone')}").unlink()
    (tmp_path / "blobs" / f"sha256-{sha256(b'other')}").write_bytes(b"changed")
    files, matched = found(tmp_path)
    assert unread(files) == {
        "model": f"the store names it, and it was not read: sha256-{sha256(b'gone')}",
        "projector": f"its bytes are not those that its name says: sha256-{sha256(b'other')}",
    }
    assert [each.size for each in matched.unknown] == [len(b"changed")]


def test_an_artifact_in_an_oci_layout_is_named_by_its_tag_with_the_paths_of_its_titles(tmp_path: Path) -> None:
    partial = {path: data for path, data in FILES.items() if path != "config.json"}
    oci_layout(tmp_path, {"swiss/tiny:v1": layers(FILES), "": layers(partial)})
    files, matched = found(tmp_path)
    assert sorted((each.state, each.missing) for each in matched.folders) == [
        ("complete", ()),
        ("partial", ("config.json",)),
    ]
    whole = next(each for each in matched.folders if each.complete)
    assert (whole.stored_as, whole.folder) == ("swiss/tiny:v1", tmp_path / "index.json!" / "swiss/tiny:v1")
    assert (matched.files, matched.unknown, unread(files)) == ((), (), {})


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_layers_that_are_archives_lie_over_one_another(tmp_path: Path, pack: type[bytes]) -> None:
    below = {**FILES, "config.json": b"replaced", "old.bin": b"removed"}
    above = {"config.json": FILES["config.json"], ".wh.old.bin": b""}
    kind = OCI_TAR if pack is bytes else f"{OCI_TAR}+gzip"
    oci_layout(tmp_path, {"v1": [(kind, "", pack(tarred(below))), (kind, "", pack(tarred(above)))]})
    (only,) = (matched := found(tmp_path)[1]).folders
    assert (only.stored_as, only.state, only.in_archive) == ("v1", "complete", True)
    assert (matched.files, matched.unknown) == ((), ())


def test_manifests_are_found_through_an_index_in_the_index(tmp_path: Path) -> None:
    oci_layout(tmp_path, {"v1": layers(FILES)})
    inner = (tmp_path / "index.json").read_bytes()
    write_files(tmp_path / "blobs" / "sha256", {sha256(inner): inner})
    described = {"mediaType": OCI_INDEX, "digest": f"sha256:{sha256(inner)}", "size": len(inner)}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [described]}))
    assert [each.stored_as for each in found(tmp_path)[1].folders] == ["v1"]


@pytest.mark.parametrize(
    "index",
    [b"no json", b"[]", b"{}", b'{"manifests": 3}', b'{"manifests": [{"digest": "md5:00"}]}', b'{"manifests": [7]}'],
)
def test_a_broken_index_is_a_line_and_stays_an_unknown_file(tmp_path: Path, index: bytes) -> None:
    write_files(tmp_path, {"oci-layout": b"{}", "index.json": index})
    files, matched = found(tmp_path)
    assert "index.json!" in unread(files)
    assert "index.json" in {each.path.name for each in matched.unknown}


def test_an_index_that_names_itself_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No document can name its own digest: a chain of as many as are wanted stands for it."""
    data = b'{"manifests": []}'
    for _ in range(layouts.MAX_INDICES):
        write_files(tmp_path / "blobs" / "sha256", {sha256(data): data})
        described = {"mediaType": OCI_INDEX, "digest": f"sha256:{sha256(data)}", "size": len(data)}
        data = json.dumps({"manifests": [described]}).encode()
    write_files(tmp_path, {"oci-layout": b"{}", "index.json": data})
    assert unread(found(tmp_path)[0]) == {"index.json!": "more than 3 indices in one another"}


def test_a_layout_that_names_one_manifest_many_times_has_a_bounded_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "MAX_FILES", 50)
    oci_layout(tmp_path, {f"v{number}": layers(FILES) for number in range(100)})
    files, _ = found(tmp_path)
    assert len(files) < 50 + 110


@pytest.mark.parametrize("title", ["../../etc/passwd", "/etc/passwd", "a\\b", "a\x1b[31m", ".comity/x", "a//b"])
def test_a_title_that_is_no_path_of_a_manifest_names_nothing(tmp_path: Path, title: str) -> None:
    oci_layout(tmp_path, {"v1": [(LAYER, title, FILES["model.gguf"])]})
    (only,) = found(tmp_path, {"model.gguf": FILES["model.gguf"]})[1].folders
    assert (only.folder, only.state) == (tmp_path / "index.json!" / "v1", "complete")


def test_a_document_that_describes_nothing_is_an_unknown_file(tmp_path: Path) -> None:
    """A file at the place of a manifest, and one called as the mark of a layout, are not passed over."""
    write_files(tmp_path, {"manifests/a/b/c/d": b"payload", "oci-layout": b"payload 2", "index.json": b"{}"})
    names = {each.path.name for each in found(tmp_path)[1].unknown}
    assert names == {"d", "oci-layout", "index.json"}


def test_a_model_of_lm_studio_is_named_by_publisher_and_repository(tmp_path: Path) -> None:
    write_files(tmp_path / ".lmstudio" / "models" / "swiss" / "tiny-gguf", FILES)
    (only,) = found(tmp_path)[1].folders
    assert (only.stored_as, only.state) == ("swiss/tiny-gguf", "complete")


def test_stores_are_known_from_within_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ollama_store(tmp_path, "registry.ollama.ai/library/tiny/latest", [("model", FILES["model.gguf"])])
    oci_layout(tmp_path, {"v1": layers(FILES)})
    monkeypatch.chdir(tmp_path)
    files = hash_paths([Path()], None, 1, lambda count: None)
    assert {each.stored_as for each in files} == {"", "v1", "tiny:latest"}
