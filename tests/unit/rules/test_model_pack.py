"""The image of an artifact: bytes that never change, because publishers signed their digest."""

from __future__ import annotations

import json

import pytest
from comity.rules import model_pack
from comity.rules.model_pack import CODE, DOC, IMAGE_MANIFEST, WEIGHT, WEIGHT_CONFIG, layer_type, pack_image
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256

MANIFEST = Manifest.of(FileEntry(path, 7, sha256(path.encode())) for path in ("README.md", "config.json", "é.gguf"))
IMAGE = "d036a4670e197300d799d11f2963749e969606f4ee625ec024dcf4478b2bda2e"


def test_the_image_of_an_artifact_has_the_digest_that_it_always_had() -> None:
    image = pack_image(MANIFEST)
    assert image is not None and image.manifest.digest == IMAGE
    assert pack_image(Manifest.parse(MANIFEST.encode())) == image, "from the bytes that a node has"


def test_each_layer_is_a_file_and_the_configuration_lists_the_layers() -> None:
    image = pack_image(MANIFEST)
    assert image is not None
    document, config = json.loads(image.manifest.data), json.loads(image.config.data)
    files = [f"sha256:{entry.sha256}" for entry in MANIFEST.files]
    assert [layer["digest"] for layer in document["layers"]] == files == config["modelfs"]["diffIds"]
    assert document["mediaType"] == image.manifest.media == IMAGE_MANIFEST
    assert document["annotations"] == {"dev.comity.artifact": f"sha256:{MANIFEST.digest}"}
    assert (document["config"]["digest"], config["config"]) == (f"sha256:{image.config.digest}", {"format": "gguf"})


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("LICENSE", DOC),
        ("docs/Notice.txt", DOC),
        ("a.GGUF", WEIGHT),
        ("x.unknown", WEIGHT_CONFIG),
        ("license.py", CODE),
    ],
)
def test_the_type_of_a_layer_follows_from_the_name_of_its_file(path: str, media: str) -> None:
    assert layer_type(path) == media


def test_an_artifact_that_registry_clients_cannot_read_has_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack_image(Manifest.of(())) is None
    monkeypatch.setattr(model_pack, "MAX_IMAGE_MANIFEST", 100)
    assert pack_image(MANIFEST) is None
