"""Images of OCI registries: which manifests are files, and imports from the registry of Debian."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, fetch_repository, list_repository, pin_revision
from comity.upstream.oci_image import parse_layers
from support.image_registry import RAW, image_registry, layer, manifest, push
from support.tools import needs

FILES = {"config.json": b"{}\n", "sub/weights.bin": bytes(range(256)) * 4000}


def test_layers_that_are_files_are_listed_with_their_digests() -> None:
    files = parse_layers(manifest(*(layer(path, data) for path, data in FILES.items())))
    assert {path: (file.size, file.lfs) for path, file in files.items()} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in FILES.items()
    }


def test_a_layer_of_more_than_50_gigabytes_is_listed_like_any_other() -> None:
    assert parse_layers(manifest(layer("a", b"a", size=300 * 10**9)))["a"].size == 300 * 10**9


@pytest.mark.parametrize(
    "more",
    [
        {"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd"},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"annotations": {}},
        {"annotations": {"org.cncf.model.filepath": 7}},
    ],
)
def test_an_image_with_nameless_layers_or_packed_in_another_way_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as caught:
        parse_layers(manifest(layer("a", b"a"), layer("b", b"b", **more)))
    assert caught.value.code == "UPSTREAM-PACKED"


@pytest.mark.parametrize(
    ("kind", "packing"),
    [
        ("application/vnd.cncf.model.weight.v1.tar", "tar"),
        ("application/vnd.cncf.model.weight.config.v1.tar+gzip", "tar+gzip"),
        ("application/vnd.kitops.modelkit.model.v1.tar", "tar"),
        ("application/vnd.kitops.modelkit.modelpart.v1.tar+gzip", "tar+gzip"),
    ],
)
def test_a_layer_that_is_an_archive_is_listed_by_its_digest(kind: str, packing: str) -> None:
    digest = hashlib.sha256(b"b").hexdigest()
    listed = parse_layers(manifest(layer("a", b"a"), layer("", b"b", mediaType=kind, annotations=None)))
    found = listed[f"layer-{digest}.{packing.replace('+', '.')}"]
    assert (found.size, found.lfs, found.packing) == (1, digest, packing)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"layers": {}}',
        manifest("x"),
        manifest(layer("a", b"a", digest="sha512:00")),
        manifest(layer("a", b"a", size=-1)),
        manifest(layer("a", b"a", size=True)),
        manifest(layer("a", b"a"), layer("a", b"b")),
    ],
)
def test_another_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_layers(body)
    assert caught.value.code == "UPSTREAM-ANSWER"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with image_registry(tmp_path) as url:
        yield url


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


@pytest.mark.slow
def test_an_image_of_a_real_registry_is_mirrored_by_digest(registry: str, tmp_path: Path) -> None:
    body = push(registry, "lab/tiny", "v1", FILES)
    digest = hashlib.sha256(body).hexdigest()

    def order(revision: str) -> MirrorOrder:
        wanted = UpstreamRequest.parse(f"oci:127.0.0.1/tiny@{revision}")
        return MirrorOrder(wanted, AllowedHosts.to(f"{registry}/lab"), timeouts=Timeouts(first_delay=0.01))

    commits = set()
    for number, revision in enumerate(("v1", f"sha256:{digest}")):
        folder = tmp_path / str(number)
        folder.mkdir()
        wanted = order(revision)
        pinned = pin_revision(wanted, Silent())
        commits.add(pinned.upstream.name)
        done = fetch_repository(wanted, list_repository(wanted, pinned, Silent()), folder, Silent())
        assert [path.read_bytes() for path in done.paths] == list(FILES.values())
        assert {seen.match for seen in done.observations} == {"sha256"}
    assert commits == {f"oci:127.0.0.1/tiny@{digest[:40]}"}
    pinned = pin_revision(order("v1"), Silent())
    push(registry, "lab/tiny", "v1", {"config.json": b"[]\n"})
    with pytest.raises(NotFound):
        list_repository(order("v1"), pinned, Silent())
    for revision in ("v2", "1f" * 20, "a/b"):
        with pytest.raises(ComityError) as caught:
            pin_revision(order(revision), Silent())
        assert caught.value.code == "UPSTREAM-NOT-FOUND"


@pytest.mark.slow
def test_archives_that_another_program_packed_and_pushed_are_mirrored(registry: str, tmp_path: Path) -> None:
    oras, tar = needs("oras", unlock="apt-get install oras"), needs("tar", unlock="apt-get install tar")
    folder, work = tmp_path / "kit", tmp_path / "work"
    work.mkdir()
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "README.md").write_bytes(b"raw\n")
    subprocess.run([tar, "-C", folder, "-czf", folder / "model.tgz", "./config.json", "./sub"], check=True)
    layers = ["model.tgz:application/vnd.kitops.modelkit.model.v1.tar+gzip", f"README.md:{RAW}"]
    name = f"{registry.removeprefix('http://')}/lab/tiny:v1"
    push_it = [
        oras,
        "push",
        "--plain-http",
        "--artifact-type",
        "application/vnd.kitops.modelkit.manifest.v1",
        name,
        *layers,
    ]
    subprocess.run(push_it, check=True, cwd=folder, capture_output=True)
    order = MirrorOrder(UpstreamRequest.parse("oci:127.0.0.1/tiny@v1"), AllowedHosts.to(f"{registry}/lab"))
    listing = list_repository(order, pin_revision(order, Silent()), Silent())
    done = fetch_repository(order, listing, work, Silent())
    found = {seen.entry.path: path.read_bytes() for seen, path in zip(done.observations, done.paths, strict=True)}
    assert found == {"README.md": b"raw\n", **FILES}
    assert [seen.match for seen in done.observations] == ["sha256", "none", "none"]
