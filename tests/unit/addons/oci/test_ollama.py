"""How a tag chooses among GGUF files, and the image that Ollama gets."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.addons.oci import registry
from comity.addons.oci.ollama import choose_image, choose_model, find_projector, list_models, model_image, quantisation
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound

FILES = (
    "a-Q8_0.gguf",
    "a-q4_k_m.gguf",
    "sub/a.IQ2_XXS.gguf",
    "a-Q6_K-00001-of-00002.gguf",
    "mmproj-a-F16.gguf",
    "README.md",
)
MANIFEST = Manifest.of(FileEntry(path, 7, sha256(path.encode())) for path in FILES)


def test_parts_and_projectors_are_no_models() -> None:
    assert {entry.path for entry in list_models(MANIFEST)} == {"a-Q8_0.gguf", "a-q4_k_m.gguf", "sub/a.IQ2_XXS.gguf"}
    found = find_projector(MANIFEST)
    assert found is not None and found.path == "mmproj-a-F16.gguf"


@pytest.mark.parametrize(
    ("tag", "path"),
    (
        ("latest", "a-q4_k_m.gguf"),
        ("Q8_0", "a-Q8_0.gguf"),
        ("q8_0", "a-Q8_0.gguf"),
        ("iq2_xxs", "sub/a.IQ2_XXS.gguf"),
        ("a-Q8_0.gguf", "a-Q8_0.gguf"),
    ),
)
def test_a_tag_is_a_quantisation_or_a_file(tag: str, path: str) -> None:
    assert choose_model(MANIFEST, tag).path == path


def test_without_the_usual_quantisation_latest_is_the_first_file() -> None:
    only = Manifest.of([FileEntry("z-F16.gguf", 1, sha256(b"z")), FileEntry("y-Q2_K.gguf", 1, sha256(b"y"))])
    assert choose_model(only, "latest").path == "y-Q2_K.gguf"
    assert [quantisation(entry) for entry in only.files] == ["Q2_K", "F16"]


def test_an_unknown_tag_is_answered_with_the_available_ones() -> None:
    with pytest.raises(NotFound, match="Q8_0, Q4_K_M, IQ2_XXS"):
        choose_model(MANIFEST, "Q5_K")


def test_an_image_names_its_file_by_the_files_own_hash() -> None:
    entry = choose_model(MANIFEST, "Q8_0")
    document = model_image(entry, None)
    assert document["layers"][0]["digest"] == f"sha256:{entry.sha256}"
    assert document == model_image(entry, None)


async def test_a_file_is_chosen_among_all_of_an_artifact_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand long names of a hostile publisher take a minute, in which no other reader is served."""
    threads = list[str]()

    def chosen(manifest: Manifest, tag: str) -> bytes:
        threads.append(threading.current_thread().name)
        return choose_image(manifest, tag)

    async def now() -> int:
        return 0

    monkeypatch.setattr(registry, "choose_image", chosen)
    pools, unused = Pools(), SimpleNamespace(catalogue=None)
    snapshot = SimpleNamespace(manifest=Manifest.of([FileEntry("m-Q4_K_M.gguf", 5, sha256(b"12345"))]))
    made = await registry.Registry(cast(Any, unused), pools, now, cast(Any, unused)).ollama_image(
        cast(Any, snapshot), "q4_k_m"
    )
    pools.close()
    assert json.loads(made.data)["layers"][0]["size"] == 5
    assert [name.partition("_")[0] for name in threads] == ["hashing"]
