"""Checkpoints that are submitted to a node: which are taken, which are stale, what is stored, and who signs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.content.secrets import write_keys
from comity.gateway.tlog.witness import MAX_PENDING, WitnessKey, WitnessRoutes
from comity.ledger.ledger import Ledger
from comity.node.threads import AsyncLedger
from comity.rules.witness import AddCheckpoint, parse_signatures
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Untrusted
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.tlog.note import (
    Checkpoint,
    SignedNote,
    VerifierKey,
    cosigner_key,
    log_verifier_key,
    verify_cosignature,
)
from starlette.requests import Request
from starlette.responses import Response
from support.outside import OutsideLog

KEY = PrivateKey.generate("ed25519")
WITNESS = WitnessKey("node.example/witness", (KEY,))
LOG, MIRRORED = OutsideLog("outside.example/log").grow(40), OutsideLog("mirrored.example/log").grow(40)
FORK = OutsideLog(LOG.origin, LOG.key).grow(40, b"another")


@dataclass
class Known:
    """The logs that an operator named, and what is known of their misbehaviour."""

    frozen_logs: set[VerifierKey] = field(default_factory=set)
    proofs: list[tuple[bytes, bytes]] = field(default_factory=list)
    witnessed = frozenset({LOG.verifier})

    async def submitted(self, origin: str) -> tuple[VerifierKey, ...]:
        keys = tuple(log.verifier for log in (LOG, MIRRORED) if log.origin == origin)
        if not keys:
            raise NotFound("unknown log", code="UNKNOWN-LOG")
        return keys

    def witnessed_log(self, prefix: str) -> VerifierKey:
        return LOG.verifier

    def require_original_ledger(self, key: VerifierKey) -> None:
        pass

    def frozen(self, key: VerifierKey) -> bool:
        return key in self.frozen_logs

    async def keep(self, kind: str, key: VerifierKey, proof: tuple[bytes, bytes]) -> None:
        self.proofs.append(proof)


@dataclass
class Scene:
    routes: WitnessRoutes
    known: Known

    async def submit(self, old: int, size: int, log: OutsideLog = LOG) -> Response:
        return await self.send(log.submission(old, size))

    async def send(self, body: bytes) -> Response:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.routes.add_checkpoint(Request({"type": "http", "method": "POST", "headers": []}, receive))

    async def newest(self) -> Response:
        return await self.routes.witness_checkpoint(
            Request({"type": "http", "headers": [], "path_params": {"log": "x"}})
        )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    ledger, known = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000)), Known()
    fake: Any = known
    yield Scene(WitnessRoutes(ledger, lambda: 1_795_000_000.9, fake, fake, WITNESS), known)
    ledger.close()


async def test_a_checkpoint_that_continues_the_last_one_is_cosigned(scene: Scene) -> None:
    with pytest.raises(NotFound) as raised:
        await scene.newest()
    assert raised.value.code == "NO-CHECKPOINT"
    for old, size in ((0, 5), (5, 5), (5, 12)):
        answer = await scene.submit(old, size)
        (line,) = parse_signatures(bytes(answer.body))
        assert verify_cosignature(line, WITNESS.keys[0], LOG.checkpoint(size)) == 1_795_000_000
    note = SignedNote.parse(bytes((await scene.newest()).body))
    assert Checkpoint.parse(note.text) == LOG.checkpoint(12) and WITNESS.signed(note)


async def test_the_mirror_of_a_log_signs_no_checkpoint(scene: Scene) -> None:
    answer = await scene.submit(0, 5, MIRRORED)
    assert (answer.status_code, answer.body) == (200, b"")


@pytest.mark.parametrize("old", [0, 4, 6])
async def test_another_old_size_is_answered_with_the_size_that_is_known(scene: Scene, old: int) -> None:
    await scene.submit(0, 5)
    answer = await scene.submit(old, 12)
    assert (answer.status_code, answer.body, answer.headers["content-type"]) == (409, b"5\n", "text/x.tlog.size")
    assert list(await scene.routes.pending(LOG.verifier)) == [5]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", ""),
        (b"old 0\n\nno note\n", ""),
        (AddCheckpoint(7, (), LOG.note(5)).encode(), "ADD-CHECKPOINT"),
        (OutsideLog("other.example/log").grow(5).submission(0, 5), "UNKNOWN-LOG"),
        (OutsideLog(LOG.origin).grow(5).submission(0, 5), ""),  # by another key
        (AddCheckpoint(0, (bytes(32),), LOG.note(5)).encode(), ""),
    ],
)
async def test_a_request_that_proves_nothing_is_refused(scene: Scene, body: bytes, code: str) -> None:
    with pytest.raises(ComityError) as raised:
        await scene.send(body)
    assert raised.value.code == code or not code
    assert await scene.routes.pending(LOG.verifier) == {}


async def test_a_checkpoint_that_is_not_proven_to_continue_is_refused(scene: Scene) -> None:
    await scene.submit(0, 5)
    with pytest.raises(Untrusted):
        await scene.send(AddCheckpoint(5, (bytes(32),) * 3, LOG.note(12)).encode())
    with pytest.raises(Untrusted):
        await scene.submit(5, 12, FORK)
    assert list(await scene.routes.pending(LOG.verifier)) == [5] and scene.known.proofs == []


async def test_two_roots_of_one_size_are_kept_as_a_proof(scene: Scene) -> None:
    await scene.submit(0, 5)
    with pytest.raises(Untrusted):
        await scene.submit(5, 5, FORK)
    ((first, second),) = scene.known.proofs
    assert SignedNote.parse(first).text == LOG.note(5).text and SignedNote.parse(second).text == FORK.note(5).text


async def test_a_log_with_two_histories_is_blocked(scene: Scene) -> None:
    scene.known.frozen_logs.add(LOG.verifier)
    with pytest.raises(Refused) as raised:
        await scene.submit(0, 5)
    assert raised.value.code == "SPLIT-VIEW"


async def test_only_the_last_checkpoints_are_pending(scene: Scene) -> None:
    for size in range(1, MAX_PENDING + 3):
        await scene.submit(size - 1, size)
    pending = await scene.routes.pending(LOG.verifier)
    assert list(pending) == list(range(3, MAX_PENDING + 3))
    assert all(note.signatures == LOG.note(size).signatures for size, note in list(pending.items())[:-1])


def node_keys() -> Any:
    log, cosigner, online = (PrivateKey.generate("ed25519") for _ in range(3))
    names = SimpleNamespace(
        origin="node.example/log", cosigners=(cosigner_key("node.example/cosigner", cosigner.public),)
    )
    return SimpleNamespace(log=log, cosigners=(cosigner,), online=HybridSigner((online,)), record=names)


def loaded(tmp_path: Path, keys: Any, *pairs: PrivateKey, name: str = "node.example/witness") -> WitnessKey | None:
    path = tmp_path / "witness.pem"
    if pairs:
        write_keys(path, pairs)
    given: Any = SimpleNamespace(witness_name=name, witness_key=path)
    return WitnessKey.load(given, keys)


def test_a_witness_has_a_name_and_keys_of_its_own(tmp_path: Path) -> None:
    keys = node_keys()
    assert loaded(tmp_path, keys, name="") is None
    made = loaded(tmp_path, keys, KEY)
    assert made is not None and made.keys == (cosigner_key("node.example/witness", KEY.public),)


@pytest.mark.parametrize("role", ["log", "cosigners", "online"])
def test_a_key_of_the_node_cannot_be_that_of_the_witness(tmp_path: Path, role: str) -> None:
    keys = node_keys()
    key = {"log": keys.log, "cosigners": keys.cosigners[0], "online": keys.online.keys[0]}[role]
    with pytest.raises(Malformed) as raised:
        loaded(tmp_path, keys, key)
    assert raised.value.code == "CONFIG"


@pytest.mark.parametrize("name", ["node.example/log", "node.example/cosigner"])
def test_a_name_of_the_node_cannot_be_that_of_the_witness(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed) as raised:
        loaded(tmp_path, node_keys(), KEY, name=name)
    assert raised.value.code == "CONFIG"


def test_a_key_that_cannot_cosign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComityError):
        loaded(tmp_path, node_keys(), PrivateKey.generate("ecdsa-p256"))


def test_a_note_is_signed_by_the_witness_only_with_its_line() -> None:
    note = LOG.note(5)
    other = WitnessKey(WITNESS.name, (PrivateKey.generate("ed25519"),))
    assert not WITNESS.signed(note) and log_verifier_key(LOG.origin, LOG.key.public) == LOG.verifier
    both = note.with_signatures(*other.cosign(LOG.checkpoint(5), lambda: 1.0))
    assert other.signed(both) and not WITNESS.signed(both)
