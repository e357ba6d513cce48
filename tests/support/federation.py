"""A federation to test with: node homes on loopback, founded as members would found it, and nodes running on them.

Homes come from `comity_client.node_home`, exactly as `comity init` makes them. A node runs in this process
(`serving`), on the test's own event loop, or as a process of its own (`NodeProcess`), which can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comity.federation_file import Federation
from comity.node.app import Companion, no_companion, serve
from comity.node.config import NodeConfig
from comity.node.listeners import ListenAddresses
from comity.rules.cosigned_times import verified_cosigners
from comity.trust.charter.document import CharterPolicy, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Unavailable
from comity.trust.node_records import NodeRecord
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES
from comity.trust.tlog.note import Checkpoint, SignedNote, open_checkpoint
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings, NewNode, init_node
from support.forked import ForkedProgram
from support.ports import free_port
from support.waiting import PATIENCE, pause_after

JURISDICTIONS = ("CH", "ES", "KR", "SG", "BR", "KE", "NO", "JP", "CA")


_MAIN = "import pathlib, sys; from comity.node.app import run; run(pathlib.Path(sys.argv[1]))"
WITH_GATEWAY = (
    "import pathlib, sys; from comity.gateway.app import serve_gateway; from comity.node.app import run;"
    "run(pathlib.Path(sys.argv[1]), serve_gateway)"
)


@dataclass(frozen=True)
class NodeHome:
    """A node's home directory and its public card."""

    directory: Path
    card: NodeCard

    @property
    def record(self) -> NodeRecord:
        return self.card.record

    @property
    def origin(self) -> str:
        return self.record.origin

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def listener_port(self) -> int:
        return int(self.card.open[0].rpartition(":")[2])

    @property
    def socket(self) -> Path:
        return self.config().listen.operator

    def config(self) -> NodeConfig:
        return NodeConfig.load(self.directory / "node.toml", environ={})

    def set(self, section: str, **values: object) -> None:
        """Change settings of node.toml, or add them."""
        path = self.directory / "node.toml"
        lines = path.read_text().splitlines()
        for key, value in values.items():
            begin = lines.index(f"[{section}]") + 1
            end = next((at for at in range(begin, len(lines)) if lines[at].startswith("[")), len(lines))
            kept = [line for line in lines[begin:end] if line.split("=")[0].strip() != key]
            lines[begin:end] = [f"{key} = {json.dumps(value)}", *kept]
        path.write_text("\n".join(lines) + "\n")

    def client(self) -> NodeClient:
        """A client at the open port, as a stranger has it."""
        return NodeClient.connect(Address.parse(self.card.open[0]), CertificatePin.of(self.record.tls))

    def operator(self) -> NodeClient:
        return NodeClient.operator(self.socket)


@dataclass(frozen=True)
class Founded:
    """Node homes that pinned one federation."""

    federation: Federation
    homes: tuple[NodeHome, ...]

    def __iter__(self) -> Iterator[NodeHome]:
        return iter(self.homes)


def make_home(directory: Path, number: int, *, interval: float = 0.3, origin: str = "") -> NodeHome:
    """A home as `comity init` makes it, on free loopback ports, in no federation yet."""
    card = init_node(
        directory,
        NewNode(
            jurisdiction=JURISDICTIONS[number],
            org=f"Example Institute {number}",
            node_name=f"node-{JURISDICTIONS[number].lower()}.example",
            mutual=f"127.0.0.1:{free_port()}",
            open_=f"127.0.0.1:{free_port()}",
            listeners=ListenSettings(http="127.0.0.1:0"),
            origin=origin,
        ),
    )
    home = NodeHome(directory, card)
    home.set("replication", interval_seconds=interval, first_answer_seconds=1.0)
    home.set("publishing", accept="any")
    return home


def found(
    folder: Path,
    count: int,
    *,
    interval: float = 0.3,
    namespaces: Mapping[str, Digest] | None = None,
    policy: tuple[int, int] | None = None,
) -> Founded:
    """`count` node homes below `folder`, one for each member and jurisdiction, founded into a federation. `policy` has
    the copies and jurisdictions that the charter requires; by default all.
    """
    homes = tuple(make_home(folder / f"node-{number}", number, interval=interval) for number in range(count))
    copies, jurisdictions = policy or (count, count)
    rules = CharterPolicy(quorum(count), copies, jurisdictions, cosigner_quorum=min(2, count - 1))
    body = draft_genesis([home.card for home in homes], rules, namespaces)
    consents = [consent_to(body, home.directory) for home in homes]
    federation = seal_federation(body, consents, [home.card for home in homes])
    for home in homes:
        (home.directory / "federation.json").write_bytes(federation.encode())
    return Founded(federation, homes)


@contextlib.asynccontextmanager
async def serving(
    *homes: NodeHome, clock: Callable[[], float] = time.time, companion: Companion = no_companion
) -> AsyncIterator[tuple[ListenAddresses, ...]]:
    """Run nodes on this event loop; when the block ends, all have been shut down."""
    async with contextlib.AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(_serving(home, clock, companion)) for home in homes])


@contextlib.asynccontextmanager
async def _serving(home: NodeHome, clock: Callable[[], float], companion: Companion) -> AsyncIterator[ListenAddresses]:
    ready: asyncio.Future[ListenAddresses] = asyncio.get_running_loop().create_future()
    running = serve(home.config(), clock=clock, ready=ready.set_result, companion=companion)
    node = asyncio.create_task(running, name=home.name)
    try:
        await asyncio.wait((node, ready), return_when=asyncio.FIRST_COMPLETED)
        if node.done():
            node.result()
        yield ready.result()
        if node.done():
            node.result()
    finally:
        node.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await node


class NodeProcess:
    """A node as a process of its own. Its log of events is `node.log` in its home.

    Args:
        fresh: start a Python of its own, because memory or limits of a process are measured.
    """

    def __init__(
        self, home: NodeHome, environ: Mapping[str, str] | None = None, *, main: str = _MAIN, fresh: bool = False
    ) -> None:
        self.home = home
        self._log = home.directory / "node.log"
        self._log.touch(0o600)
        self._begin = self._parsed = self._log.stat().st_size
        self._events: list[dict[str, object]] = []
        file, whole = str(home.directory / "node.toml"), {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | ForkedProgram
        if fresh:
            self._process = fresh_process(main, file, whole, self._log)
        else:
            self._process = ForkedProgram.python(main, file, environ=whole, log=self._log)

    @property
    def events(self) -> list[dict[str, object]]:
        """The events that this process has logged. Waits read it repeatedly: each line is parsed once."""
        with self._log.open("rb") as log:
            log.seek(self._parsed)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._parsed += len(whole + newline)
        self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [*self._events]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def ready(self, patience: float = PATIENCE) -> None:
        """Return once its listeners are open."""
        await until(self._listening, patience=patience, what=f"{self.home.name} to listen")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and wait; its exit status."""
        self.signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def ended(self) -> int:
        """Wait for its end; its exit status."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def words(self) -> str:
        """The whole output of this process."""
        return self._log.read_bytes()[self._begin :].decode()

    def _listening(self) -> bool:
        if self._process.poll() is not None:
            status = self._process.returncode
            raise AssertionError(f"{self.home.name} ended with status {status}: {self.words[-2000:]}")
        return any(event.get("event") == "listening" for event in self.events)


def fresh_process(program: str, file: str, environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`python -c PROGRAM FILE`, with its output added to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", program, file], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
        )


@contextlib.contextmanager
def processes(*homes: NodeHome) -> Iterator[tuple[NodeProcess, ...]]:
    """Run nodes as processes; none is left when the block ends."""
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(contextlib.closing(NodeProcess(home))) for home in homes)


async def introduced(home: NodeHome) -> None:
    """Wait until the node has logged its node record, under a signed checkpoint."""
    async with home.client() as client:

        async def covered() -> bool:
            try:
                note = await client.checkpoint(home.origin, 2)
            except NotFound:
                return False
            return bool(note)

        await until(covered, what="the node to introduce itself")


async def note_of(client: NodeClient, origin: str) -> SignedNote | None:
    try:
        return SignedNote.parse(await client.checkpoint(origin))
    except NotFound:
        return None


def cosigners(home: NodeHome, note: SignedNote, others: Iterable[NodeHome]) -> set[str]:
    """The names of `others` both of whose cosigner keys stand under a checkpoint of `home`'s log."""
    checkpoint = open_checkpoint(note, home.record.log)
    keys = [key for other in others for key in other.record.cosigners]
    good = verified_cosigners(note, keys, checkpoint)
    return {other.name for other in others if set(other.record.cosigners) <= set(good)}


async def converged(
    homes: tuple[NodeHome, ...], origin: NodeHome, *, least: int = 0, watch: Callable[[], None] = lambda: None
) -> SignedNote:
    """Wait until all of `homes` show one checkpoint of `origin`'s log, cosigned by every other founder among them. A
    node that was just started may not listen yet; this is waited for, too. A connection is kept while it works, since a
    new one costs more than the question. `watch` is called before each try, and may raise.
    """
    others = [home for home in homes if home is not origin]
    seen: list[SignedNote] = []
    clients: dict[str, NodeClient] = {}

    async def equal() -> bool:
        watch()
        seen.clear()
        for home in homes:
            if home.name not in clients:
                clients[home.name] = home.client()
            try:
                note = SignedNote.parse(await clients[home.name].checkpoint(origin.origin))
            except Unavailable:
                await clients.pop(home.name).close()
                return False
            if Checkpoint.parse(note.text).size < least:
                return False
            if cosigners(origin, note, others) != {home.name for home in others}:
                return False
            seen.append(note)
        return len({note.text for note in seen}) == 1

    try:
        await until(equal, what=f"one cosigned checkpoint of {origin.origin} everywhere")
    finally:
        for client in clients.values():
            await client.close()
    return seen[0]


async def until(condition: Callable[[], object], *, patience: float = PATIENCE, what: str = "the condition") -> None:
    """Return once `condition` (a function, or one that gives an awaitable) holds; fail after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        asked = time.monotonic()
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        await asyncio.sleep(pause_after(asked, least=0.05))


async def holds(asked: NodeHome, artifact: Digest, holder: NodeHome) -> bool:
    """Whether a node shows another's hold, from the holder's own log."""
    async with asked.client() as client:
        try:
            claims = await client.claims(artifact)
        except NotFound:
            return False
    found = [each for each in claims if each.origin == holder.origin]
    return any(parse_entry(each.line).statement.predicate in HOLD_PREDICATES for each in found)
