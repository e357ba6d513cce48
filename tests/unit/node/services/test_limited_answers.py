"""Statements that a limit leaves out of an answer are logged and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity
from comity.ledger import subject_reads
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services import member_lines, selections
from comity.node.services.artifact import ArtifactServicer
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.statement import parse_entry
from comity.wire import limits
from structlog.testing import capture_logs
from support.answering import ARTIFACT, LOG, RELEASE, WHO, Flooded, nobody
from support.case import nodes
from support.flooding import Adviser
from support.world import identity


class Bench:
    """A node with a log of `count` publications of one artifact under one name."""

    def __init__(self, folder: Path, count: int) -> None:
        self.ledger, self.metrics = Ledger.open(folder, lambda: 1_000), Metrics()
        lines = [WHO.publish(f"a/b@v{number}", RELEASE) for number in range(count)]
        self.ledger.logs.create(LOG.origin, LOG.vkey)
        self.ledger.logs.advance(LOG.origin, 0, lines, LOG.note_over(lines))
        facts = [statement_facts(index, parse_entry(line)) for index, line in enumerate(lines)]
        batch = self.ledger.intake.next_batch(LOG.vkey)
        self.ledger.intake.commit(batch, IntakeResult(LOG.vkey, tuple(item for item in facts if item is not None)))
        seat = SimpleNamespace(record_line=WHO.inception)
        membership = cast(
            Membership,
            SimpleNamespace(
                node_ids=(),
                known=(),
                peers=(),
                own_node=seat,
                precedence=Precedence(),
                bound_publisher=nobody,
                body=None,
            ),
        )
        self.service = ArtifactServicer(AsyncLedger(self.ledger), membership, self.metrics)

    async def asked(self, call: str) -> tuple[int, float]:
        """Lines of the answer, and how often an answer of this call was limited."""
        answer = self.service.resolve("a/b", None, None) if call == "Resolve" else self.service.claims(ARTIFACT)
        lines = [located async for located in answer]
        return len(lines), self.metrics.answers_limited.labels(call)._value.get()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, 20)
    yield made
    made.ledger.close()


async def test_answers_say_by_when_each_statement_was_verified_and_of_no_keys(bench: Bench) -> None:
    bench.ledger.proven_times.mark(5, 700)
    by_line = {line.line: line.number for line in bench.ledger.proven.about(ARTIFACT).found}
    answers = [[each async for each in bench.service.resolve("a/b")]]
    answers.append([each async for each in bench.service.claims(ARTIFACT)])
    answers.append(list((await bench.service.search("a/b", limit=50)).found))
    for answer in answers:
        said = {each.line: each.known_since for each in answer if not each.attached}
        assert said == {line: 700 if number <= 5 else 1_000 for line, number in by_line.items()}
        assert not any(each.known_since for each in answer if each.attached)


@pytest.mark.parametrize("call", ["Resolve", "GetClaims"])
async def test_a_complete_answer_is_not_counted(bench: Bench, call: str) -> None:
    assert await bench.asked(call) == (20, 0)


async def test_a_namespace_is_resolved(bench: Bench) -> None:
    """An earlier version refused it: it asked for more names than the ledger gives in one query."""
    assert len([located async for located in bench.service.resolve("a/", None, None)]) == 20


@pytest.mark.parametrize("call", ["Resolve", "GetClaims"])
async def test_an_answer_cut_by_a_limit_is_logged_and_counted(
    bench: Bench, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESOLVED", 20)
    monkeypatch.setattr(limits, "CLAIMS", 20)
    with capture_logs() as events:
        assert await bench.asked(call) == (10, 1)
    assert [event["call"] for event in events] == [call]


class Members:
    """A node that knows two members and their nodes; `read` are the members whose lines were read for an answer."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second, *_ = nodes()
        self.ledger, self.read = Ledger.open(folder, lambda: 1_000), list[Digest]()
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        peers = [SimpleNamespace(line=each.entry.line) for each in (self.first, self.second)]
        known, seat = (self.first.seat.id, self.second.seat.id), SimpleNamespace(record_line=self.first.entry.line)
        membership = cast(
            Membership,
            SimpleNamespace(
                node_ids=(),
                known=known,
                peers=peers,
                own_node=seat,
                precedence=Precedence(),
                bound_publisher=nobody,
                body=None,
            ),
        )
        self.service = ArtifactServicer(AsyncLedger(self.ledger), membership, Metrics())
        each_key = ProvenTables.each_key

        def counted(tables: ProvenTables, authors: Iterable[Digest]) -> Iterator[tuple[Digest, ProvenLine]]:
            wanted = tuple(authors)
            self.read += wanted
            return each_key(tables, wanted)

        monkeypatch.setattr(ProvenTables, "each_key", counted)
        self.say(*(line for each in (self.first, self.second) for line in (each.seat.entry.line, each.entry.line)))
        self.say(self.second.seat.entry.line, WHO.publish("a/b@v1", RELEASE))

    def say(self, *lines: bytes) -> None:
        self.ledger.logs.append(LOG.vkey, lines)

    async def lines(self) -> set[bytes]:
        """The lines of an answer."""
        self.read.clear()
        found = {located.line async for located in self.service.claims(ARTIFACT)}
        self.read = [author for author in self.read if author != WHO.id]
        return found


async def test_key_statements_of_others_have_no_lines_of_members_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may log inceptions: each had the records and keys of all members read again for the next answer."""
    scene = Members(tmp_path, monkeypatch)
    first, second = scene.first, scene.second
    expected = {first.entry.line, second.entry.line, first.seat.entry.line, second.seat.entry.line}
    assert expected <= await scene.lines()
    assert scene.read == [first.seat.id, second.seat.id]
    scene.say(Identity.made("somebody else").inception)
    assert expected <= await scene.lines()
    assert scene.read == []
    renewed = sign_content(replace(first.record, name="renewed"), first.seat.signer, *first.bound).line
    scene.say(renewed)
    assert {renewed, *expected} <= await scene.lines()
    assert scene.read == [first.seat.id]
    monkeypatch.setattr(member_lines, "MAX_NEW", 3)
    scene.say(*(Identity.made(f"somebody {number}").inception for number in range(3)))
    assert {renewed, *expected} <= await scene.lines()
    assert scene.read == [first.seat.id, second.seat.id]
    scene.ledger.close()


@pytest.fixture
def flooded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flooded]:
    monkeypatch.setattr(subject_reads, "FEW", 20)
    made = Flooded(tmp_path, 80)
    yield made
    made.ledger.close()


async def test_warnings_of_strangers_hide_no_statement_of_the_publisher(flooded: Flooded) -> None:
    claims, resolved = await flooded.claims(), await flooded.resolved()
    assert flooded.of_publisher(claims) == flooded.of_publisher(resolved) == 3
    assert [flooded.names[each.line] for each in claims[:2]] == ["publisher", "publisher"]
    assert len(claims) <= 3 + 2 * 33
    assert claims[-1].others and not any(each.more for each in claims)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Flooded]:
    """Its publisher has said little."""
    made = Flooded(tmp_path, 0)
    yield made
    made.ledger.close()


async def test_statements_of_nine_others_with_hybrid_keys_fit(quiet: Flooded) -> None:
    """Each brings its inception of 9 KB."""
    others = [identity(f"other {number}") for number in range(12)]
    said = {Adviser.of(each).advise(ARTIFACT, "licence") for each in others}
    quiet.say("other", *(each.entry.line for each in others), *sorted(said))
    found = await quiet.claims()
    assert len(said & {each.line for each in found}) == 9
    assert found[-1].others
    assert sum(len(each.line) for each in found) < selections.LEAST_OTHERS + 10_000


async def test_a_long_statement_displaces_no_short_ones(quiet: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "LEAST_OTHERS", 16_000)
    loud, low = Identity.made("loud"), Identity.made("low")
    too_long, long = (loud.say("remark", ("", ARTIFACT), {"text": "x" * size}) for size in (20_000, 9_000))
    short = low.advise(ARTIFACT, "beware")
    quiet.say("other", loud.inception, too_long, long, low.inception, short)
    found = await quiet.claims()
    assert {too_long, long, short} & {each.line for each in found} == {long, short}
    assert found[-1].others


async def test_strangers_who_publish_the_same_bytes_hide_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are heard as publishers, who come before members; also where a name is resolved."""
    monkeypatch.setattr(limits, "CLAIMS", 80)
    monkeypatch.setattr(selections, "PAGE", 16)
    crowded = Flooded(tmp_path, 0)
    member, rivals = Identity.made("member"), [Identity.made(f"rival {number}") for number in range(3)]
    for rival in rivals:
        said = [rival.advise(ARTIFACT, f"beware {number}") for number in range(20)]
        crowded.say("rival", rival.inception, rival.publish("a/b@v1", RELEASE), *said)
    warning = member.advise(ARTIFACT, "malware")
    crowded.say("member", member.inception, warning)
    crowded.service = crowded.service_among(member)
    for found in (await crowded.claims(), await crowded.resolved(*(Digest(each.id) for each in rivals))):
        assert warning in {each.line for each in found}
        assert crowded.of_publisher(found) == 3
    crowded.ledger.close()


@pytest.mark.slow
async def test_a_stranger_whom_the_asker_names_is_heard(flooded: Flooded) -> None:
    stranger = Identity.made("stranger 150")
    wanted = stranger.advise(ARTIFACT, "beware")
    assert wanted not in {each.line for each in await flooded.claims()}
    named = await flooded.claims(Digest(stranger.id))
    assert {wanted, stranger.inception} <= {each.line for each in named}
    assert wanted in {each.line for each in await flooded.resolved(Digest(stranger.id))}


@pytest.mark.slow
async def test_an_author_with_more_statements_than_an_answer_has_is_marked(flooded: Flooded) -> None:
    loud = Identity.made("loud")
    flooded.say("loud", loud.inception, *(loud.advise(ARTIFACT, f"beware {number}") for number in range(140)))
    found = await flooded.claims(Digest(loud.id))
    own = [each for each in found if flooded.names[each.line] == "loud" and each.line != loud.inception]
    assert len(own) == 128
    assert all(each.more for each in own)
    assert flooded.of_publisher(found) == 3


@pytest.mark.slow
async def test_a_claim_of_a_name_by_somebody_whom_the_asker_names_is_not_displaced(
    flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selections, "CLAIMANTS", 5)
    claims = [(who, who.publish("a/b@v2", RELEASE)) for who in map(Identity.made, map(str, range(9)))]
    for who, line in claims:
        flooded.say("rival", who.inception, line)
    last, line = claims[-1]
    assert line not in {each.line for each in await flooded.resolved()}
    found = await flooded.resolved(Digest(last.id))
    assert line in {each.line for each in found}
    assert found[0].line == WHO.publish("a/b@v1", RELEASE), "the first claimant stays the first"
