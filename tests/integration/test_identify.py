"""Files are found at a real node once their publication is proven there, also after a restart and by its mirror."""

from __future__ import annotations

import asyncio
from pathlib import Path

from comity.node.file_index import FILE_NAME
from comity.trust.encoding import Digest
from comity.wire.client import NodeClient
from comity.wire.files import file_pairs, file_reference
from comity_client.client import Client
from comity_client.home import Home
from support.federation import NodeHome, found, serving, until
from support.file_prefixes import prefixes_of
from support.publisher import Publisher, model, release, send


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


async def test_a_published_folder_is_identified_at_its_node_and_at_a_mirror(tmp_path: Path) -> None:
    publisher = Publisher.generate()
    founded = found(tmp_path / "nodes", 2, namespaces={"org": publisher.id})
    source, mirror = founded.homes
    made = release(publisher, model(tmp_path / "model", weights=10_000), "org/model@v1")
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
    assert (source.directory / "data" / FILE_NAME).exists()
    async with serving(mirror):
        await names_it(mirror, weights, made.artifact)
