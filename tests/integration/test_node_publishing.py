"""Publications through a node: the conditions for logging a line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from comity.rules.pieces import PieceIndex, check_records
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.trust.statement import Author, SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statements import Advisory, Published
from comity.wire.client import NodeClient
from comity.wire.publish import InlineObject, UploadHeader
from support.derivations import derived_line
from support.federation import NodeHome, introduced, make_home, serving
from support.publisher import Publisher, Release, chunks, model, release, send
from support.weights import as_tensor
from support.world import identity


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return make_home(tmp_path / "home", 0)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = model(tmp_path_factory.mktemp("ready") / "model")
    return release(Publisher.generate(), folder, "tests/model@v1")


async def entries(client: NodeClient, origin: str) -> list[bytes]:
    return [line async for batch in client.entries(origin, 0, 1000) for line in batch.lines]


async def test_a_folder_is_published_and_read_back(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        submitted = await send(client, ready)
        assert [receipt.line_digest for receipt in submitted.receipts] == [sha256(line) for line in ready.lines]
        lines = await entries(client, home.origin)
        assert [lines[receipt.index] for receipt in submitted.receipts] == list(ready.lines)
        for digest, path in ready.blobs.items():
            data = path.read_bytes()
            assert b"".join([chunk async for chunk in client.read(digest, 0, len(data))]) == data
            assert b"".join([chunk async for chunk in client.read(digest, 7, 100)]) == data[7:107]
        claim, *_ = await client.resolve("tests/model")
        assert claim.line == ready.entry.line


async def test_the_node_serves_the_records_of_uploaded_files(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        await send(client, ready)
        for file, (_, layout) in zip(ready.ingested.manifest.files, ready.ingested.index.files, strict=True):
            records = await client.records(file.sha256, layout.layout)
            check_records(records, size=file.size, expected=layout)


async def test_submitting_again_gives_the_same_receipts(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        first = await send(client, ready)
        size = len(await entries(client, home.origin))
        assert (await client.submit(ready.lines)).receipts == first.receipts
        assert len(await entries(client, home.origin)) == size
    async with serving(home), home.client() as client:
        assert (await client.submit(ready.lines)).receipts == first.receipts


async def test_nothing_is_logged_while_an_object_is_missing(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        await send(client, release(Publisher.generate(), ready.blobs[min(ready.blobs)].parent, "tests/other@v1"))
        other = model(home.directory / "other", seed=2)
        waiting = release(ready.publisher, other, "tests/model@v2")
        asked = await client.submit(waiting.lines)
        assert {missing.digest for missing in asked.missing} <= set(waiting.objects)
        asked = await client.submit(waiting.lines, waiting.inline())
        assert {missing.digest for missing in asked.missing} == set(waiting.blobs)
        assert not set(waiting.lines) & set(await entries(client, home.origin))


async def test_an_upload_resumes_where_it_stopped(home: NodeHome, ready: Release) -> None:
    digest = max(ready.blobs, key=lambda blob: ready.blobs[blob].stat().st_size)
    data = ready.blobs[digest].read_bytes()
    async with serving(home), home.client() as client:
        asked = await client.submit(ready.lines, ready.inline())
        header = UploadHeader(asked.submission, digest, len(data), 0)
        assert await client.upload(header, chunks(data[:3_000_000])) == 3_000_000
        with pytest.raises(Conflict, match="wrong upload offset"):
            await client.upload(header, chunks(data))
    async with serving(home), home.client() as client:
        asked = await client.submit(ready.lines, ready.inline())
        (partly,) = [missing for missing in asked.missing if missing.digest == digest]
        assert partly.received == 3_000_000
        header = UploadHeader(asked.submission, digest, len(data), partly.received)
        assert await client.upload(header, chunks(data[partly.received :])) == len(data)
        assert (await client.stat([digest]))[0].have


async def test_bytes_that_differ_from_their_name_are_not_kept(home: NodeHome, ready: Release) -> None:
    digest = min(ready.blobs)
    size = ready.blobs[digest].stat().st_size
    async with serving(home), home.client() as client:
        asked = await client.submit(ready.lines, ready.inline())
        with pytest.raises(Untrusted):
            await client.upload(UploadHeader(asked.submission, digest, size, 0), chunks(bytes(size)))
        again = await client.submit(ready.lines, ready.inline())
        assert {missing.received for missing in again.missing} == {0}
        assert not (await client.stat([digest]))[0].have


async def test_an_upload_without_a_submission_is_refused(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        with pytest.raises(NotFound) as refused:
            await client.upload(UploadHeader(sha256(b"no submission"), sha256(b"x"), 1, 0), chunks(b"x"))
        assert refused.value.code == "NO-SUBMISSION"
        asked = await client.submit(ready.lines, ready.inline())
        with pytest.raises(NotFound) as refused:
            await client.upload(UploadHeader(asked.submission, sha256(b"x"), 1, 0), chunks(b"x"))
        assert refused.value.code == "NOT-WANTED"


async def test_an_object_that_no_line_names_is_refused(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        with pytest.raises(Malformed):
            await client.submit(ready.lines, [*ready.inline(), InlineObject(sha256(b"rider"), b"rider")])


async def test_a_statement_by_anothers_key_is_refused(home: NodeHome, ready: Release) -> None:
    thief = Publisher.generate("thief")
    forged = sign_content(Published.parse(ready.entry.statement), thief.signer)
    async with serving(home), home.client() as client:
        with pytest.raises(Untrusted) as refused:
            await client.submit([ready.publisher.announcement, forged.line], ready.inline())
        assert refused.value.code == "SIGNATURE"


async def test_a_publisher_without_inception_is_asked_for_it(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        with pytest.raises(NotFound) as refused:
            await client.submit([ready.entry.line], ready.inline())
        assert refused.value.code == "UNKNOWN-IDENTITY"


async def test_a_statement_of_unknown_kind_is_logged_for_a_known_identity(home: NodeHome) -> None:
    publisher = Publisher.generate()
    odd = Statement("dreamt", (Subject("x", sha256(b"x")),), publisher.inception.author, {"of": "sheep"})
    line = sign_statement(odd, publisher.signer).line
    async with serving(home), home.client() as client:
        assert len((await client.submit([publisher.announcement, line])).receipts) == 2
        other = replace(odd, body={"of": "wolves"})
        with pytest.raises(Untrusted):
            await client.submit([sign_statement(other, Publisher.generate().signer).line])


async def test_copies_of_a_logged_statement_get_its_index_and_are_not_logged(home: NodeHome) -> None:
    """A copy padded with a junk signature, and one that its author signed again."""
    publisher = Publisher.generate()
    odd = Statement("dreamt", (Subject("x", sha256(b"x")),), publisher.inception.author, {"of": "sheep"})
    line = sign_statement(odd, publisher.signer).line
    padded = sign_statement(odd, publisher.signer, Publisher.generate().signer).line
    again = sign_statement(odd, publisher.signer).line
    async with serving(home), home.client() as client:
        logged = await client.submit([publisher.announcement, line])
        size = len(await entries(client, home.origin))
        assert len({line, padded, again}) == 3
        assert (await client.submit([padded, again])).receipts == (logged.receipts[1],) * 2
        assert len(await entries(client, home.origin)) == size


async def test_an_advisory_is_found_beside_the_artifact(home: NodeHome, ready: Release) -> None:
    by = Author("identity", ready.publisher.id)
    advisory = sign_content(Advisory(by, ready.artifact, "yank", "low", "wrong file"), ready.publisher.signer)
    async with serving(home), home.client() as client:
        await send(client, ready)
        await client.submit([advisory.line])
        assert advisory.line in {found.line for found in await client.resolve("tests/model", "v1")}
        said = {found.line for found in await client.claims(ready.artifact)}
        assert {*ready.lines, advisory.line, home.card.record_line} == said


async def test_a_derivation_is_logged_for_its_signer_and_found_with_the_child(home: NodeHome, ready: Release) -> None:
    checker = identity("Checking lab", "ES")
    line = derived_line(ready.artifact, by=checker)
    statement = parse_entry(line).statement
    forged = sign_statement(statement, Publisher.generate().signer).line
    exact = dict(statement.body) | {"relation": "overlap"}
    contradicting = sign_statement(replace(statement, body=exact), checker.signer).line
    async with serving(home), home.client() as client:
        await send(client, ready)
        for refused, error in ((forged, Untrusted), (contradicting, Malformed)):
            with pytest.raises(error):
                await client.submit([checker.entry.line, refused])
        await client.submit([checker.entry.line, line])
        said = {found.line for found in await client.claims(ready.artifact)}
        assert {line, checker.entry.line} <= said


async def test_a_piece_index_that_is_not_these_files_is_refused(home: NodeHome, ready: Release) -> None:
    files = tuple((path, replace(layout, root=sha256(b"wrong"))) for path, layout in ready.ingested.index.files)
    index = PieceIndex(files).encode()
    said = Published.parse(ready.entry.statement)
    wrong = sign_content(replace(said, pieces=SideObject.of(index)), ready.publisher.signer)
    objects = {**ready.objects, sha256(index): index}
    del objects[said.pieces.digest]
    bad = replace(ready, entry=wrong, objects=objects)
    async with serving(home), home.client() as client:
        with pytest.raises(Untrusted) as refused:
            await send(client, bad)
        assert refused.value.code == "PIECE-RECORDS"
        with pytest.raises(NotFound):
            await client.resolve("tests/model")


async def test_a_node_that_accepts_no_publisher_says_so(home: NodeHome, ready: Release) -> None:
    home.set("publishing", accept="none")
    async with serving(home), home.client() as client, home.operator() as operator:
        with pytest.raises(Refused) as refused:
            await client.submit(ready.lines, ready.inline())
        assert refused.value.code == "PUBLISHING-CLOSED"
        await send(operator, ready)


async def test_only_listed_publishers_are_accepted(home: NodeHome, ready: Release) -> None:
    home.set("publishing", accept=[ready.publisher.id])
    other = release(Publisher.generate("other"), ready.blobs[min(ready.blobs)].parent, "other/model@v1")
    async with serving(home), home.client() as client:
        await send(client, ready)
        with pytest.raises(Refused) as refused:
            await client.submit(other.lines, other.inline())
        assert refused.value.code == "NOT-ACCEPTED"


async def test_an_operator_has_files_adopted_without_a_copy(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.operator() as operator:
        asked = await operator.submit(ready.lines, ready.inline())
        for missing in asked.missing:
            path = ready.blobs[missing.digest]
            assert not await operator.adopt(path, missing.digest, missing.size)
            assert await operator.adopt(path, missing.digest, missing.size)
            assert path.stat().st_nlink == 2
        assert (await operator.submit(ready.lines, ready.inline())).receipts


async def test_a_file_with_other_bytes_is_not_adopted(home: NodeHome, tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(b"these bytes")
    link.symlink_to(file)
    os.mkfifo(pipe)
    async with serving(home), home.operator() as operator:
        for path, name, size, kind in (
            (file, sha256(b"other bytes"), 11, Untrusted),
            (file, sha256(b"these bytes"), 12, Untrusted),
            (link, sha256(b"these bytes"), 11, Malformed),
            (pipe, sha256(b""), 0, Malformed),
            (tmp_path / "nothing", sha256(b""), 0, NotFound),
        ):
            with pytest.raises(kind):
                await operator.adopt(path, name, size)
        assert not (await operator.stat([sha256(b"these bytes")]))[0].have


async def test_a_submission_beyond_the_upload_quota_is_refused(home: NodeHome, ready: Release) -> None:
    home.set("limits", upload_bytes=1000000)
    async with serving(home), home.client() as client:
        with pytest.raises(OutOfSpace) as refused:
            await client.submit(ready.lines, ready.inline())
        assert refused.value.code == "UPLOAD-QUOTA"


async def test_a_full_log_takes_nothing_more_from_strangers(home: NodeHome, ready: Release) -> None:
    home.set("limits", entries_per_origin=3)
    async with serving(home), home.client() as client, home.operator() as operator:
        await introduced(home)
        with pytest.raises(OutOfSpace) as refused:
            await client.submit(ready.lines, ready.inline())
        assert refused.value.code == "LOG-QUOTA"
        await send(operator, ready)


def said(publisher: Publisher, number: int) -> bytes:
    """A small statement; another one for each number."""
    statement = Statement("noted", (Subject("", sha256(b"%d" % number)),), publisher.inception.author, {"at": number})
    return sign_statement(statement, publisher.signer).line


async def test_submissions_of_outsiders_leave_half_of_the_log_and_the_shares_of_others(home: NodeHome) -> None:
    flooder, honest = Publisher.generate(), Publisher.generate()
    home.set("limits", entries_per_origin=128)  # 64 for outsiders, 4 for each author
    home.set("publishing", accept=[flooder.id, honest.id])
    flood = [flooder.announcement, *(said(flooder, number) for number in range(3))]
    for _ in range(2):  # submissions before a restart count, and a logged statement costs nothing
        async with serving(home), home.client() as client, home.operator() as operator:
            await introduced(home)
            await client.submit(flood)
            with pytest.raises(OutOfSpace) as refused:
                await client.submit([said(flooder, 99)])
            assert refused.value.code == "LOG-SHARE"
            await client.submit([honest.announcement, said(honest, 1)])
            await operator.submit([said(flooder, 100)])


async def test_one_address_has_no_more_than_its_share_however_many_authors_it_makes(home: NodeHome) -> None:
    home.set("limits", entries_per_origin=128)
    async with serving(home), home.client() as client, home.operator() as operator:
        await introduced(home)
        for _ in range(4):
            await client.submit([Publisher.generate().announcement])
        with pytest.raises(OutOfSpace) as refused:
            await client.submit([Publisher.generate().announcement])
        assert refused.value.code == "LOG-SHARE"
        await operator.submit([Publisher.generate().announcement])


async def test_names_are_found_by_their_parts(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        await send(client, ready)
        folder = ready.blobs[min(ready.blobs)].parent
        for number in range(5):
            await send(client, release(ready.publisher, folder, f"tests/Apertus-{number}@v1"))
        page = await client.search("apertus tests", limit=3)
        rest = await client.search("apertus tests", page.next_cursor, limit=3)
        assert [len(page.found), len(rest.found), rest.next_cursor] == [3, 2, ""]
        assert not (await client.search("nobody")).found
        with pytest.raises(Malformed):
            await client.search("x", "not a cursor")


def many_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.json").write_bytes(b'{"number": %d}' % number)
    (folder / "small.safetensors").write_bytes(as_tensor(bytes(1_000)))
    return folder


async def together(*batches: Iterable[bytes]) -> AsyncIterator[Sequence[InlineObject]]:
    for batch in batches:
        yield [InlineObject(sha256(data), data) for data in batch]


async def test_small_files_arrive_together_with_their_records(home: NodeHome, tmp_path: Path) -> None:
    made = release(Publisher.generate(), many_files(tmp_path / "many", 300), "tests/many@v1")
    files = [path.read_bytes() for path in made.blobs.values()]
    async with serving(home), home.client() as client:
        asked = await client.submit(made.lines, made.inline())
        assert await client.upload_objects(asked.submission, together(files[:100], files[100:]), size=1) == len(files)
        submitted = await client.submit(made.lines)
        assert [receipt.line_digest for receipt in submitted.receipts] == [sha256(line) for line in made.lines]
        layouts = zip(made.ingested.manifest.files, made.ingested.index.files, strict=True)
        for file, (_, layout) in islice(layouts, 0, None, 10):  # a call each: a fast caller gets no more
            check_records(await client.records(file.sha256, layout.layout), size=file.size, expected=layout)
        found = [data async for _, data in client.objects(list(made.blobs)[:250], uncompressed=True)]
        assert found == files[:250]


async def test_of_a_message_with_one_false_object_none_is_kept(home: NodeHome, tmp_path: Path) -> None:
    made = release(Publisher.generate(), many_files(tmp_path / "many", 8), "tests/many@v1")
    first, second, third, *_ = files = [path.read_bytes() for path in made.blobs.values()]
    async with serving(home), home.client() as client:
        asked = await client.submit(made.lines, made.inline())

        async def sent() -> AsyncIterator[Sequence[InlineObject]]:
            yield [InlineObject(sha256(first), first)]
            yield [InlineObject(sha256(second), second), InlineObject(sha256(third), bytes(len(third)))]

        with pytest.raises((Untrusted, Unavailable)):
            await client.upload_objects(asked.submission, sent(), size=1)
        assert [stat.have for stat in await client.stat([*map(sha256, files)])] == [True] + [False] * (len(files) - 1)


async def test_objects_without_a_submission_that_names_them_are_refused(home: NodeHome, ready: Release) -> None:
    async with serving(home), home.client() as client:
        with pytest.raises(NotFound) as refused:
            await client.upload_objects(sha256(b"no submission"), together([b"x"]), size=1)
        assert refused.value.code == "NO-SUBMISSION"
        asked = await client.submit(ready.lines, ready.inline())
        with pytest.raises((NotFound, Unavailable)):
            await client.upload_objects(asked.submission, together([b"x"]), size=1)
        assert not (await client.stat([sha256(b"x")]))[0].have
