"""A node's own log and outside witnesses: their cosignatures are kept and shown, and their failures delay nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from comity.content.secrets import write_keys
from comity.gateway.app import serve_gateway
from comity.rules.cosigned_times import verified_cosigners
from comity.rules.witness import AddCheckpoint, encode_signatures
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import Checkpoint, VerifierKey, cosign, cosigner_key, open_checkpoint
from support.federation import NodeHome, introduced, make_home, note_of, serving, until
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

KEY = PrivateKey.generate("ed25519")
NAME = "witness.example/w1"
VKEY = cosigner_key(NAME, KEY.public)


@dataclass
class FakeWitness:
    """A witness whose answers the test chooses; it keeps the requests."""

    key: VerifierKey
    answer: Callable[[AddCheckpoint], tuple[int, bytes]]
    shown: list[AddCheckpoint] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /prefix/add-checkpoint HTTP/1.1\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        request = AddCheckpoint.parse(await reader.readexactly(int(length.split(b":")[1])))
        self.shown.append(request)
        status, body = self.answer(request)
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def witness(answer: Callable[[AddCheckpoint], tuple[int, bytes]]) -> AsyncIterator[FakeWitness]:
    fake = FakeWitness(VKEY, answer)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    async with server:
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix"
        yield fake


def signature(request: AddCheckpoint, key: PrivateKey = KEY) -> bytes:
    return encode_signatures([cosign(Checkpoint.parse(request.checkpoint.text), NAME, key, 1_795_000_000)])


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    home = make_home(tmp_path / "home", 0)
    home.set("replication", first_answer_seconds=0)
    return home


async def shows_cosignature(home: NodeHome, key: VerifierKey = VKEY) -> bool:
    async with home.client() as client:
        note = await note_of(client, home.origin)
    if note is None:
        return False
    checkpoint = open_checkpoint(note, home.record.log)
    return checkpoint.size >= 2 and key in verified_cosigners(note, [key], checkpoint)


async def test_a_node_of_ours_is_a_witness_for_another_one(home: NodeHome, tmp_path: Path) -> None:
    watcher = make_home(tmp_path / "watcher", 1)
    write_keys(watcher.directory / "keys" / "witness.pem", (KEY,))
    watcher.set("tlog", witness=[str(home.record.log)], witness_name=NAME)
    async with serving(watcher, companion=serve_gateway) as (listening,):
        home.set("tlog", submit=[f"{VKEY} {listening.http}/tlog"])
        async with serving(home, companion=serve_gateway):
            await until(lambda: shows_cosignature(home), what="the other node to cosign")


async def test_each_submission_continues_the_last_one_with_a_proof(home: NodeHome) -> None:
    async with witness(lambda request: (200, signature(request))) as fake:
        home.set("tlog", submit=[f"{VKEY} {fake.url}"])
        async with serving(home):
            await until(lambda: shows_cosignature(home), what="a cosignature")
    before = None
    for request in fake.shown:
        checkpoint = open_checkpoint(request.checkpoint, home.record.log)
        assert len(request.checkpoint.signatures) == 1
        if before is not None:
            assert request.old == before.size
            verify_consistency(before.size, before.root, checkpoint.size, checkpoint.root, request.proof)
        before = checkpoint


async def test_a_submission_continues_from_the_size_that_the_witness_names(home: NodeHome) -> None:
    def answer(request: AddCheckpoint) -> tuple[int, bytes]:
        return (200, signature(request)) if request.old == 1 else (409, b"1\n")

    async with witness(answer) as fake:
        home.set("tlog", submit=[f"{VKEY} {fake.url}"])
        async with serving(home):
            await until(lambda: shows_cosignature(home), what="a cosignature")


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: (200, signature(request, PrivateKey.generate("ed25519"))),
        lambda request: (200, b"no signature at all"),
        lambda request: (200, b""),
        lambda request: (409, b"999999\n"),
        lambda request: (409, b"many\n"),
        lambda request: (500, b""),
        lambda request: (422, b""),
    ],
    ids=["another's", "arbitrary bytes", "nothing", "ahead", "no size", "broken", "unprocessable"],
)
async def test_a_witness_that_does_not_sign_costs_the_log_nothing(
    home: NodeHome, answer: Callable[[AddCheckpoint], tuple[int, bytes]]
) -> None:
    async with witness(answer) as fake:
        home.set("tlog", submit=[f"{VKEY} {fake.url}"])
        async with serving(home):
            await introduced(home)
            await until(lambda: bool(fake.shown), what="the witness to be asked")
            assert not await shows_cosignature(home)


async def test_a_witness_that_is_not_there_costs_the_log_nothing(home: NodeHome) -> None:
    home.set("tlog", submit=[f"{VKEY} http://127.0.0.1:1"])
    async with serving(home):
        await introduced(home)
        assert not await shows_cosignature(home)


async def test_the_gateway_shows_the_cosignature_of_an_outside_witness(home: NodeHome) -> None:
    async with witness(lambda request: (200, signature(request))) as fake:
        home.set("tlog", submit=[f"{VKEY} {fake.url}"])
        async with (
            serving(home, companion=serve_gateway) as (listening,),
            httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as http,
        ):
            await until(lambda: shows_cosignature(home), what="a cosignature")
            (log,) = (await http.get("/tlog")).json()["logs"]
            assert NAME in (await http.get(f"{log['prefix']}/checkpoint")).text
