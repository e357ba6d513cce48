"""A process that works on a ledger: `python -m support.ledger_workload FOLDER OWN.pem FAR.pem ROUNDS`.

It writes to its own log through a sequencer with several writers, and mirrors another one. Each line of its output is a
promise, written only after the ledger has made it:

    own <index> <sha256>     the entry is at this index of the own log
    signing <size> <root>    a signature over this checkpoint of the own log leaves the process
    far <size>               the mirrored log is visible up to here
    cosigned <size>          a cosignature over the mirrored log's checkpoint of this size is kept
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.sequencer import Sequencer
from comity.ledger.sqlite import SqliteFile
from comity.rules.misbehaviour import ROOTS
from comity.rules.pieces import encode_records
from comity.rules.tree_proofs import Frontier
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import sha256
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, NoteSignature, cosign, sign_note
from support.logs import LogKeys, statement_line

OWN, FAR = "own.example/log", "far.example/log"
COSIGNER = "own.example/cosigner"
WRITERS = 4
STEP = 90
"""Entries of the far log in one step; three of them cross a tile."""


def far_lines(start: int, end: int) -> list[bytes]:
    """The lines of the far log, always the same."""
    return [b"entry %d of the far log" % index for index in range(start, end)]


def promise(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def own_signer(key: PrivateKey) -> Callable[[Checkpoint], NoteSignature]:
    def sign(checkpoint: Checkpoint) -> NoteSignature:
        promise(f"signing {checkpoint.size} {checkpoint.root.hex()}")
        return sign_note(checkpoint.text, OWN, key)

    return sign


async def write(sequencer: Sequencer, rounds: int) -> None:
    for _ in range(rounds):
        line = statement_line(int.from_bytes(os.urandom(6), "big"))
        index = await sequencer.append(line)
        promise(f"own {index} {sha256(line)}")
        await sequencer.covered(index)


def mirror(ledger: Ledger, far: LogKeys, cosigner: PrivateKey, rounds: int) -> None:
    """The steps of a mirror: stage, advance, keep an earlier checkpoint, cosign; and the other tables of a node."""
    truth = Frontier.empty().extend(map(leaf_hash, far_lines(0, ledger.logs.get(FAR).size)))
    for _ in range(rounds):
        start, middle, end = (truth.size + steps * STEP for steps in range(3))
        ledger.logs.stage(FAR, start, far_lines(start, middle))
        earlier = truth.extend(map(leaf_hash, far_lines(start, end - 1)))
        truth = earlier.extend(map(leaf_hash, far_lines(end - 1, end)))
        ledger.logs.advance(FAR, middle, far_lines(middle, end), far.note(end, truth.root()))
        promise(f"far {end}")
        ledger.logs.set_note(FAR, far.note(earlier.size, earlier.root()))
        checkpoint = Checkpoint(FAR, end, truth.root())
        ledger.cosignatures.add(FAR, end, checkpoint.root, [cosign(checkpoint, COSIGNER, cosigner, int(time.time()))])
        promise(f"cosigned {end}")
        parts = tuple(far.note(end, os.urandom(32)).encode() for _ in range(2))
        ledger.misbehaviour.add(ROOTS, FAR, far.vkey, parts)
        blob = sha256(b"%d" % end)
        ledger.pieces.store_records(blob, 5, "fixed-4MiB/1", encode_records([PieceRecord(5, bytes(32))]))
        ledger.pieces.delete_records(blob)


def small_checkpoints(folder: Path) -> SqliteFile:
    """A ledger's file whose write-ahead log is moved to it often."""
    return SqliteFile(folder / DATABASE_FILE, checkpoint_bytes=128 * 1024)


async def write_and_mirror(folder: Path, own: PrivateKey, far: LogKeys, rounds: int) -> None:
    ledger = Ledger.open(folder, time.time, backing=small_checkpoints(folder))
    mine = LogKeys(OWN, own)
    ledger.logs.create(OWN, mine.vkey, own=True)
    ledger.logs.create(FAR, far.vkey)
    sequencer = Sequencer(ledger, mine.verifier, own_signer(own), linger=0, interval=0)
    running = asyncio.create_task(sequencer.run())
    writers = [write(sequencer, rounds) for _ in range(WRITERS)]
    await asyncio.gather(*writers, asyncio.to_thread(mirror, ledger, far, own, rounds))
    running.cancel()
    await asyncio.wait([running])
    ledger.close()


def main(folder: str, own: str, far: str, rounds: str) -> None:
    keys = [PrivateKey.from_pem(Path(pem).read_bytes()) for pem in (own, far)]
    asyncio.run(write_and_mirror(Path(folder), keys[0], LogKeys(FAR, keys[1]), int(rounds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
