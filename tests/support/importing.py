"""Nodes that import from the Hub of the tests: homes, running processes, and a user who pinned them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.transfer.limits import TransferLimits
from comity_client.client import Client
from comity_client.events import OnEvent, ignore_event
from comity_client.home import Home
from comity_client.importing import Imported
from support.federation import Founded, NodeHome, NodeProcess, found, processes
from support.hub_like import HubLike
from support.waiting import PATIENCE
from support.weights import as_tensor

NAME = "org/tiny"
WEIGHTS = as_tensor(bytes(range(256)) * 20_000)
FILES = {
    "LICENSE": b"Do as you like.\n",
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "sub/note.txt": b"Nobody can take it away.\n",
    "weights.bin": WEIGHTS,
}


@dataclass(frozen=True)
class Importers:
    """Running nodes and their user's client."""

    founded: Founded
    nodes: tuple[NodeProcess, ...]
    client: Client

    def home(self, number: int = 0) -> NodeHome:
        return self.founded.homes[number]

    def mirror(
        self,
        hub: HubLike,
        number: int = 0,
        source: str | Path = f"hf:{NAME}",
        on_event: OnEvent = ignore_event,
        **more: Any,
    ) -> Imported:
        hosts = [hub.cdn.removeprefix("http://")]
        socket = str(self.home(number).socket)
        given = {"endpoint": hub.url, "hosts": hosts, **more}
        return self.client.import_upstream(source, socket, on_event=on_event, **given)

    def check(self, name: str, number: int = 0) -> Any:
        return self.client.check_upstream(name, str(self.home(number).socket))


@contextmanager
def importers(folder: Path, count: int) -> Iterator[Importers]:
    founded = found(folder / "nodes", count)
    client = Client(Home(folder / "user"), limits=TransferLimits(patience=PATIENCE))
    client.pin(founded.federation.encode())
    with processes(*founded.homes) as nodes:
        for node in nodes:
            asyncio.run(node.ready())
        yield Importers(founded, nodes, client)
