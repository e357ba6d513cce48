"""What an officer's verdict costs, apart from hashing the files and starting Python, beside its bare signature checks.

    python bench/verdict.py [--rounds 15]

An artifact with 16 claims in one log, proven under one checkpoint that 8 members cosign with Ed25519 and ML-DSA-44; a
federation of 10 members with hybrid keys, in its fifth epoch, whose last body the policy pins. From the files on the
disk to the verdict: the policy and the federation file that it pins, read and proven from the genesis on; the evidence
pack, read; the rows. The peer does nothing but check each signature that is checked on the way, once, keys and messages
at hand. Times are CPU time of this process, which uses one core, and elapsed time for all of it. Writes
results/verdict.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import harness
from charter import NOW, Person, founded, voted
from comity.evidence_pack import read_pack
from comity.federation_file import Federation
from comity.rules.charter_drafts import draft
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.charter.document import quorum
from comity.trust.charter.federation import FederationNode
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import sha256
from comity.trust.errors import Untrusted
from comity.trust.evidence import PACK, FoundFile, Inspection, Verdict, proof_name
from comity.trust.identity import InceptionStatement
from comity.trust.keys import HybridSigner, PrivateKey, PublicKey
from comity.trust.names import Name
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Entry, SideObject
from comity.trust.statements import Advisory, Licence, Published
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, cosign, cosigner_key, log_verifier_key
from comity.trust.tlog.proof import TlogProof
from comity.trust.verify import verify
from comity.verifier import load_policy
from comity.wire.tls import make_certificate

EPOCHS, COSIGNERS, CLAIMS = 5, 8, 16
JURISDICTIONS = ("CH", "SG", "ES", "KR", "CA", "BR", "IN", "JP", "NO", "FR")
CONTENT = b"weights"
FILE = FoundFile("model.safetensors", len(CONTENT), sha256(CONTENT), inspection=Inspection("safetensors"))


@dataclass(frozen=True)
class Node:
    """A member's node: its record, and the keys that sign as it."""

    person: Person
    record: NodeRecord
    entry: Entry
    log: PrivateKey
    online: HybridSigner

    @classmethod
    def of(cls, number: int) -> Node:
        made = Person.of(number)
        person = replace(made, inception=replace(made.inception, jurisdiction=JURISDICTIONS[number]))
        name = f"node-{number}.example"
        log, tls, online = PrivateKey.generate("ed25519"), PrivateKey.generate("ecdsa-p256"), HybridSigner.generate()
        record = NodeRecord(
            member=person.inception.id,
            name=name,
            log=log_verifier_key(f"{name}/log", log.public),
            cosigners=tuple(cosigner_key(f"{name}/cosigner", key.public) for key in person.cosigner.keys),
            online=online.public,
            tls=make_certificate(tls),
        )
        bound = (HybridSigner((log,)), person.cosigner, online, HybridSigner((tls,)))
        return cls(person, record, sign_content(record, person.signer, *bound), log, online)


def governed(nodes: list[Node]) -> Federation:
    """Five epochs, each certified by both votes of a quorum."""
    people = [node.person for node in nodes]
    body, lines = founded(people)
    chain, certificates = [body], [lines]
    while len(chain) < EPOCHS:
        following = draft(chain[-1], policy=replace(chain[-1].policy, min_copies=1 + len(chain) % 2))
        certificates.append(voted(people[: quorum(len(people))], chain[-1], following))
        chain.append(following)
    return Federation.assemble(chain, certificates, [FederationNode(n.record, n.entry.line, (), ()) for n in nodes])


def claims_about(manifest: Manifest, nodes: list[Node]) -> list[Entry]:
    """The publication, the nodes' records, the holds, and the publisher's later statements: 16 statements."""
    publisher, document = nodes[0].person, SideObject.of(manifest.encode())
    who, pieces = publisher.inception, SideObject.of(b"pieces")
    name = Name.parse("institute/model@v1")
    said = Published(who.id, name, manifest.digest, document, pieces, Licence("Apache-2.0"))
    made = [
        sign_content(InceptionStatement(who), publisher.signer),
        sign_content(said, publisher.signer),
        *(node.entry for node in nodes),
    ]
    made.append(sign_content(HeldArtifact(nodes[0].record.node, document, pieces), nodes[0].online))
    while len(made) < CLAIMS:
        warning = Advisory(who.author, manifest.digest, "yank", "info", f"note {len(made)}")
        made.append(sign_content(warning, publisher.signer))
    return made


def written(folder: Path) -> None:
    """The artifact's evidence pack, the federation file and a policy, as an officer carries them."""
    nodes = [Node.of(number) for number in range(len(JURISDICTIONS))]
    manifest = Manifest.of([FileEntry(FILE.path, FILE.size, sha256(CONTENT))])
    claims, tree = claims_about(manifest, nodes), MemoryTree()
    for entry in claims:
        tree.append(leaf_hash(entry.line))
    origin, checkpoint = nodes[0].record.origin, Checkpoint(nodes[0].record.origin, tree.size, tree.root())
    cosigned = [
        cosign(checkpoint, node.record.cosigners[0].name, key, NOW)
        for node in nodes[1 : 1 + COSIGNERS]
        for key in node.person.cosigner.keys
    ]
    note = checkpoint.signed(nodes[0].log).with_signatures(*cosigned)
    pack = folder / "model" / PACK
    (pack / "proofs").mkdir(parents=True)
    (pack / "manifest.json").write_bytes(manifest.encode())
    (pack / "statements.jsonl").write_bytes(b"".join(entry.line + b"\n" for entry in claims))
    for index, entry in enumerate(claims):
        proof = TlogProof(index, inclusion_proof(index, tree.size, tree.node), note)
        (pack / "proofs" / proof_name(entry.digest, origin)).write_bytes(proof.encode())
    federation = governed(nodes)
    (folder / "federation.json").write_bytes(federation.encode())
    (folder / "policy.toml").write_text(
        f'[[pin]]\nfile = "federation.json"\nbody = "{federation.body.digest}"\n'
        f'[publishers]\naccept = ["{nodes[0].person.inception.id}"]\n'
        f"[cosigners]\nat_least = {COSIGNERS}\njurisdictions = {COSIGNERS}\npost_quantum = true\n"
    )


def judged(folder: Path) -> tuple[Verdict, dict[str, float]]:
    """The verdict, and the seconds of its parts."""
    began, started = time.process_time(), time.perf_counter()
    policy = load_policy(folder / "policy.toml")
    trusted = time.process_time()
    evidence = replace(read_pack(folder / "model"), files=(FILE,))
    read = time.process_time()
    verdict = verify(evidence, policy)
    ended = time.process_time()
    parts = {"policy and charter": trusted - began, "evidence pack": read - trusted, "rows": ended - read}
    return verdict, {**parts, "all": ended - began, "all, elapsed": time.perf_counter() - started}


@contextmanager
def checking(instead: Callable[[PublicKey, bytes, bytes], None]) -> Iterator[None]:
    """Signatures are checked by `instead` while the block runs."""
    real = PublicKey.verify
    PublicKey.verify = instead  # type: ignore[method-assign, assignment]  # put back below
    try:
        yield
    finally:
        PublicKey.verify = real  # type: ignore[method-assign]  # put back below


def checks_in(work: Callable[[], object]) -> list[tuple[PublicKey, bytes, bytes]]:
    """Every signature that `work` checks: key, signature, message; each time that it does."""
    seen: list[tuple[PublicKey, bytes, bytes]] = []
    real = PublicKey.verify

    def noted(key: PublicKey, signature: bytes, message: bytes) -> None:
        seen.append((key, signature, message))
        real(key, signature, message)

    with checking(noted):
        work()
    return seen


def unchecked(folder: Path) -> float:
    """CPU seconds of a verdict that takes every signature as valid: all but the signature checks."""
    with checking(lambda key, signature, message: None):
        return judged(folder)[1]["all"]


def bare(checks: list[tuple[PublicKey, bytes, bytes]]) -> float:
    began = time.process_time()
    for key, signature, message in checks:
        try:
            key.verify(signature, message)
        except Untrusted as error:
            raise AssertionError("a signature that held holds no longer") from error
    return time.process_time() - began


def summary(seconds: list[float]) -> dict[str, float]:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return {"median_ms": round(1000 * middle, 2), "min_ms": round(1000 * low, 2), "max_ms": round(1000 * high, 2)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder)
        checks = checks_in(lambda: judged(folder))
        distinct = list(dict.fromkeys(checks))
        taken: dict[str, list[float]] = {}
        for _ in range(rounds):
            verdict, parts = judged(folder)
            assert verdict.accepted, verdict.row("policy").summary
            peers = {"all, without checking signatures": unchecked(folder), "bare signature checks": bare(distinct)}
            for part, seconds in {**parts, **peers}.items():
                taken.setdefault(part, []).append(seconds)
    table = {part: summary(seconds) for part, seconds in taken.items()}
    harness.show(table)
    algorithms = {
        alg: sum(key.alg == alg for key, _, _ in distinct) for alg in sorted({key.alg for key, _, _ in distinct})
    }
    print(f"{len(checks)} signature checks, {len(distinct)} distinct: {algorithms}")
    harness.write(
        "verdict", rounds=rounds, seconds=table, checks=len(checks), distinct=len(distinct), algorithms=algorithms
    )


if __name__ == "__main__":
    main()
