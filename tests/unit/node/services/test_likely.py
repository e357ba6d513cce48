"""`FindArtifact` answers what an asker of a name asks: as the single calls do, until something new is proven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attackers.forging import Identity, Release
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.ledger.proven import Page, ProvenPublication, ProvenTables
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.artifact import ArtifactServicer
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.statement import parse_entry
from comity.wire.found import FoundAnswer, Lookup
from comity.wire.messages import LocatedEntry
from support.logs import LogKeys

LOG, FIRST, SECOND = LogKeys.generate("far.example/log"), Identity.made("first"), Identity.made("second")
OLD, NEW, OTHER = Release(b"old\n"), Release(b"new\n"), Release(b"other\n")
LINES = [
    FIRST.inception,
    FIRST.publish("a/b@v1", OLD),
    SECOND.inception,
    SECOND.publish("a/b@v1", OTHER),
    FIRST.publish("a/b@v2", NEW),
]
MANIFEST = b"manifest"


def artifact(line: bytes) -> Digest:
    return parse_entry(line).statement.subject


def bound_to(publisher: Digest | None) -> Any:
    seat = SimpleNamespace(record_line=FIRST.inception)
    return SimpleNamespace(
        node_ids=(),
        known=(),
        peers=(),
        own_node=seat,
        precedence=Precedence(),
        bound_publisher=lambda namespace: publisher,
        body=None,
    )


class Scene:
    """A node whose ledger has two claimants of one name."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.lines = Ledger.open(folder, lambda: 1_000), list[bytes]()
        self.ledger.logs.create(LOG.origin, LOG.vkey)
        self.say(*LINES)

    def say(self, *lines: bytes) -> None:
        size, self.lines = len(self.lines), [*self.lines, *lines]
        self.ledger.logs.advance(LOG.origin, size, lines, LOG.note_over(self.lines))
        facts = [statement_facts(size + at, parse_entry(line)) for at, line in enumerate(lines)]
        batch = self.ledger.intake.next_batch(LOG.vkey)
        self.ledger.intake.commit(batch, IntakeResult(LOG.vkey, tuple(item for item in facts if item is not None)))

    def service(self, bound: Digest | None = None) -> ArtifactServicer:
        async def manifest(digest: Digest) -> bytes:
            return MANIFEST + digest.encode()

        return ArtifactServicer(AsyncLedger(self.ledger), cast(Membership, bound_to(bound)), Metrics(), manifest)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


Found = tuple[dict[Lookup, list[LocatedEntry]], list[bytes]]


async def found_by(service: ArtifactServicer, *asked: Any) -> Found:
    answers, manifests = dict[Lookup, list[LocatedEntry]](), list[bytes]()
    async for each in service.find(*asked):
        if isinstance(each, FoundAnswer):
            answers[each.asked] = [located async for located in each.entries]
        else:
            manifests.append(await each.read())
    return answers, manifests


async def single(service: ArtifactServicer, asked: Lookup) -> list[LocatedEntry]:
    if asked.subject is not None:
        return [located async for located in service.claims(asked.subject, asked.named)]
    answer = service.resolve(asked.name, asked.version, asked.publisher, asked.named)
    return [located async for located in answer]


async def test_the_questions_about_the_version_of_the_first_claimant_are_answered(scene: Scene) -> None:
    first, named = Digest(FIRST.id), (Digest(SECOND.id),)
    answers, manifests = await found_by(scene.service(), "a/b", "v1", None, named)
    old, preferred = artifact(LINES[1]), (first, *named)
    assert list(answers) == [
        Lookup.of_name("a/b", named=named),
        Lookup.of_name("a/b", "v1", first, named),
        Lookup.about(old, preferred),
        Lookup.of_name("a/b", None, first, named),
        Lookup.about(first, preferred),
        Lookup.of_name("a/b", "v1", None, preferred),
    ]
    assert manifests == [MANIFEST + old.encode()]
    for asked, entries in answers.items():
        assert entries == await single(scene.service(), asked)


@pytest.mark.parametrize(
    ("version", "publisher", "bound", "line"),
    [
        (None, None, None, 4),
        ("v1", SECOND.id, None, 3),
        ("v1", None, SECOND.id, 3),
        ("v1", FIRST.id, SECOND.id, 1),
    ],
    ids=["the newest", "whom the asker expects", "whom the charter binds", "the asker decides"],
)
async def test_the_artifact_that_is_probably_meant(
    scene: Scene, version: str | None, publisher: Digest | None, bound: Digest | None, line: int
) -> None:
    _, manifests = await found_by(scene.service(bound), "a/b", version, publisher)
    assert manifests == [MANIFEST + artifact(LINES[line]).encode()]


async def test_of_an_unknown_version_the_name_alone_is_answered(scene: Scene) -> None:
    answers, manifests = await found_by(scene.service(), "a/b", "v9")
    assert (list(answers), manifests) == ([Lookup.of_name("a/b")], [])


async def test_an_unknown_name_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFound):
        await found_by(scene.service(), "a/c", "v1")


async def test_answers_are_read_once_until_a_statement_is_proven(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = list[str](), ProvenTables.publications

    def counted(tables: ProvenTables, name: str, *asked: Any) -> Page[ProvenPublication]:
        reads.append(name)
        return read(tables, name, *asked)

    monkeypatch.setattr(ProvenTables, "publications", counted)
    service = scene.service()
    before = await found_by(service, "a/b", "v1")
    count = len(reads)
    assert count and await found_by(service, "a/b", "v1") == before and len(reads) == count
    scene.say(FIRST.publish("a/b@v1", NEW))
    answers, manifests = await found_by(service, "a/b", "v1")
    assert len(reads) > count and manifests == [MANIFEST + artifact(LINES[4]).encode()]
    for asked, entries in answers.items():
        assert entries == await single(scene.service(), asked)


async def test_an_answer_that_is_not_read_to_its_end_is_not_kept(scene: Scene) -> None:
    service = scene.service()
    lines = service.resolve("a/b")
    assert (await anext(lines)).line == LINES[1]
    await lines.aclose()
    assert [located async for located in service.resolve("a/b")] == await single(scene.service(), Lookup.of_name("a/b"))
