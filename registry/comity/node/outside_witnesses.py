"""Submits this node's log to outside witnesses (C2SP tlog-witness). Each witness gets the newest checkpoint and cosigns
it if it continues the last one. The cosignatures are stored and served with those of members; each verifier decides
which ones it accepts."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterable
from typing import Final, Self
from urllib.parse import urlsplit

import structlog

from comity.node.metrics import Metrics
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.witness import MAX_ANSWER, AddCheckpoint, parse_signatures
from comity.trust.encoding import parse_decimal
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature

TIMING: Final = LoopTiming(interval=1.0, deadline=60.0, max_delay=300.0)
HEARTBEAT: Final = 600.0
"""Seconds after which an unchanged checkpoint is submitted again, so that its cosignature stays fresh."""
TIMEOUT: Final = 10.0
"""Seconds that a witness may take to answer."""

_log: Final = structlog.get_logger("comity.node")


@frozen
class OutsideWitness:
    """An outside witness and its submission URL."""

    key: VerifierKey
    url: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `name+id+key URL`, an item of `tlog.submit`."""
        key, _, url = text.partition(" ")
        return cls(VerifierKey.parse(key), url)


@frozen
class WitnessAnswer:
    status: int
    body: bytes


class OutsideWitnesses:
    """Submits the own log to every configured witness, one loop for each."""

    def __init__(
        self, ledger: AsyncLedger, pools: Pools, log: str, clock: Clock, metrics: Metrics, witnesses: Iterable[str]
    ) -> None:
        self._witnesses = [
            WitnessSubmitter(ledger, pools, log, clock, metrics, OutsideWitness.parse(text)) for text in witnesses
        ]

    def begin(self, supervisor: Supervisor) -> None:
        for witness in self._witnesses:
            supervisor.loop(f"witness {witness.name}", witness.step, TIMING)


class WitnessSubmitter:
    """Submits checkpoints to one witness. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, pools: Pools, log: str, clock: Clock, metrics: Metrics, witness: OutsideWitness
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._witness = witness
        self._witnessed_size = 0
        self._submitted: Checkpoint | None = None
        self._resubmit_at = 0.0

    @property
    def name(self) -> str:
        return self._witness.key.name

    async def step(self) -> None:
        """Submit the newest checkpoint if it grew or the last submission is old.

        Raises Unavailable (WITNESS) if the witness gives no signature, and Untrusted (WITNESS-AHEAD) if it cosigned a
        larger size than this ledger holds: then the ledger is older than what was signed.
        """
        note = await self._newest()
        checkpoint = Checkpoint.parse(note.text) if note else None
        if note is None or checkpoint is None or checkpoint.size == 0:
            return
        if checkpoint == self._submitted and self._clock() < self._resubmit_at:
            return
        answer = await self._submit(note, checkpoint)
        if answer.status == 409:
            self._witnessed_size = self._size_of_witness(answer, checkpoint)
            answer = await self._submit(note, checkpoint)
        if answer.status != 200:
            why = f"it answered with status {answer.status}"
            raise Unavailable(f"the witness {self.name} did not sign", why=why, code="WITNESS")
        await self._store(checkpoint, answer)
        self._witnessed_size, self._submitted, self._resubmit_at = (
            checkpoint.size,
            checkpoint,
            self._clock() + HEARTBEAT,
        )

    async def _newest(self) -> SignedNote | None:
        """The newest checkpoint with only the log's signature: witnesses limit the size of a request."""
        state = await self._ledger.run(self._ledger.tables.logs.get, self._log)
        return SignedNote.parse(state.note) if state.note else None

    async def _submit(self, note: SignedNote, checkpoint: Checkpoint) -> WitnessAnswer:
        witnessed = min(self._witnessed_size, checkpoint.size)
        history = self._ledger.tables.history
        proof = await self._ledger.run(history.consistency, self._log, witnessed, checkpoint.size)
        body = AddCheckpoint(witnessed, proof, note).encode()
        return await self._pools.files(post, f"{self._witness.url}/add-checkpoint", body)

    def _size_of_witness(self, answer: WitnessAnswer, checkpoint: Checkpoint) -> int:
        size = parse_decimal(answer.body.decode("ascii", "replace").removesuffix("\n"))
        if size > checkpoint.size:
            why = f"it cosigned {size} entries, this ledger holds {checkpoint.size}"
            raise Untrusted(
                f"the witness {self.name} cosigned a larger size of this log", why=why, code="WITNESS-AHEAD"
            )
        return size

    async def _store(self, checkpoint: Checkpoint, answer: WitnessAnswer) -> None:
        lines = [line for line in parse_signatures(answer.body) if self._signed(line, checkpoint)]
        if not lines:
            raise Unavailable(f"the witness {self.name} did not sign", why="no signature by its key", code="WITNESS")
        add = self._ledger.tables.cosignatures.add
        await self._ledger.run(add, self._log, checkpoint.size, checkpoint.root, lines)
        self._metrics.witnessed_size.labels(self.name).set(checkpoint.size)
        _log.info("witnessed", witness=self.name, size=checkpoint.size)

    def _signed(self, line: NoteSignature, checkpoint: Checkpoint) -> bool:
        with contextlib.suppress(Untrusted):
            verify_cosignature(line, self._witness.key, checkpoint)
            return True
        return False


def post(url: str, body: bytes) -> WitnessAnswer:
    """Blocking. Returns the answer with any status and at most 512 KiB of body. Raises Unavailable (WITNESS)."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "text/plain; charset=utf-8"})
        response = connection.getresponse()
        return WitnessAnswer(response.status, response.read(MAX_ANSWER))
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"no answer from {parts.netloc}", why=why, code="WITNESS") from error
    finally:
        connection.close()
