"""A log and one outside witness: what is submitted, when again, and which answers are kept or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node import outside_witnesses
from comity.node.metrics import Metrics
from comity.node.outside_witnesses import HEARTBEAT, OutsideWitness, WitnessAnswer, WitnessSubmitter, post
from comity.node.threads import AsyncLedger, Pools
from comity.rules.witness import AddCheckpoint, encode_signatures
from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash, root, verify_consistency
from comity.trust.tlog.note import Checkpoint, cosign, cosigner_key
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("own.example/log")
KEY = PrivateKey.generate("ed25519")
VKEY = cosigner_key("witness.example/w", KEY.public)


def signed(request: AddCheckpoint, key: PrivateKey = KEY, name: str = "witness.example/w") -> bytes:
    return encode_signatures([cosign(Checkpoint.parse(request.checkpoint.text), name, key, 1_795_000_000)])


@dataclass
class Scene:
    """A submitter whose requests a test answers; `now` is its clock."""

    ledger: AsyncLedger
    answer: Callable[[AddCheckpoint], WitnessAnswer] = lambda request: WitnessAnswer(200, signed(request))
    shown: list[AddCheckpoint] = field(default_factory=list)
    now: float = 1_000.0
    pools: Pools = field(default_factory=Pools)

    def __post_init__(self) -> None:
        witness = OutsideWitness.parse(f"{VKEY} http://witness.example/prefix")
        self.lines = statement_lines(0, 20)
        self.submitter = WitnessSubmitter(self.ledger, self.pools, LOG.vkey, lambda: self.now, Metrics(), witness)

    def post(self, url: str, body: bytes) -> WitnessAnswer:
        assert url == "http://witness.example/prefix/add-checkpoint"
        self.shown.append(AddCheckpoint.parse(body))
        return self.answer(self.shown[-1])

    def grow(self, size: int) -> None:
        had = self.ledger.tables.logs.get(LOG.vkey).size
        self.ledger.tables.logs.append(LOG.vkey, self.lines[had:size])
        self.ledger.tables.logs.set_note(LOG.vkey, LOG.note_over(self.lines[:size]))

    def kept(self) -> list[str]:
        note = self.ledger.tables.cosignatures.cosigned(LOG.vkey)
        return [line.name for line in note.signatures if line.name != LOG.origin]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    ledger = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000))
    ledger.tables.logs.create(LOG.origin, LOG.vkey, own=True)
    made = Scene(ledger)
    monkeypatch.setattr(outside_witnesses, "post", made.post)
    yield made
    made.pools.close()
    ledger.close()


async def test_an_empty_log_is_not_submitted(scene: Scene) -> None:
    await scene.submitter.step()
    assert scene.shown == []


async def test_each_submission_continues_the_one_before(scene: Scene) -> None:
    for size in (3, 8):
        scene.grow(size)
        await scene.submitter.step()
    first, second = scene.shown
    assert (first.old, second.old) == (0, 3)
    roots = [root([leaf_hash(line) for line in scene.lines[:size]]) for size in (3, 8)]
    verify_consistency(3, roots[0], 8, roots[1], second.proof)
    assert len(second.checkpoint.signatures) == 1 and scene.kept() == ["witness.example/w"]


async def test_an_unchanged_checkpoint_is_submitted_again_after_the_heartbeat(scene: Scene) -> None:
    scene.grow(3)
    for passed, submissions in ((0, 1), (HEARTBEAT - 1, 1), (1, 2), (HEARTBEAT - 1, 2)):
        scene.now += passed
        await scene.submitter.step()
        assert len(scene.shown) == submissions
    scene.grow(4)
    await scene.submitter.step()
    assert len(scene.shown) == 3


async def test_a_witness_says_the_size_that_it_knows(scene: Scene) -> None:
    scene.grow(5)
    scene.answer = lambda request: (
        WitnessAnswer(200, signed(request)) if request.old == 2 else WitnessAnswer(409, b"2\n")
    )
    await scene.submitter.step()
    assert [request.old for request in scene.shown] == [0, 2] and scene.kept() == ["witness.example/w"]


@pytest.mark.parametrize("body", [b"6\n", b"999999"])
async def test_a_witness_that_signed_more_than_the_ledger_holds_is_an_alarm(scene: Scene, body: bytes) -> None:
    scene.grow(5)
    scene.answer = lambda request: WitnessAnswer(409, body)
    with pytest.raises(Untrusted, match=f"it cosigned {int(body)} entries, this ledger holds 5") as raised:
        await scene.submitter.step()
    assert raised.value.code == "WITNESS-AHEAD" and len(scene.shown) == 1


@pytest.mark.parametrize("body", [b"", b"-1", b"5\n\n", b"x", b"\xff", b"05", b"9" * 5000])
async def test_a_size_that_is_no_number_is_refused(scene: Scene, body: bytes) -> None:
    scene.grow(5)
    scene.answer = lambda request: WitnessAnswer(409, body)
    with pytest.raises(Malformed):
        await scene.submitter.step()


@pytest.mark.parametrize("status", [201, 301, 403, 404, 422, 500])
async def test_another_status_is_a_failure_and_is_tried_again(scene: Scene, status: int) -> None:
    scene.grow(5)
    scene.answer = lambda request: WitnessAnswer(status, signed(request))
    for tried in (1, 2):
        with pytest.raises(Unavailable, match=f"status {status}") as raised:
            await scene.submitter.step()
        assert raised.value.code == "WITNESS" and len(scene.shown) == tried
    assert scene.kept() == []


async def test_a_second_conflict_is_a_failure(scene: Scene) -> None:
    scene.grow(5)
    scene.answer = lambda request: WitnessAnswer(409, b"2\n")
    with pytest.raises(Unavailable, match="status 409"):
        await scene.submitter.step()
    assert [request.old for request in scene.shown] == [0, 2]


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: b"",
        lambda request: signed(request, PrivateKey.generate("ed25519")),
        lambda request: signed(request, name="other.example/w"),
        lambda request: encode_signatures(
            [cosign(Checkpoint(LOG.origin, 5, bytes(32)), VKEY.name, KEY, 1_795_000_000)]
        ),
    ],
)
async def test_an_answer_without_its_signature_keeps_nothing(
    scene: Scene, answer: Callable[[AddCheckpoint], bytes]
) -> None:
    scene.grow(5)
    scene.answer = lambda request: WitnessAnswer(200, answer(request))
    with pytest.raises(ComityError):
        await scene.submitter.step()
    assert scene.kept() == []


async def test_signatures_of_others_beside_its_own_are_left_out(scene: Scene) -> None:
    scene.grow(5)
    other = PrivateKey.generate("ed25519")
    scene.answer = lambda request: WitnessAnswer(200, signed(request, other, "other.example/w") + signed(request))
    await scene.submitter.step()
    assert scene.kept() == ["witness.example/w"]


def test_a_witness_is_read_from_its_setting() -> None:
    assert OutsideWitness.parse(f"{VKEY} https://w.example/p") == OutsideWitness(VKEY, "https://w.example/p")
    with pytest.raises(Malformed):
        OutsideWitness.parse("https://w.example/p")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/add-checkpoint", "https://127.0.0.1:1/add-checkpoint"])
def test_a_witness_that_does_not_answer_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1:1") as raised:
        post(url, b"body")
    assert raised.value.code == "WITNESS"
