"""What governance costs: bytes and signatures of an epoch and of a published statement, and the replay of a history.

    python bench/charter.py [--members 4,50,200] [--epochs 100]

Real messages under hybrid keys, no network. Every epoch changes a number in the policy, so that its certificate is q
INTENTs and q RATIFYs. A newcomer replays the history from the genesis: each body parsed, each certificate checked.
The federation file with this history is written, and read by a process of its own, which prints its own peak of memory.
Seconds are CPU of one core; signing is not counted. Writes results/charter.json and results/charter.svg.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
from comity.content import durable
from comity.federation_file import Federation
from comity.rules.charter_drafts import draft, genesis
from comity.rules.signing import sign_content
from comity.trust.charter.certificate import certify, certify_genesis
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.votes import Intent, Ratify, consent, draft_statement
from comity.trust.encoding import sha256
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.names import Name
from comity.trust.statement import SideObject, sign_statement
from comity.trust.statements import Licence, Published
from comity.trust.tlog.note import MAX_SIGNATURES, Checkpoint, cosign
from comity.trust.tlog.proof import TlogProof
from curves import Panel, draw

NOW = 1_795_000_000
LOG_SIZE = 1_000_000
HALVES = 2
"""Signatures that one hybrid key makes."""


@dataclass(frozen=True)
class Person:
    """A member, with the key by which it votes and the keys by which its node cosigns."""

    inception: Inception
    signer: HybridSigner
    cosigner: HybridSigner

    @classmethod
    def of(cls, number: int) -> Person:
        signer, recovery = HybridSigner.generate(), HybridSigner.generate()
        keys, label = KeySet((signer.public,), 1), f"Institute {number}"
        inception = Inception("member", keys, (recovery.public.id,), f"node-{number}.example/log", "CH", label)
        return cls(inception, signer, HybridSigner.generate(("ed25519", "ml-dsa-44")))

    @property
    def seat(self) -> Member:
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, who.keys, who.recovery)


class Clock:
    """CPU seconds of this process while a block runs, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._began


def founded(people: Sequence[Person]) -> tuple[Body, list[bytes]]:
    """The genesis of `people`, and the lines that certify it."""
    body = genesis([each.seat for each in people], CharterPolicy(quorum(len(people)), 1, 1, 0))
    inceptions = [sign_content(InceptionStatement(each.inception), each.signer).line for each in people]
    return body, inceptions + [consent(body, each.inception.id, each.signer).line for each in people]


def voted(people: Sequence[Person], previous: Body, body: Body) -> list[bytes]:
    """INTENT and RATIFY of all of `people` in one round."""
    what = (previous.digest, body.epoch, 1, body.digest)
    return [
        sign_statement(kind(each.inception.id, *what).statement(), each.signer).line
        for kind in (Intent, Ratify)
        for each in people
    ]


READER = """
import sys, time
from pathlib import Path
from comity.federation_file import read_federation
began = time.process_time()
read_federation(Path(sys.argv[1]))
used = time.process_time() - began
status = Path("/proc/self/status").read_text()  # getrusage also counts the process that this one was forked from
print(used, 1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""


def file_costs(federation: Federation) -> dict[str, object]:
    """The cost of writing a federation file, and of reading and verifying it."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "federation.json")
        with clock:
            durable.write_pieces(path, federation.encoded())
        read = subprocess.run([sys.executable, "-c", READER, str(path)], check=True, stdout=subprocess.PIPE)
        seconds, peak = map(float, read.stdout.split())
        return {
            "bytes": path.stat().st_size,
            "write_seconds": round(clock.seconds, 2),
            "read_seconds": round(seconds, 2),
            "read_peak_mb": round(peak / 1e6),
        }


def replayed(people: Sequence[Person], epochs: int) -> dict[str, object]:
    """The cost of one epoch, and the CPU seconds in which a newcomer replays `epochs` of them."""
    clock, q = Clock(), quorum(len(people))
    body, lines = founded(people)
    with clock:
        current = certify_genesis(Body.parse(body.data), lines)
    chain, certificates = [current], [tuple(lines)]
    genesis_seconds, genesis_bytes = clock.seconds, len(body.data) + sum(map(len, lines))
    for number in range(epochs):
        body = draft(current, policy=replace(current.policy, min_copies=1 + (number + 1) % 2))
        at = number % len(people)
        lines = voted([*people[at:], *people[:at]][:q], current, body)
        with clock:
            current = certify(current, Body.parse(body.data), lines).body
        chain.append(current)
        certificates.append(tuple(lines))
    announced = sign_statement(draft_statement(body, people[0].inception.id, "why"), people[0].signer).line
    certificate = sum(map(len, lines))
    return {
        "body_bytes": len(body.data),
        "certificate_bytes": certificate,
        "certificate_signatures": HALVES * len(lines),
        "logged_bytes": len(announced) + len(body.data) + certificate * len(people) // q,
        "logged_signatures": HALVES * (1 + 2 * len(people)),
        "genesis_bytes": genesis_bytes,
        "genesis_seconds": round(genesis_seconds, 3),
        "replay_epochs": epochs,
        "replay_seconds": round(clock.seconds, 2),
        "replay_ms_a_line": round(1000 * (clock.seconds - genesis_seconds) / (epochs * len(lines)), 3),
        "file": file_costs(Federation(tuple(chain), tuple(certificates), ())),
    }


def published(people: Sequence[Person]) -> dict[str, object]:
    """The cost of one statement if it is alone under its checkpoint and every other member cosigns that."""
    publisher, log = people[0], PrivateKey.generate("ed25519")
    document = SideObject(sha256(b"manifest"), 4096)
    name = Name.parse("institute/model@v1")
    said = Published(publisher.inception.id, name, document.digest, document, document, Licence("Apache-2.0"))
    line = sign_content(said, publisher.signer).line
    checkpoint = Checkpoint("node-0.example/log", LOG_SIZE, bytes(32))
    signed = checkpoint.signed(log)
    cosigned = [
        signature
        for number, each in enumerate(people[1:], 1)
        for key in each.cosigner.keys
        for signature in [cosign(checkpoint, f"node-{number}.example/cosigner", key, NOW)]
    ]
    path = (bytes(32),) * (LOG_SIZE - 1).bit_length()
    return {
        "statement_bytes": len(line),
        "proof_bytes": len(TlogProof(0, path, signed).encode()),
        "cosignature_bytes": len(signed.with_signatures(*cosigned).encode()) - len(signed.encode()),
        "signatures": HALVES + 1 + len(cosigned),
        "fits_one_note": 1 + len(cosigned) <= MAX_SIGNATURES,
    }


def plot(results: Sequence[dict[str, Any]]) -> None:
    def curve(group: str, name: str, unit: float = 1) -> list[tuple[float, float]]:
        rows = [(row["members"], row[group]) for row in results]
        return [(float(members), float(row[name]) / unit) for members, row in rows]

    epoch = {
        "logged by all members": curve("epoch", "logged_bytes", 1e6),
        "certificate": curve("epoch", "certificate_bytes", 1e6),
        "body": curve("epoch", "body_bytes", 1e6),
    }
    epochs = results[0]["epoch"]["replay_epochs"]
    panels = [
        Panel("one epoch, MB", "members", epoch),
        Panel("cosignatures of one checkpoint, MB", "members", {"": curve("statement", "cosignature_bytes", 1e6)}),
        Panel(f"replay of {epochs} epochs, CPU s", "members", {"": curve("epoch", "replay_seconds")}),
    ]
    draw(harness.RESULTS / "charter.svg", panels)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--members", default="4,10,50,100,200", help="sizes of the federation, with commas between")
    arguments.add_argument("--epochs", type=int, default=100)
    chosen = arguments.parse_args()
    sizes = [int(size) for size in chosen.members.split(",")]
    people = [Person.of(number) for number in range(max(sizes))]
    results: list[dict[str, object]] = []
    for size in sizes:
        some = people[:size]
        row: dict[str, object] = {"members": size, "quorum": quorum(size)}
        row |= {"epoch": replayed(some, chosen.epochs), "statement": published(some)}
        print(row)
        results.append(row)
    harness.write("charter", results=results)
    plot(results)


if __name__ == "__main__":
    main()
