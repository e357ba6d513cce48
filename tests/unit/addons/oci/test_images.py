"""Which artifact has an image that is served: its whole content is among the files, under its digest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from comity.addons.oci import images
from comity.addons.oci.images import FOLDER, INDEX_FILE, LayoutImage, has_image, read_image
from comity.rules.model_pack import IMAGE_INDEX, IMAGE_MANIFEST
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.oci_layouts import Layout, small_layout


def artifact(files: Mapping[str, bytes]) -> Manifest:
    return Manifest.of(FileEntry(f"{FOLDER}/{path}", len(data), sha256(data)) for path, data in files.items())


def read(files: Mapping[str, bytes]) -> LayoutImage:
    async def content(file: FileEntry) -> bytes:
        return files[file.path.removeprefix(f"{FOLDER}/")]

    return asyncio.run(read_image(artifact(files), content))


def without(layout: Layout, digest: str) -> dict[str, bytes]:
    return {path: data for path, data in layout.files.items() if not path.endswith(digest.removeprefix("sha256:"))}


def index(layout: Layout) -> Any:
    return json.loads(layout.files["index.json"])


def manifest_of(layout: Layout) -> Any:
    digest = index(layout)["manifests"][0]["digest"].removeprefix("sha256:")
    return json.loads(layout.files[f"blobs/sha256/{digest}"])


def test_the_one_image_of_a_layout_is_what_its_tag_means() -> None:
    layout = small_layout()
    found = read(layout.files)
    (described,) = index(layout)["manifests"]
    assert (f"sha256:{found.top.digest}", found.top.media) == (described["digest"], IMAGE_MANIFEST)
    assert layout.files[f"blobs/sha256/{found.top.digest}"] == found.top.data
    assert {f"blobs/sha256/{digest}" for digest in found.blobs} == {
        path for path in layout.files if path.startswith("blobs")
    }
    assert set(found.documents) == {found.top.digest}


def test_of_several_images_the_index_itself_is_what_the_tag_means() -> None:
    layout = small_layout("amd64", "arm64")
    found = read(layout.files)
    assert (found.top.data, found.top.media) == (layout.files["index.json"], IMAGE_INDEX)
    assert len(found.documents) == 3 and len(found.blobs) == 6


def test_an_index_in_an_index_is_followed() -> None:
    layout = Layout()
    inner = {"schemaVersion": 2, "manifests": [layout.image({"a": b"1"}), layout.image({"a": b"2"}, "arm64")]}
    layout.named(layout.blob(json.dumps(inner).encode(), IMAGE_INDEX))
    found = read(layout.files)
    assert found.top.media == IMAGE_INDEX and json.loads(found.top.data) == inner
    assert len(found.documents) == 3


def missing(part: Callable[[Layout], str]) -> dict[str, bytes]:
    layout = small_layout()
    return without(layout, part(layout))


def changed_blob() -> dict[str, bytes]:
    layout = small_layout()
    digest = manifest_of(layout)["layers"][0]["digest"].removeprefix("sha256:")
    path = f"blobs/sha256/{digest}"
    return {**layout.files, path: layout.files[path][:-1] + b"!"}


def described(**more: Any) -> dict[str, bytes]:
    """A layout whose index says something else of its image."""
    layout = small_layout()
    (item,) = index(layout)["manifests"]
    return layout.named({**item, **more}).files


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no image": ({"other": b"x"}, "no file image/index.json"),
    "no layout file": ({"index.json": b'{"manifests":[]}'}, "no file image/oci-layout"),
    "another layout": (
        {**small_layout().files, "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'},
        "not of version 1.0.0",
    ),
    "no JSON": ({**small_layout().files, "index.json": b"<html>"}, "not JSON"),
    "no object": ({**small_layout().files, "index.json": b"[1]"}, "no JSON object"),
    "no list": ({**small_layout().files, "index.json": b'{"manifests":{}}'}, "no list 'manifests'"),
    "no descriptors": ({**small_layout().files, "index.json": b'{"manifests":[1]}'}, "no list 'manifests'"),
    "nothing named": (small_layout().named().files, "names no image"),
    "deep": ({**small_layout().files, "index.json": b'{"manifests":' + b"[" * 10_000 + b"}"}, "not JSON"),
    "the manifest": (missing(lambda layout: index(layout)["manifests"][0]["digest"]), "no file image/blobs/sha256/"),
    "the configuration": (missing(lambda layout: manifest_of(layout)["config"]["digest"]), "no file image/blobs"),
    "a layer": (missing(lambda layout: manifest_of(layout)["layers"][0]["digest"]), "no file image/blobs/sha256/"),
    "another layer under the digest": (changed_blob(), "has the SHA-256"),
    "another size": (described(size=1), "another size"),
    "no size": (described(size=None), "another size"),
    "another hash": (described(digest="sha512:" + "0" * 128), "only sha256"),
    "a path for a digest": (described(digest="sha256:../../index.json"), "digest"),
    "no digest": (described(digest=["sha256"]), "only sha256"),
    "the form of Docker": (described(mediaType="application/vnd.docker.distribution.manifest.v2+json"), "has the type"),
    "a type that is none": (described(mediaType={"a": 1}), "has the type"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_image_that_is_not_whole_is_refused_with_the_reason(what: str) -> None:
    files, why = REFUSED[what]
    with pytest.raises(NotFound, match=why) as refused:
        read(files)
    assert refused.value.code == "OCI-IMAGE"


@pytest.mark.parametrize(
    ("bound", "least", "why"),
    [("MAX_DOCUMENTS", 1, "manifests"), ("MAX_BLOBS", 5, "blobs"), ("MAX_DOCUMENT_BYTES", 1024, "KiB")],
)
def test_an_image_beyond_a_bound_is_refused(monkeypatch: pytest.MonkeyPatch, bound: str, least: int, why: str) -> None:
    monkeypatch.setattr(images, bound, least)
    with pytest.raises(NotFound, match=f"more than.*{why}"):
        read(small_layout("amd64", "arm64").files)


def test_a_file_that_is_not_here_now_is_no_defect_of_the_image() -> None:
    async def content(file: FileEntry) -> bytes:
        raise Unavailable("not here", code="NOT-HERE")

    with pytest.raises(Unavailable):
        asyncio.run(read_image(artifact(small_layout().files), content))


def test_an_artifact_has_an_image_if_it_has_its_index() -> None:
    assert has_image(artifact(small_layout().files))
    assert not has_image(Manifest.of([FileEntry("index.json", 1, sha256(b"x"))]))
    assert INDEX_FILE == "image/index.json"


@settings(max_examples=examples(100))
@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_any_index_and_manifest_is_served_or_refused(document: Any) -> None:
    layout = Layout()
    item = layout.blob(json.dumps(document).encode(), IMAGE_MANIFEST)
    for files in ({**layout.files, "index.json": json.dumps(document).encode()}, layout.named(item).files):
        with pytest.raises(NotFound):
            read(files)
