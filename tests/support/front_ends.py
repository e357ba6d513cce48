"""Front ends for tests: homes with the public files of a node and no signing key, which read its PostgreSQL database
with a role that may only SELECT; and processes that run them.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any

from support.federation import NodeHome, NodeProcess
from support.ports import free_port
from support.postgres import READER, Postgres

PUBLIC_FILES = ("node.toml", "inception.line", "node-record.line", "rotations.lines", "federation.json")
MAIN = "import pathlib, sys; from comity.gateway.front_end import run; run(pathlib.Path(sys.argv[1]))"


def behind_an_address(writer: NodeHome) -> NodeHome:
    """Have the writer listen at another open port than the advertised one, at which a front end listens instead.
    Returns the writer's home as its publishers see it.
    """
    address = f"127.0.0.1:{free_port()}"
    writer.set("listen", open=address)
    writer.set("node", writer=address)
    return NodeHome(writer.directory, replace(writer.card, open=(address,)))


def make_front_end(directory: Path, writer: NodeHome, postgres: Postgres, database: str, address: str = "") -> NodeHome:
    """The home of a front end of `writer`, whose ledger is in `database`. `address` is that of its open port."""
    address = address or f"127.0.0.1:{free_port()}"
    (directory / "keys").mkdir(parents=True, mode=0o700)
    for name in PUBLIC_FILES:
        if (writer.directory / name).exists():
            shutil.copy2(writer.directory / name, directory / name)
    shutil.copy2(writer.directory / "keys" / "tls.pem", directory / "keys" / "tls.pem")
    home = NodeHome(directory, replace(writer.card, open=(address,)))
    home.set("node", role="front-end")
    home.set("listen", open=address)
    home.set("storage", database=postgres.url(database, READER), blobs=str(writer.config().storage.blobs))
    return home


class FrontEndProcess(NodeProcess):
    """A front end as a process of its own."""

    def __init__(self, home: NodeHome) -> None:
        super().__init__(home, main=MAIN)

    @property
    def url(self) -> str:
        """Of its gateway."""
        return next(str(event["url"]) for event in self.events if event.get("event") == "gateway")

    def get(self, path: str, *, body: bytes | None = None, accept: str = "*/*") -> Answer:
        """An answer of its gateway; with a body, to a POST."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)
