"""Files are found at a real node once their publication is proven there, also after a restart and by its mirror."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from comity.node.file_index import FILE_NAME
from comity.trust.encoding import Digest
from comity.wire.client import NodeClient
from comity.wire.files import file_pairs, file_reference
from comity_client.client import Client
from comity_client.home import Home
from support.federation import NodeHome, found, serving, until
from support.file_prefixes import prefixes_of
from support.publisher import Publisher, model, release, send
from support.seeded import seeded_bytes
from support.stores import hub_cache, oci_layout, ollama_store, tarred, write_files
from support.weights import safetensors


async def indexed(client: NodeClient, file: Digest) -> set[Digest]:
    """The artifacts that a node names for a file."""
    reference, artifacts = file_reference(file), set[Digest]()
    async for part in client.files(prefixes_of(8, [file])):
        pairs = file_pairs(part.of_members + part.of_others)
        artifacts |= {artifact for found, artifact in pairs if found == reference}
    return artifacts


async def names_it(home: NodeHome, file: Digest, artifact: Digest) -> None:
    async with home.client() as client:

        async def named() -> bool:
            return artifact in await indexed(client, file)

        await until(named)


def verified_and_adopted(client: Client, root: Path) -> None:
    """The folder as `hf download --local-dir` leaves it has the verdict of a pulled one, and goes into a cache."""
    model, notes = root / "model", root / "model" / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "weights.bin.metadata").write_text("6c1277e\n")
    pulled = client.pull("org/model@v1", to=root / "pulled")
    assert client.verify_by_files(model).verdict == pulled.verdict
    adopted = client.adopt(model, hub_cache=root / "cache", hard_links=True)
    assert client.verify(model).accepted
    hub = pytest.importorskip("huggingface_hub")
    found = hub.snapshot_download("org/model", revision="v1", cache_dir=root / "cache", local_files_only=True)
    assert Path(found) == adopted.cache
    assert (Path(found) / "weights.bin").read_bytes() == (model / "weights.bin").read_bytes()


@pytest.mark.slow
async def test_a_published_folder_is_identified_at_its_node_and_at_a_mirror(tmp_path: Path) -> None:
    publisher = Publisher.generate()
    founded = found(tmp_path / "nodes", 2, namespaces={"org": publisher.id})
    source, mirror = founded.homes
    tensors = {name: seeded_bytes(300 * 1024, name) for name in ("a", "b")}
    (model(tmp_path / "model", weights=10_000) / "model.safetensors").write_bytes(safetensors(tensors))
    made = release(publisher, tmp_path / "model", "org/model@v1")
    other = tmp_path / "other"
    other.write_bytes(safetensors({"x": tensors["a"], "y": seeded_bytes(300 * 1024, "y")}))
    weights = made.ingested.manifest.by_path["weights.bin"].sha256
    client = Client(Home(tmp_path / "home"))
    client.pin(founded.federation.encode())
    async with serving(source, mirror):
        async with source.client() as connected:
            await send(connected, made)
        for home in (source, mirror):
            await names_it(home, weights, made.artifact)
        identified = await asyncio.to_thread(client.identify, [tmp_path / "model"])
        (folder,) = identified.matched.folders
        assert (folder.artifact, folder.complete) == (made.artifact, True)
        assert {node.indexed for node in identified.nodes} == {len(made.ingested.manifest.files)}
        (same,) = (await asyncio.to_thread(client.identify, [other])).tensors.same
        assert (same.artifact, same.compared.renamed) == (made.artifact, ("x = a",))
        assert same.compared.not_found == ("y",) and same.compared.missing == ("b",)
        await asyncio.to_thread(verified_and_adopted, client, tmp_path)
    assert (source.directory / "data" / FILE_NAME).exists()
    async with serving(mirror):
        await names_it(mirror, weights, made.artifact)


@pytest.mark.slow
async def test_stores_and_archives_are_named_by_what_a_node_has_indexed(tmp_path: Path) -> None:
    """Of each model one whole copy, one that is cut by a byte, and one in each kind of store, all in one question."""
    publisher = Publisher.generate()
    founded = found(tmp_path / "nodes", 1, namespaces={"org": publisher.id})
    (home,) = founded.homes
    made = {
        name: release(publisher, model(tmp_path / name, weights=10_000), f"org/{name}@v1") for name in ("a", "b", "c")
    }
    disk, expected = tmp_path / "disk", dict[Path, tuple[str, str, Digest]]()
    for name, released in made.items():
        files = {entry.path: (tmp_path / name / entry.path).read_bytes() for entry in released.ingested.manifest.files}
        root = disk / name
        altered = {**files, "weights.bin": files["weights.bin"][:-1]}
        expected[write_files(root / "plain", files)] = ("complete", "", released.artifact)
        expected[write_files(root / "cut", altered)] = ("changed", "", released.artifact)
        snapshot = hub_cache(root, f"other/{name}", "1f" * 20, files, "main")
        expected[snapshot] = ("complete", f"other/{name}@main", released.artifact)
        layout = oci_layout(root / "oci", {"v1": [("application/octet-stream", *each) for each in files.items()]})
        expected[layout / "index.json!" / "v1"] = ("complete", "v1", released.artifact)
        store = ollama_store(root, f"registry.ollama.ai/library/{name}/8b", [("model", files["weights.bin"])])
        expected[store.with_name("8b!")] = ("partial", f"{name}:8b", released.artifact)
        write_files(root, {"model.tar": tarred(files)})
        expected[root / "model.tar!"] = ("complete", "", released.artifact)
    client = Client(Home(tmp_path / "home"))
    client.pin(founded.federation.encode())
    async with serving(home):
        async with home.client() as connected:
            for released in made.values():
                await send(connected, released)
        for released in made.values():
            await names_it(home, released.ingested.manifest.by_path["weights.bin"].sha256, released.artifact)
        identified = await asyncio.to_thread(client.identify, [disk])
    matched = identified.matched
    assert {each.folder: (each.state, each.stored_as, each.artifact) for each in matched.folders} == expected
    assert {each.path for each in matched.unknown} == {disk / name / "cut" / "weights.bin" for name in made}
    assert (matched.files, identified.unsure, identified.unread) == ((), (), ())
