"""A thousand made files of forty artifacts, in every way in which people keep them: none is named wrongly, every exact
one is found, and every partial one is named with what is missing.

Artifacts come in versions that share their weights, and all have one licence, so that single files say little. What is
expected is written down where the files are made.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import hash_paths
from comity_client.identify.match import FolderOf, MatchedFiles, match
from support.stores import OCI_TAR, hub_cache, oci_layout, ollama_store, tarred, write_files

ARTIFACTS = 40
WEIGHTS = "model.gguf"
Files = Mapping[str, bytes]


def manifest(files: Files) -> Manifest:
    return Manifest.of(FileEntry(path, len(data), sha256(data)) for path, data in files.items())


def artifact(number: int) -> dict[str, bytes]:
    """The files of an artifact: an even one and the next one have the same weights and tokens."""
    chance = random.Random(number // 2)
    return {
        "LICENSE": b"licence of all\n",
        "config.json": b'{"version": %d}' % number,
        "tokenizer/tokens.txt": chance.randbytes(50).hex().encode(),
        WEIGHTS: chance.randbytes(3_000),
    }


@dataclass
class Made:
    """What was made: the artifacts that each folder may be taken for, and what it lacks; and altered bytes."""

    folders: dict[Path, tuple[Digest, tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    altered: set[Digest] = field(default_factory=set)

    def expect(self, folder: Path, files: Files, missing: tuple[str, ...] = (), changed: tuple[str, ...] = ()) -> None:
        self.folders[folder] = (manifest(files).digest, missing, changed)


Maker = Callable[[Made, Path, Files], None]


def plain(made: Made, root: Path, files: Files) -> None:
    made.expect(write_files(root / "plain", files), files)


def without_a_file(made: Made, root: Path, files: Files) -> None:
    path = sorted(files)[int(root.name) // 2 % len(files)]
    rest = {each: data for each, data in files.items() if each != path}
    made.expect(write_files(root / "partial", rest), files, missing=(path,))


def cut(made: Made, root: Path, files: Files) -> None:
    altered = files[WEIGHTS][:-1]
    made.altered.add(sha256(altered))
    made.expect(write_files(root / "cut", {**files, WEIGHTS: altered}), files, changed=(WEIGHTS,))


def one_bit(made: Made, root: Path, files: Files) -> None:
    altered = bytearray(files[WEIGHTS])
    altered[len(altered) // 2] ^= 1
    made.altered.add(sha256(bytes(altered)))
    made.expect(write_files(root / "bit", {**files, WEIGHTS: bytes(altered)}), files, changed=(WEIGHTS,))


def renamed(made: Made, root: Path, files: Files) -> None:
    write_files(root / "renamed", {f"{number}.bin": data for number, data in enumerate(files.values())})


def hub(made: Made, root: Path, files: Files) -> None:
    made.expect(hub_cache(root / "hub", "org/model", "1f" * 20, files, "main"), files)


def ollama(made: Made, root: Path, files: Files) -> None:
    template = b"template of %s" % str(root).encode()
    made.altered.add(sha256(template))
    layers = [("model", files[WEIGHTS]), ("template", template)]
    place = ollama_store(root / "ollama", "registry.ollama.ai/library/model/8b", layers)
    rest = tuple(path for path in sorted(files) if path != WEIGHTS)
    made.expect(place.with_name("8b!"), files, missing=rest)


def oci(made: Made, root: Path, files: Files) -> None:
    kind = "application/vnd.cncf.model.weight.v1.raw"
    oci_layout(root / "oci", {"org/model:v1": [(kind, path, data) for path, data in files.items()]})
    made.expect(root / "oci" / "index.json!" / "org/model:v1", files)


def image_volume(made: Made, root: Path, files: Files) -> None:
    oci_layout(root / "image", {"v1": [(OCI_TAR, "", tarred(files))]})
    made.expect(root / "image" / "index.json!" / "v1", files)


def zipped(made: Made, root: Path, files: Files) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(f"model/{path}", data)
    write_files(root, {"model.zip": packed.getvalue()})
    made.expect(root / "model.zip!" / "model", files)


MAKERS: tuple[Maker, ...] = (plain, without_a_file, cut, one_bit, renamed, hub, ollama, oci, image_volume, zipped)


@pytest.fixture(scope="module", name="found")
def _found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[DiskFile], MatchedFiles]:
    root, made = tmp_path_factory.mktemp("made"), Made()
    artifacts = [artifact(number) for number in range(ARTIFACTS)]
    for number, content in enumerate(artifacts):
        for kind in range(6):  # six of the ten ways for each, all of them for each pair of versions
            MAKERS[(number * 5 + kind) % len(MAKERS)](made, root / f"{number:02}", content)
    files = hash_paths([root], None, 2, lambda count: None)
    manifests = [manifest(each) for each in artifacts]
    return made, files, match(files, {each.digest: each for each in manifests})


def test_about_a_thousand_files_were_made(found: tuple[Made, list[DiskFile], MatchedFiles]) -> None:
    _, files, _ = found
    assert len({each.identity for each in files}) > 1_000
    assert [each for each in files if each.problem] == []


def test_every_folder_is_found_with_what_it_lacks_and_none_is_named_wrongly(
    found: tuple[Made, list[DiskFile], MatchedFiles],
) -> None:
    made, _, matched = found
    named: dict[Path, FolderOf] = {each.folder: each for each in matched.folders}
    assert named.keys() == made.folders.keys()
    for folder, (digest, missing, changed) in made.folders.items():
        is_of = named[folder]
        assert digest in (is_of.artifact, *matched.others.get(folder, ())), folder
        if digest == is_of.artifact:
            assert (is_of.missing, is_of.changed) == (missing, changed), folder
        if not (missing or changed):
            assert (is_of.artifact, is_of.missing, is_of.changed) == (digest, (), ()), folder


def test_every_file_elsewhere_is_in_the_artifact_that_is_named(
    found: tuple[Made, list[DiskFile], MatchedFiles],
) -> None:
    _, _, matched = found
    manifests = {made.digest: made for made in map(manifest, map(artifact, range(ARTIFACTS)))}
    assert {each.file.path.parent.name for each in matched.files} == {"renamed"}
    for each in matched.files:
        assert manifests[each.artifact].by_path[each.path].sha256 == each.file.sha256


def test_what_was_altered_is_unknown_and_nothing_else(found: tuple[Made, list[DiskFile], MatchedFiles]) -> None:
    made, _, matched = found
    assert {each.sha256 for each in matched.unknown} == made.altered
