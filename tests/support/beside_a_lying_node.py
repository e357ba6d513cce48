"""Two honest nodes as processes, a lying node that each of them knows under its own address, and a publisher."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path

from comity.transfer.limits import TransferLimits
from comity.trust.charter.document import CharterPolicy, quorum
from comity_client.client import Client
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.federation import NodeHome, NodeProcess, converged, make_home, processes, until
from support.forked import run_comity
from support.lying_node import Liar, ShownHistory
from support.ports import free_port
from support.publisher import model
from support.slow_links import SlowRelay
from support.waiting import PATIENCE

WEIGHTS = 13_000_000
"""Bytes: four pieces, so that each of three sources is asked for one at the same time."""
ENTRIES = 1_000
BYTES = 32 * 1024 * 1024
"""The limits of the honest nodes for one log."""
HASTY = TransferLimits(read_timeout=1.0, patience=PATIENCE)


@dataclass
class Scene:
    """Two honest nodes, each of which knows the lying node under another address, and a publisher."""

    folder: Path
    homes: tuple[NodeHome, NodeHome]
    nodes: tuple[NodeProcess, NodeProcess]
    liar: Liar
    histories: tuple[ShownHistory, ShownHistory]
    federation: bytes
    slow_relay: tuple[SlowRelay, SlowRelay]
    client: Client
    publisher: Publisher
    numbers: Iterator[int]
    known: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def publish(self) -> None:
        """A new artifact at the first node, with its statement `known` and its `files`. The lying node has the same
        bytes.
        """
        number = next(self.numbers)
        source = model(self.folder / f"source-{number}", weights=WEIGHTS, seed=number)
        self.known = f"tests/model-{number}@v1"
        self.files = {path.name: path.read_bytes() for path in source.iterdir()}
        self.liar.have(*self.files.values())
        self.client.publish(source, self.known, publisher=self.publisher, licence="MIT", nodes=[self.homes[0].name])

    def newcomer(self) -> Client:
        """A client without remembered checkpoints."""
        client = Client(Home(self.folder / f"user-{next(self.numbers)}"), limits=HASTY)
        client.pin(self.federation)
        return client

    def comity(self, client: Client, *arguments: str, status: int = 0) -> str:
        """The output of a command that exits with `status`, run as that client's user."""
        environ = {**os.environ, "COMITY_HOME": str(client.home.root)}
        ran = run_comity(*arguments, environ=environ, patience=60)
        assert ran.returncode == status, ran.stderr
        return ran.stdout + ran.stderr

    def noticed(self, event: str, *words: str, at: Sequence[NodeProcess] = (), **named: str) -> None:
        """Wait until each honest node has logged `event` with these fields and, as its reason, `words`."""
        for node in at or self.nodes:
            until_true(partial(says_somewhere, node, event, words, named), f"{event} {words}")

    def about_files(self, node: NodeProcess) -> list[dict[str, object]]:
        """What a node has logged about the files of the newest artifact."""
        blobs = {sha256(data).hexdigest() for data in self.files.values()}
        return [said for said in node.events if said.get("blob") in blobs]

    @contextmanager
    def slowly(self, what: str) -> Iterator[None]:
        """Slow the honest nodes down: else they may have sent all pieces, also those of the lying node, before its
        false answer arrives.
        """
        for narrow in self.slow_relay:
            narrow.rate = {"silence": 3e6, "a byte too many": 8e6, "no end": 8e6, "drops": 8e6}.get(what, 30e6)
        yield
        for narrow in self.slow_relay:
            narrow.rate = None

    def go_on(self) -> None:
        """The honest nodes still copy and cosign each other's new entries."""
        first, second = self.homes
        receipt = self.client.advise(
            self.known,
            "superseded",
            "low",
            f"number {next(self.numbers)}",
            publisher=self.publisher,
            nodes=[first.name],
        )
        asyncio.run(converged(self.homes, first, least=receipt.logged[0].index + 1))
        asyncio.run(converged(self.homes, second, least=2))

    def followed(self) -> None:
        """Wait until both honest nodes hold and cosign the whole log of the lying node."""
        for node, history in zip(self.nodes, self.histories, strict=True):
            self.noticed("cosigned", at=[node], origin=history.log.origin, size=str(len(history.log.lines)))


def says(said: dict[str, object], event: str, words: Sequence[str], named: Mapping[str, str]) -> bool:
    if said.get("event") != event:
        return False
    reason = f"{said.get('why')} {said.get('faults')}"
    return all(word in reason for word in words) and all(str(said.get(key)) == value for key, value in named.items())


def says_somewhere(node: NodeProcess, event: str, words: Sequence[str], named: Mapping[str, str]) -> bool:
    return any(says(said, event, words, named) for said in node.events)


def until_true(condition: Callable[[], bool], what: str) -> None:
    asyncio.run(until(condition, what=what))


@contextmanager
def staged(folder: Path, *, interval: float = 0.2) -> Iterator[Scene]:
    homes = tuple(make_home(folder / f"node-{number}", number, interval=interval) for number in range(3))
    first, second, third = homes
    body = draft_genesis(
        [home.card for home in homes],
        CharterPolicy(quorum(3), min_copies=2, min_jurisdictions=2, cosigner_quorum=1),
    )
    consents = [consent_to(body, home.directory) for home in homes]
    liar = Liar(third.directory)
    slow_relay = (SlowRelay(first.card.open[0]), SlowRelay(second.card.open[0]))
    honest = [
        replace(home.card, mutual=(), open=(narrow.address,))
        for home, narrow in zip((first, second), slow_relay, strict=True)
    ]
    histories = []
    for home in (first, second):
        history = liar.listen(f"127.0.0.1:{free_port()}")
        histories.append(history)
        card = replace(third.card, mutual=(history.address,), open=(history.address,))
        federation = seal_federation(body, consents, [card, *honest]).encode()
        (home.directory / "federation.json").write_bytes(federation)
        home.set("advertise", mutual=[], open=[slow_relay[len(histories) - 1].address])
        home.set("limits", entries_per_origin=ENTRIES, bytes_per_origin=BYTES)
    client = Client(Home(folder / "publisher"), limits=HASTY)
    client.pin(federation)
    publisher = client.new_publisher("tests", "NO", first.origin)
    try:
        with processes(first, second) as (one, two):
            for node in (one, two):
                asyncio.run(node.ready())
            scene = Scene(
                folder,
                (first, second),
                (one, two),
                liar,
                (histories[0], histories[1]),
                federation,
                slow_relay,
                client,
                publisher,
                count(1),
            )
            yield scene
    finally:
        liar.close()
        for narrow in slow_relay:
            narrow.close()


async def shown_by(home: NodeHome, origin: str) -> bytes:
    async with home.client() as client:
        return await client.checkpoint(origin)


async def proofs_of(home: NodeHome) -> list[tuple[str, str, tuple[bytes, ...]]]:
    async with home.client() as client:
        return [(told.kind, told.origin, told.parts) for told in await client.misbehaviour()]


async def warned(home: NodeHome, *words: str) -> None:
    async with home.operator() as operator:

        async def warns() -> bool:
            return any(all(word in warning for word in words) for warning in (await operator.status()).warnings)

        await until(warns, what=f"a warning of {words}")
