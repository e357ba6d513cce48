"""Our own log before outside witnesses (C2SP tlog-witness): each is shown the newest checkpoint, and signs what
continues what it saw. Its cosignatures are kept and handed out with those of members; whom they convince is for every
verifier to decide.
"""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import structlog

from comity.node.context import NodeContext
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.encoding import parse_decimal
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature
from comity.trust.tlog.witness import MAX_ANSWER, AddCheckpoint, parse_signatures

RHYTHM: Final = Rhythm(every=1.0, deadline=60.0, longest_rest=300.0)
HEARTBEAT: Final = 600.0
"""Seconds after which a checkpoint that did not change is shown again, so that its signature is not stale."""
PATIENCE: Final = 10.0
"""Seconds that a witness may take for its answer."""

_log: Final = structlog.get_logger("comity.node")


@dataclass(frozen=True, slots=True)
class OutsideWitness:
    """An outside witness, and where it takes submissions."""

    key: VerifierKey
    url: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`name+id+key URL`, as `tlog.submit` lists them."""
        key, _, url = text.partition(" ")
        return cls(VerifierKey.parse(key), url)


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    status: int
    body: bytes


class OutsideWitnesses:
    """Shows the own log to every witness that the operator named, each by a loop of its own."""

    def __init__(self, core: NodeContext) -> None:
        self._witnesses = [Submitter(core, OutsideWitness.parse(text)) for text in core.config.tlog.submit]

    def begin(self, supervisor: Supervisor) -> None:
        for witness in self._witnesses:
            supervisor.loop(f"witness {witness.name}", witness.step, RHYTHM)


class Submitter:
    """One witness. Touched by the event loop only."""

    def __init__(self, core: NodeContext, witness: OutsideWitness) -> None:
        self._core = core
        self._witness = witness
        self._old = 0
        self._shown: Checkpoint | None = None
        self._due = 0.0

    @property
    def name(self) -> str:
        return self._witness.key.name

    async def step(self) -> None:
        """Show the newest checkpoint where it grew, or was shown long ago.

        Raises Unavailable (WITNESS) where the witness gives no signature, and Untrusted (WITNESS-AHEAD) where it has
        signed more of this log than is here: then this ledger is older than what was signed.
        """
        note = await self._newest()
        checkpoint = Checkpoint.parse(note.text) if note else None
        if note is None or checkpoint is None or checkpoint.size == 0:
            return
        if checkpoint == self._shown and self._core.clock() < self._due:
            return
        answer = await self._submit(note, checkpoint)
        if answer.status == 409:
            self._old = self._size_in(answer, checkpoint)
            answer = await self._submit(note, checkpoint)
        if answer.status != 200:
            why = f"it answered {answer.status}"
            raise Unavailable(f"the witness {self.name} did not sign", why=why, code="WITNESS")
        await self._keep(checkpoint, answer)
        self._old, self._shown, self._due = checkpoint.size, checkpoint, self._core.clock() + HEARTBEAT

    async def _newest(self) -> SignedNote | None:
        """The newest checkpoint, with the log's signature alone: witnesses bound what they read."""
        state = await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)
        return SignedNote.parse(state.note) if state.note else None

    async def _submit(self, note: SignedNote, checkpoint: Checkpoint) -> WitnessAnswer:
        old = min(self._old, checkpoint.size)
        history = self._core.ledger.history
        proof = await self._core.pools.ledger(history.consistency, self._core.log, old, checkpoint.size)
        body = AddCheckpoint(old, proof, note).encode()
        return await self._core.pools.files(post, f"{self._witness.url}/add-checkpoint", body)

    def _size_in(self, answer: WitnessAnswer, checkpoint: Checkpoint) -> int:
        size = parse_decimal(answer.body.decode("ascii", "replace").removesuffix("\n"))
        if size > checkpoint.size:
            why = f"it has signed {size} entries, {checkpoint.size} are here"
            raise Untrusted(f"the witness {self.name} has seen more of this log", why=why, code="WITNESS-AHEAD")
        return size

    async def _keep(self, checkpoint: Checkpoint, answer: WitnessAnswer) -> None:
        lines = [line for line in parse_signatures(answer.body) if self._signed(line, checkpoint)]
        if not lines:
            raise Unavailable(f"the witness {self.name} did not sign", why="no line by its key", code="WITNESS")
        add = self._core.ledger.cosignatures.add
        await self._core.pools.ledger(add, self._core.log, checkpoint.size, checkpoint.root, lines)
        self._core.metrics.witnessed_size.labels(self.name).set(checkpoint.size)
        _log.info("witnessed", witness=self.name, size=checkpoint.size)

    def _signed(self, line: NoteSignature, checkpoint: Checkpoint) -> bool:
        with contextlib.suppress(Untrusted):
            verify_cosignature(line, self._witness.key, checkpoint)
            return True
        return False


def post(url: str, body: bytes) -> WitnessAnswer:
    """Blocking. What comes back, whatever its status; at most 512 KiB of it. Raises Unavailable (WITNESS)."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "text/plain; charset=utf-8"})
        response = connection.getresponse()
        return WitnessAnswer(response.status, response.read(MAX_ANSWER))
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"no answer from {parts.netloc}", why=why, code="WITNESS") from error
    finally:
        connection.close()
