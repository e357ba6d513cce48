"""Raw paths of the Hub's routes: what each asks for, and how a tag chooses among GGUF files."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.gateway.hub.views import read_api, read_resolve
from comity.gateway.oci import registry
from comity.gateway.ollama import choose_image, choose_model, find_projector, list_models, model_image, quantisation
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound


@pytest.mark.parametrize(
    ("raw", "view", "repository", "revision", "path"),
    (
        ("/api/models/ns/name", "", "ns/name", "main", ""),
        ("/api/models/gpt2", "", "gpt2", "main", ""),
        ("/api/datasets/ns/name/revision/v1", "revision", "ns/name", "v1", ""),
        ("/api/models/gpt2/revision/v1", "revision", "gpt2", "v1", ""),
        ("/api/models/ns/name/revision/refs%2Fpr%2F1", "revision", "ns/name", "refs/pr/1", ""),
        ("/api/models/ns/name/tree/main/a%2Fb", "tree", "ns/name", "main", "a/b"),
        ("/api/models/ns/name/tree/main/a/b/", "tree", "ns/name", "main", "a/b"),
        ("/api/models/ns/name/tree/main", "tree", "ns/name", "main", ""),
        ("/api/models/ns/name/refs", "refs", "ns/name", "main", ""),
        ("/api/models/ns/refs/refs", "refs", "ns/refs", "main", ""),
        ("/api/models/ns%2Fx/name", "", "ns/x/name", "main", ""),
    ),
)
def test_an_api_path_is_read_raw(raw: str, view: str, repository: str, revision: str, path: str) -> None:
    address = read_api(raw)
    assert (address.view, address.repository, address.revision, address.path) == (view, repository, revision, path)


@pytest.mark.parametrize(
    ("raw", "repository", "revision", "path"),
    (
        ("/ns/name/resolve/main/a/b.json", "ns/name", "main", "a/b.json"),
        ("/datasets/ns/name/resolve/v1/a.json", "ns/name", "v1", "a.json"),
        ("/gpt2/resolve/main/config.json", "gpt2", "main", "config.json"),
        ("/spaces/gpt2/resolve/main/config.json", "gpt2", "main", "config.json"),
        ("/ns/resolve/resolve/main/x", "ns/resolve", "main", "x"),
        ("/ns/name/raw/v1/README.md", "ns/name", "v1", "README.md"),
        ("/ns/raw/resolve/main/x", "ns/raw", "main", "x"),
        ("/ns/name/resolve/HEAD/config.json", "ns/name", "main", "config.json"),
        ("/ns/name/resolve/refs%2Fpr%2F1/a%20b", "ns/name", "refs/pr/1", "a b"),
        ("/ns/name/resolve/main/%2e%2e/%2e%2e/etc/passwd", "ns/name", "main", "../../etc/passwd"),
    ),
)
def test_a_resolve_path_is_read_raw(raw: str, repository: str, revision: str, path: str) -> None:
    address = read_resolve(raw)
    assert (address.repository, address.revision, address.path) == (repository, revision, path)


@pytest.mark.parametrize(
    "raw", ("/", "/x", "/ns/name", "/ns/name/resolve", "/ns/name/resolve/main", "/a/b/c/resolve/d/e")
)
def test_an_invalid_path_of_a_repository_is_not_found(raw: str) -> None:
    with pytest.raises(NotFound):
        read_resolve(raw)


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Malformed):
        read_resolve("/ns/name/resolve/main/%ff")


@pytest.mark.parametrize(
    "raw", ("/api/models/old/tree/main/a%20b", "/datasets/old/resolve/v1/a%2Fb", "/old/raw/HEAD/a", "/api/models/old")
)
def test_a_redirect_changes_the_name_and_nothing_else(raw: str) -> None:
    address = (read_api if raw.startswith("/api") else read_resolve)(raw)
    assert address.renamed("ns/new") == raw.replace("old", "ns/new")


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
