"""A node during floods: its work for them is done once, in steps, and ends when the caller goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from attackers.forging import Identity
from attackers.forging import Release as RawRelease
from comity.ledger.proven import ProvenTables
from comity.node import intake
from comity.node.home import OpenedHome
from comity.node.intake import KnownKeys
from comity.node.threads import AsyncLedger
from comity.trust.authorship import Authorship
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.statement import Entry
from support.federation import NodeHome, found, make_home, serving, until
from support.publisher import Publisher, model, release, send

NAMES = 200
CALLS = 16
TO_NEXT_LINE = 3
"""Reads of a call from its begin to the first line that it gives out: the line is held until the next one is read,
which is of the next name, after the other claims to the first."""
FLOOD, NOBODY, JUNK = Identity.made("a flood"), Identity.made("nobody"), RawRelease(b"flood\n")


def write(home: NodeHome, lines: list[bytes]) -> None:
    """Let a node's own log begin with these lines, valid or not, and let it have the objects of `JUNK`."""
    opened = OpenedHome.open(home.config(), time.time)
    for part in JUNK.objects:
        opened.store.put(sha256(part), part)
    opened.ledger.tables.logs.append(opened.membership.own_node.log, lines)
    opened.close()


async def test_cancelled_reads_of_flooded_names_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "node", 0)
    write(home, [FLOOD.inception, *(FLOOD.publish(f"flood/n{number}@v1", JUNK) for number in range(NAMES))])
    reads, gate = Counter[str](), threading.Event()
    publications = ProvenTables.publications

    def gated(self: ProvenTables, name: str, *rest: object) -> object:
        reads[name] += 1
        gate.wait(60)
        return publications(self, name, *rest)  # type: ignore[arg-type]

    answers, in_steps = Counter[str](), AsyncLedger.in_steps

    async def counted(
        self: AsyncLedger, begin: Callable[[threading.Event], Iterator[object]], most: int
    ) -> AsyncGenerator[object, None]:
        answers["begun"] += 1
        try:
            async with aclosing(in_steps(self, begin, most)) as found:
                async for item in found:
                    yield item
        finally:
            answers["ended"] += 1

    monkeypatch.setattr(ProvenTables, "publications", gated)
    monkeypatch.setattr(AsyncLedger, "in_steps", counted)
    async with serving(home), home.client() as client:
        given_up = [asyncio.create_task(client.resolve("flood/")) for _ in range(CALLS)]

        async def begun() -> bool:
            return bool(reads)

        await until(begun, what="the first call to read")
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        await until(lambda: answers["begun"] == answers["ended"], what="the node to know that they are cancelled")
        gate.set()
        with pytest.raises(NotFound):
            await client.object(sha256(b"nothing"))
        for _ in range(2 * CALLS):
            await client.search("nothing")
        assert sum(reads.values()) <= CALLS * TO_NEXT_LINE, "no call reads further than to its next line"
        reads.clear()
        assert len(await client.resolve("flood/")) == NAMES + 1
        assert len(reads) == NAMES, "a call that is not cancelled makes as many reads as there are names"


@pytest.mark.slow
async def test_junk_in_a_mirrored_log_is_verified_once_and_stops_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = found(tmp_path, 2).homes
    junk = [NOBODY.publish(f"junk/n{number}@v1", JUNK) for number in range(1_000)]
    write(second, junk)
    verified, classify = Counter[Digest](), intake.classify

    def counted(entry: Entry, keys: KnownKeys) -> Authorship:
        verified[entry.digest] += 1
        return classify(entry, keys)

    monkeypatch.setattr(intake, "classify", counted)
    async with serving(first, second), second.client() as theirs, first.operator() as ours:
        what = release(Publisher.generate(), model(tmp_path / "model", weights=100_000), "tests/model@v1")
        await send(theirs, what)

        async def held() -> bool:
            return (await ours.status()).holds == 1

        await until(held, what="the copy")
        assert {verified[sha256(line)] for line in junk} == {1}
        await ours.resolve("tests/model")
        assert {verified[sha256(line)] for line in junk} == {1}
