"""Peers that send false data, withhold data or are slow: they delay no other peer, and nothing unverified is
accepted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity.trust.keys import PrivateKey
from comity.trust.statement import SideObject, Statement, Subject, sign_statement
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.wire.log import LogHead
from support.federation import Founded, NodeHome, converged, found, serving, until
from support.impostor import impostor
from support.publisher import Publisher, model, release, send

pytestmark = pytest.mark.slow


async def size_of(asked: NodeHome, origin: str) -> int:
    """The size of a log up to which a node has cosigned it."""
    async with asked.client() as client:
        try:
            return Checkpoint.parse(SignedNote.parse(await client.checkpoint(origin)).text).size
        except NotFound:
            return 0


async def told(asked: NodeHome, words: str) -> None:
    """Wait until a node reports a peer's fault to its operators."""
    async with asked.operator() as operator:

        async def tells() -> bool:
            return any(words in peer.last_error for peer in (await operator.status()).peers)

        await until(tells, what=f"the node to say {words!r}")


async def the_others_go_on(founded: Founded) -> None:
    """The two honest nodes still copy and cosign each other's new entries."""
    first, second, _ = founded.homes
    publisher = Publisher.generate()
    async with first.client() as client:
        receipt = (await client.submit([publisher.announcement])).receipts[0]
    await converged((first, second), first, least=receipt.index + 1)


async def test_a_peer_that_never_answers_delays_no_other(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    async with impostor(founded, third) as shown, serving(first, second):
        shown.pause = 3600
        await the_others_go_on(founded)


async def test_a_peer_that_sends_anothers_log_slowly_delays_no_other(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    async with impostor(founded, third) as shown, serving(first, second):
        async with first.client() as client:
            shown.extra = [head for head in await client.logs() if head.origin == first.origin]
        shown.pause = 1.0
        await the_others_go_on(founded)


async def test_entries_that_do_not_match_the_signed_root_are_not_kept(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    async with impostor(founded, third) as shown:
        head = shown.head()
        shown.lines.reverse()
        shown.head = lambda: head  # type: ignore[method-assign]  # of this one alone
        async with serving(first, second):
            await told(first, "has signed another root")
            await the_others_go_on(founded)
            assert await size_of(first, third.origin) == 0


async def test_a_head_by_another_key_is_refused(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    async with impostor(founded, third) as shown, serving(first, second):
        forged = Checkpoint(second.origin, 100, bytes(32)).signed(PrivateKey.generate("ed25519"))
        shown.extra = [LogHead(second.origin, str(second.record.log), forged.encode())]
        await told(first, "no signature by a known key")
        await the_others_go_on(founded)
        assert await size_of(first, second.origin) < 100


async def test_a_log_whose_side_objects_are_withheld_is_not_cosigned(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    publisher, body = Publisher.generate(), b"a body that only the publisher has"
    named = Statement("vouched", (Subject("", sha256(b"x")),), publisher.inception.author, {}, (SideObject.of(body),))
    async with impostor(founded, third) as shown:
        shown.lines += [publisher.announcement, sign_statement(named, publisher.signer).line]
        async with serving(first, second), first.client() as client:
            await told(first, "no such object here")
            assert await size_of(first, third.origin) == 0
            shown.objects[sha256(body)] = body

            async def mirrored() -> bool:
                return await size_of(first, third.origin) == len(shown.lines)

            await until(mirrored, what="the log to be mirrored once its objects are shown")
            assert (await client.stat([sha256(body)]))[0].have


async def test_a_peer_that_sends_other_bytes_damages_no_copy(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model"), "tests/model@v1")
    async with impostor(founded, third) as shown, serving(first, second), first.client() as client:
        shown.claimed = {file.sha256: file.size for file in what.ingested.manifest.files}
        await send(client, what)
        async with second.client() as copy:

            async def here() -> bool:
                return all(stat.have for stat in await copy.stat(list(what.blobs)))

            await until(here, what="the copy")
            for digest, path in what.blobs.items():
                data = path.read_bytes()
                assert b"".join([chunk async for chunk in copy.read(digest, 0, len(data))]) == data


async def test_an_endless_list_of_logs_is_cut_off(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    async with impostor(founded, third) as shown, serving(first, second):
        shown.extra = [shown.head()] * 20_000
        await told(first, "")
        await the_others_go_on(founded)
