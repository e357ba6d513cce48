"""One member's node sends false answers to two honest nodes and to a client that pulls from all three.

Each false answer is refused with its reason and the name of the lying node. The pull succeeds nevertheless, and only
correct bytes are placed. The honest nodes continue to copy and cosign each other's logs. Once the lying node answers
truthfully again, its log is followed as before, except where it has signed two histories. The short form has false
answers of each kind; those that an honest node notices late, or after many copies, are `long`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from hashlib import sha256
from itertools import chain, count, repeat
from pathlib import Path

import pytest
from comity_client.events import Event, NodeAtFault, SourceDropped, SourceFailed
from comity_client.session import Session
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.beside_a_lying_node import BYTES, ENTRIES, Scene, proofs_of, says, shown_by, staged, until_true, warned
from support.federation import NodeProcess
from support.lying_node import CHUNK, Liar, Lie, Question, batches, head
from support.raw_bytes import RawLog, message, statement
from support.second_opinion import convicts
from support.short_form import cases

pytestmark = pytest.mark.slow

COPIES = 20
"""Artifacts that a node copies at most until it asks the lying node for one of them."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(tmp_path_factory.mktemp("liars")) as scene:
        scene.followed()
        scene.publish()
        scene.go_on()
        yield scene


def range_of(liar: Liar, question: Question) -> bytes:
    start = question.number(2)
    return liar.blobs[question.data(1)][start : start + question.number(3)]


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def wrong_bytes(liar: Liar, question: Question) -> Iterable[bytes]:
    data = range_of(liar, question)
    middle = len(data) // 2
    return chunks(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def too_short(liar: Liar, question: Question) -> Iterable[bytes]:
    return chunks(range_of(liar, question)[:-1])


def too_long(liar: Liar, question: Question) -> Iterable[bytes]:
    return [*chunks(range_of(liar, question)), b"!"]


def endless(liar: Liar, question: Question) -> Iterable[bytes]:
    return chain(chunks(range_of(liar, question)), repeat(bytes(CHUNK)))


def dripping(liar: Liar, question: Question) -> Iterable[bytes]:
    return (bytes([byte]) for byte in range_of(liar, question))


def stalling(liar: Liar, question: Question) -> Iterable[bytes]:
    yield range_of(liar, question)[:100_000]
    yield from liar.silent(question)


def oversized(liar: Liar, question: Question) -> Iterable[bytes]:
    return [bytes(5 * CHUNK)]


def hollow(liar: Liar, question: Question) -> Iterable[bytes]:
    return repeat(b"")


READS: dict[str, tuple[Lie, type[Event], str]] = {
    "wrong bytes": (wrong_bytes, SourceDropped, "does not match its hash"),
    "a byte too few": (too_short, SourceFailed, "the answer is too short"),
    "a byte too many": (too_long, SourceDropped, "than requested"),
    "no end": (endless, SourceDropped, "than asked"),
    "drops": (dripping, SourceDropped, "than asked"),
    "silence": (stalling, SourceFailed, "no byte for"),
    "a message too large": (oversized, SourceDropped, "a message is larger than the limit"),
    "empty messages": (hollow, SourceFailed, "a message without bytes"),
}


@pytest.mark.parametrize("what", cases(READS, ["wrong bytes", "a byte too few", "no end", "empty messages"]))
def test_a_pull_names_the_node_that_sent(scene: Scene, what: str) -> None:
    lie, kind, reason = READS[what]
    events: list[Event] = []
    with scene.liar.lying("Read", lie), scene.slowly(what):
        pulled = scene.newcomer().pull(scene.known, to=scene.folder / what, on_event=events.append)
    blamed = [event for event in events if isinstance(event, (SourceDropped, SourceFailed))]
    assert any(event.node == scene.liar.name and isinstance(event, kind) and reason in event.why for event in blamed)
    assert {event.node for event in blamed if isinstance(event, SourceDropped)} <= {scene.liar.name}
    assert {path.name: path.read_bytes() for path in pulled.folder.iterdir() if path.is_file()} == scene.files
    assert pulled.verdict.exit_status == 0
    assert list((pulled.folder / ".comity" / "incoming").iterdir()) == []


@pytest.mark.parametrize("what", cases(READS, ["wrong bytes", "no end", "empty messages"]))
def test_a_node_names_the_peer_that_sent(scene: Scene, what: str) -> None:
    """A node waits for no peer that says later than the others which files it has. So it may copy an artifact without
    a request to the lying node; then the next artifact is copied."""
    lie, kind, reason = READS[what]
    second = scene.nodes[1]
    event = "source dropped" if kind is SourceDropped else "source failed"
    with scene.liar.lying("Read", lie), scene.slowly(what):
        for _ in range(COPIES):
            scene.publish()
            scene.noticed("hold logged", at=[second], name=scene.known)
            if any(says(said, event, [reason], {"peer": scene.liar.name}) for said in scene.about_files(second)):
                break
        else:
            raise AssertionError(f"none of {COPIES} copies named {scene.liar.name}: {event}: {reason}")
    scene.go_on()


OBJECT = b'{"a side object": "of the liar"}'
DIGEST = sha256(OBJECT).digest()


def other_object(liar: Liar, question: Question) -> Iterable[bytes]:
    return [message((1, b'{"a side object": "of another digest"}'))]


def endless_object(liar: Liar, question: Question) -> Iterable[bytes]:
    return repeat(message((1, bytes(CHUNK))))


def object_too_large_a_message(liar: Liar, question: Question) -> Iterable[bytes]:
    return [message((1, bytes(5 * CHUNK)))]


def no_entries(liar: Liar, question: Question) -> Iterable[bytes]:
    return ()


def other_entries(liar: Liar, question: Question) -> Iterable[bytes]:
    log = question.history.log
    forged = RawLog(log.origin, log.key, [b"not what was signed"] * len(log.lines))
    return batches(forged, question.number(2), question.number(3))


def entries_without_end(liar: Liar, question: Question) -> Iterable[bytes]:
    return (message((1, question.number(2) + at), (2, b"again")) for at in count())


def an_entry_too_large(liar: Liar, question: Question) -> Iterable[bytes]:
    return [message((1, question.number(2)), (2, bytes(5 * CHUNK)))]


def wrong_proof(liar: Liar, question: Question) -> Iterable[bytes]:
    return [message((1, bytes(32)))]


LOGS: dict[str, tuple[str, Lie, str]] = {
    "another side object": ("GetObject", other_object, "not the requested object"),
    "a side object without end": ("GetObject", endless_object, "the node sent more than asked"),
    "a side object in too large a message": (
        "GetObject",
        object_too_large_a_message,
        "a message is larger than the limit",
    ),
    "no entries": ("GetEntries", no_entries, "the peer withholds entries of a log"),
    "other entries": ("GetEntries", other_entries, "another root"),
    "entries without end": ("GetEntries", entries_without_end, "the node sent more than asked"),
    "an entry too large": ("GetEntries", an_entry_too_large, "a message is larger than the limit"),
    "a proof of nothing": ("GetConsistency", wrong_proof, "consistency"),
    "silence": ("GetEntries", lambda liar, question: liar.silent(question), "no message in"),
}


@pytest.mark.parametrize(
    "what", cases(LOGS, ["another side object", "other entries", "entries without end", "a proof of nothing"])
)
def test_a_log_does_not_advance_on(scene: Scene, what: str) -> None:
    call, lie, reason = LOGS[what]
    liar = scene.liar
    unique = OBJECT + what.encode()
    with liar.lying(call, lie):
        liar.have(unique)
        liar.log.lines.append(statement(liar.online, what.encode(), objects={sha256(unique).digest(): len(unique)}))
        size = str(len(liar.log.lines))
        scene.noticed("log not mirrored", reason, peer=liar.name, origin=liar.log.origin)
        for node in scene.nodes:
            assert not any(
                says(said, "mirrored", (), {"origin": liar.log.origin, "size": size}) for said in node.events
            )
        scene.go_on()
    scene.followed()


def test_an_old_checkpoint_takes_nothing_back(scene: Scene) -> None:
    liar = scene.liar
    old = len(liar.log.lines)
    liar.log.lines.append(statement(liar.online, b"newer"))
    scene.followed()
    before = [history.asked["ListLogs"] for history in scene.histories]

    def replayed(liar: Liar, question: Question) -> Iterable[bytes]:
        return [head(liar.log, liar.log.note(old))]

    with liar.lying("ListLogs", replayed):
        until_true(
            lambda: all(f.asked["ListLogs"] > b + 3 for f, b in zip(scene.histories, before, strict=True)), "the replay"
        )
        for home in scene.homes:
            shown = asyncio.run(shown_by(home, liar.log.origin))
            assert shown.split(b"\n")[1] == str(old + 1).encode()
        scene.go_on()
    for node in scene.nodes:
        assert not any(says(said, "log has shown two histories", (), {}) for said in node.events)


def test_a_checkpoint_that_the_log_did_not_sign_is_refused(scene: Scene) -> None:
    def forged(liar: Liar, question: Question) -> Iterable[bytes]:
        return [head(liar.log, liar.log.note(signer=Ed25519PrivateKey.generate()))]

    with scene.liar.lying("ListLogs", forged):
        scene.noticed("head not signed by its log", "bad note signature", peer=scene.liar.name)
    scene.go_on()


@pytest.mark.parametrize("what", cases(["heads without end", "a message too large"], ["a message too large"]))
def test_a_list_of_logs_is_bounded(scene: Scene, what: str) -> None:
    def lie(liar: Liar, question: Question) -> Iterable[bytes]:
        return repeat(head(liar.log, liar.log.note())) if what == "heads without end" else [bytes(5 * CHUNK)]

    reason = "the node sent more than asked" if what == "heads without end" else ""
    failed = "the answer is too long" if what == "heads without end" else "a message is larger than the limit"
    task = f"peer {scene.liar.log.origin} of {scene.liar.member_id[:6]}…{scene.liar.member_id[-4:]}"
    with scene.liar.lying("ListLogs", lie):
        scene.noticed("step failed", reason, task=task, what=failed)
        scene.go_on()


def test_a_manifest_with_a_wrong_digest_is_named_and_fetched_from_another_node(scene: Scene) -> None:
    events: list[Event] = []
    client = scene.newcomer()
    pulled = client.pull(scene.known, to=scene.folder / "manifest")

    async def ask_all(session: Session) -> list[bytes]:
        async with aclosing(session.answers(lambda node: node.object(pulled.artifact))) as answers:
            return [answer async for answer in answers]

    with scene.liar.lying("GetObject", other_object):
        answers = client._user.run(ask_all, events.append)
        again = scene.newcomer().pull(scene.known, to=scene.folder / "again")
    faults = [event for event in events if isinstance(event, NodeAtFault)]
    assert {event.node for event in faults} == {scene.liar.name}
    assert all("not the requested object" in event.why for event in faults)
    assert [sha256(answer).hexdigest() for answer in answers] == 2 * [pulled.artifact]
    assert {path.name: path.read_bytes() for path in again.folder.iterdir() if path.is_file()} == scene.files


@pytest.mark.parametrize("what", cases(["entries", "bytes"], ["entries"]))
def test_a_flood_is_mirrored_up_to_its_quota_and_not_cosigned(tmp_path: Path, what: str) -> None:
    with staged(tmp_path) as scene:
        scene.followed()
        scene.publish()
        liar = scene.liar
        if what == "entries":
            liar.log.lines += [statement(liar.online, b"%d" % number) for number in range(ENTRIES)]
            reason = f"{ENTRIES} are mirrored"
        else:
            liar.log.lines.append(statement(liar.online, b"large", objects={DIGEST: BYTES}))
            reason = f"{BYTES} are mirrored"
        for home in scene.homes:
            asyncio.run(warned(home, f"{liar.log.origin} is above its quota", reason))
        scene.go_on()
        for home in scene.homes:
            shown = asyncio.run(shown_by(home, liar.log.origin))
            assert shown.split(b"\n")[1] == b"2"


def same_size(log: RawLog) -> Sequence[RawLog]:
    lines = [statement(log.key, b"to the one"), statement(log.key, b"to the other")]
    return [log.forked(2, lines[:1]), log.forked(2, lines[1:])]


def one_is_longer(log: RawLog) -> Sequence[RawLog]:
    lines = [statement(log.key, b"%d" % number) for number in range(9)]
    return [log.forked(2, lines[:3]), log.forked(2, lines[4:])]


@pytest.mark.parametrize("fork", cases([same_size, one_is_longer], [one_is_longer]))
def test_a_fork_is_detected_in_one_round_and_proven_to_every_node(
    tmp_path: Path, fork: Callable[[RawLog], Sequence[RawLog]]
) -> None:
    with staged(tmp_path, interval=1.0) as scene:
        scene.followed()
        for history, log in zip(scene.histories, fork(scene.liar.log), strict=True):
            history.log = log
        liar, key = scene.liar, scene.liar.log.vkey
        scene.noticed("log has shown two histories", origin=liar.log.origin)
        first, second = sorted(_rounds_to_detection(scene))
        assert first <= 2, "more than one round of gossip"
        assert second <= first + 4, "detected later than in the next round"
        scene.publish()
        scene.go_on()
        frozen = [asyncio.run(shown_by(home, liar.log.origin)) for home in scene.homes]
        for home in scene.homes:
            proofs = asyncio.run(proofs_of(home))
            assert {origin for _, origin, _ in proofs} == {liar.log.origin}
            assert all(convicts(kind, parts, key) for kind, _, parts in proofs)
            assert not any(convicts(kind, (parts[0], parts[0]), key) for kind, _, parts in proofs)
            asyncio.run(warned(home, f"{liar.log.origin} has shown two histories", "frozen"))
        for history in scene.histories:
            history.log.lines.append(statement(liar.online, b"continued as before"))
        scene.go_on()
        assert [asyncio.run(shown_by(home, liar.log.origin)) for home in scene.homes] == frozen
        user = scene.newcomer()
        pulled = user.pull(scene.known, to=tmp_path / "pulled")
        assert pulled.verdict.exit_status == 0
        states = json.loads(scene.comity(user, "status", "--json", status=3))["nodes"]
        assert [state["misbehaviour"] > 0 for state in states if state["name"] != liar.name] == [True, True]
        assert liar.log.origin in scene.comity(user, "log", "misbehaviour")


def _rounds_to_detection(scene: Scene) -> list[int]:
    """How many rounds with the lying node each node needed, after both had stored a history, until it detected the
    fork. Its rounds with the other honest node have the same period, within a fifth.
    """
    both = tuple(zip(scene.nodes, scene.histories, strict=True))
    held = max(_when(node, "mirrored", origin=f.log.origin, size=str(len(f.log.lines))) for node, f in both)
    found = [_when(node, "log has shown two histories", origin=f.log.origin) for node, f in both]
    return [sum(held < at < end for at in history.rounds) for history, end in zip(scene.histories, found, strict=True)]


def _when(node: NodeProcess, event: str, **named: str) -> float:
    said = next(said for said in node.events if says(said, event, (), named))
    return datetime.fromisoformat(str(said["timestamp"])).timestamp()
