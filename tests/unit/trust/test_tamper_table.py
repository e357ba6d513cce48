"""One change in an artifact's folder at a time: the exit status, and the printed step that reports it.

Every case runs `comity.verifier.main` on a real directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.trust.keys import HybridSigner
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.trust.verify import verify
from comity.verifier import main
from support.case import advisory, case, filled, nodes
from support.folder import Folder, cosigned, damaged, resealed, with_payload
from support.world import Node, identity, node, seat

CH, SG, ES, KR = nodes(4)
BR, IN = node(seat("BR")), node(seat("IN"))  # not members
SECOND_SG, SECOND_CH = node(SG.seat, "second.example"), node(CH.seat, "third.example")
GOOD = case()
SAID = GOOD.publication


def other_bytes(name: str) -> Callable[[Folder], None]:
    return lambda folder: folder.flip(name)


def renamed(folder: Folder) -> None:
    (folder.path / "LICENSE").rename(folder.path / "COPYING")


def exchanged(folder: Folder) -> None:
    one, two, aside = folder.path / "config.json", folder.path / "LICENSE", folder.path.parent / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def added(name: str) -> Callable[[Folder], None]:
    def change(folder: Folder) -> None:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).touch()

    return change


def linked_out(folder: Folder) -> None:
    (folder.path / "LICENSE").rename(folder.path.parent / "LICENSE")
    (folder.path / "LICENSE").symlink_to("../LICENSE")


def a_pipe_instead(folder: Folder) -> None:
    (folder.path / "LICENSE").unlink()
    os.mkfifo(folder.path / "LICENSE")


def in_manifest(old: bytes, new: bytes) -> Callable[[Folder], None]:
    return lambda folder: folder.swap(".comity/manifest.json", old, new)


def line_instead(entry: Entry, line: bytes) -> Callable[[Folder], None]:
    return lambda folder: folder.claim(entry.line, line)


def half(at: int, *, gone: bool = False) -> Callable[[Folder], None]:
    sig = SAID.envelope.signatures[at].sig
    return line_instead(SAID, resealed(SAID, at, None if gone else bytes([sig[0] ^ 1]) + sig[1:]))


def renaming(document: Any) -> None:
    document["predicate"]["name"] = "swiss-ai/other@v1"


def with_unknown_algorithm(document: Any) -> None:
    key = document["predicate"]["record"]["keys"][0]
    key["ed448"] = key.pop("ed25519")


def by_another_publisher(folder: Folder) -> None:
    other = identity("Somebody else", "CH")
    folder.claim(SAID.line, sign_statement(replace(SAID.statement, by=other.inception.author), other.signer).line)
    folder.claiming(other.entry.line)


def proof_line(at: int, change: Callable[[str], str]) -> Callable[[Folder], None]:
    return lambda folder: folder.proof_line(at, change)


def larger_checkpoint(folder: Folder) -> None:
    folder.swap(f".comity/proofs/{folder.proof.name}", b"/log\n7\n", b"/log\n8\n")


def log_signature(change: Callable[[str], str]) -> Callable[[Folder], None]:
    return lambda folder: folder.signature_lines(lambda line: line if "/cosigner" in line else change(line))


def cosignatures(change: Callable[[str], str], *who: Node) -> Callable[[Folder], None]:
    return lambda folder: folder.signature_lines(lambda line: change(line) if cosigned(line, *who) else line)


def proven_by(writer: Node, *cosigners: Node) -> Callable[[Folder], None]:
    """A proof in the log of `writer`, with the cosigners' records among the claims."""

    def change(folder: Folder) -> None:
        log = filled(writer)
        log.append(SAID.line)
        folder.proof.write_bytes(log.proof(SAID.line, cosigners).data)
        folder.claiming(*(cosigner.entry.line for cosigner in cosigners))

    return change


def no_proofs(folder: Folder) -> None:
    for proof in folder.pack("proofs").iterdir():
        proof.unlink()


def countersigned_badly(*owners: Node) -> Callable[[Folder], None]:
    """The last signature of their node records, that of the TLS key, is invalid."""

    def change(folder: Folder) -> None:
        for owner in owners:
            *_, last = owner.entry.envelope.signatures
            bad = bytes([*last.sig[:-1], last.sig[-1] ^ 1])
            folder.claim(owner.entry.line, resealed(owner.entry, -1, bad))

    return change


def signed_by(governance: HybridSigner, owner: Node) -> Callable[[Folder], None]:
    return line_instead(owner.entry, sign_statement(owner.entry.statement, governance, *owner.bound).line)


def advised_against(folder: Folder) -> None:
    issuer = identity("Security desk", "ES")
    folder.policy("refuse_from = []", f'refuse_from = ["{issuer.id}"]')
    folder.claiming(*advisory(GOOD, by=issuer))


def policy(old: str, new: str) -> Callable[[Folder], None]:
    return lambda folder: folder.policy(old, new)


def pinned(old: bytes, new: bytes) -> Callable[[Folder], None]:
    return lambda folder: folder.swap("../federation.json", old, new)


def remove(name: str) -> Callable[[Folder], None]:
    return lambda folder: (folder.path / name).unlink()


INCEPTION = parse_entry(GOOD.claims[0])
NOT_SIGNED = "FAIL 3 signatures: no published statement about this artifact verifies"
NOT_HERE = "UNKN 3 signatures: the inception of publisher .* is missing"
BROKEN = "FAIL 5 transparency: the proof does not verify: "
UNBOUND = "FAIL 5 transparency: proof refused: no pinned charter binds the log "
FOREIGN_PIN = f'file = "federation.json"\nbody = "{CH.seat.id}"'

TABLE: list[tuple[str, Callable[[Folder], Any], int, str]] = [
    (
        "a byte of a large file",
        other_bytes("model.safetensors"),
        3,
        "FAIL 2 bytes: model.safetensors: the hash does not match",
    ),
    ("a byte of a small file", other_bytes("config.json"), 3, "FAIL 2 bytes: config.json: the hash does not match"),
    ("a byte of a file below", other_bytes("tokenizer/vocab.txt"), 3, "FAIL 2 bytes: tokenizer/vocab.txt: the hash"),
    (
        "a file cut short",
        lambda f: os.truncate(f.path / "LICENSE", 5),
        3,
        "FAIL 2 bytes: LICENSE: 5 bytes instead of",
    ),
    ("a file removed", remove("LICENSE"), 3, "FAIL 2 bytes: LICENSE: missing"),
    ("a file added", added("evil.py"), 3, "FAIL 2 bytes: evil.py: not in the manifest"),
    ("a file renamed", renamed, 3, r"FAIL 2 bytes: COPYING: not in the manifest \(1 differ, 1 missing\)"),
    ("two files exchanged", exchanged, 3, r"FAIL 2 bytes: LICENSE: .* \(2 differ, 0 missing\)"),
    ("a file under .git/", added(".git/hook"), 3, "FAIL 2 bytes: .git/hook: not in the manifest"),
    ("a .gitattributes", added(".gitattributes"), 3, "FAIL 2 bytes: .gitattributes: not in the manifest"),
    ("a link out of the folder", linked_out, 3, "FAIL 2 bytes: LICENSE: a link out of the folder"),
    ("a pipe added", lambda f: os.mkfifo(f.path / "pipe"), 3, "FAIL 2 bytes: pipe: not in the manifest"),
    ("a pipe in a file's place", a_pipe_instead, 3, "FAIL 2 bytes: LICENSE: not a regular file"),
    ("a byte of the manifest", other_bytes(".comity/manifest.json"), 3, "FAIL 1 artifact: the manifest is not valid"),
    (
        "the manifest's sum",
        in_manifest(b'"size":5290', b'"size":5291'),
        3,
        "FAIL 1 artifact: the manifest is not valid",
    ),
    ("a second spelling", in_manifest(b'256":"', b'256":"sha256:'), 3, "FAIL 1 artifact: the manifest is not valid"),
    ("no manifest", remove(".comity/manifest.json"), 5, "UNKN 1 artifact: no manifest"),
    (
        "a byte of the piece index",
        other_bytes(".comity/pieces.json"),
        0,
        "FAIL 12 notes: pieces.json is not the published piece index",
    ),
    ("the statement's words", line_instead(SAID, with_payload(SAID, renaming)), 3, NOT_SIGNED),
    ("its classical half", half(0), 3, NOT_SIGNED),
    ("its post-quantum half", half(1), 3, NOT_SIGNED),
    ("no classical half", half(0, gone=True), 3, NOT_SIGNED),
    ("no post-quantum half", half(1, gone=True), 3, NOT_SIGNED),
    ("no statement", line_instead(SAID, b""), 5, "UNKN 3 signatures: no published statement about it"),
    ("no JSON", line_instead(SAID, SAID.line[:-1] + b"|"), 5, "FAIL 12 notes: a claim line could not be read"),
    ("no claims", remove(".comity/statements.jsonl"), 5, "UNKN 3 signatures: no published statement about it"),
    ("no inception", line_instead(INCEPTION, b""), 5, NOT_HERE),
    ("an unknown algorithm", line_instead(INCEPTION, with_payload(INCEPTION, with_unknown_algorithm)), 5, NOT_HERE),
    (
        "another publisher",
        by_another_publisher,
        4,
        "FAIL 3 signatures: signed by Somebody else .*, which is not the publisher",
    ),
    ("a proof's hash", proof_line(3, damaged), 3, BROKEN + "bad inclusion proof: it gives another root"),
    ("a proof's index", proof_line(1, lambda _: "index 4"), 3, BROKEN + "bad inclusion proof"),
    ("a proof cut short", lambda f: os.truncate(f.proof, 100), 3, BROKEN + ".+"),
    ("the checkpoint's size", larger_checkpoint, 3, BROKEN + "bad note signature"),
    ("the log's signature", log_signature(damaged), 3, BROKEN + "bad note signature"),
    ("no signature by the log", log_signature(lambda _: ""), 3, BROKEN + "no signature by a known key"),
    ("another entry's proof", lambda f: f.proof.write_bytes(GOOD.proofs[0].data), 3, BROKEN + "bad inclusion proof"),
    ("another member's log", proven_by(SG, CH, ES, KR), 0, "PASS 5 transparency: entry 5 of node-sg.example/log"),
    ("the log of a stranger", proven_by(BR, SG, ES, KR), 4, UNBOUND + "'node-br.example/log' to a member"),
    (
        "no proof of it",
        lambda f: f.proof.unlink(),
        5,
        "UNKN 5 transparency: none of the proofs is about this statement",
    ),
    ("no proofs", no_proofs, 5, "UNKN 5 transparency: no proof that it was logged"),
    ("a countersignature of the log's record", countersigned_badly(CH), 4, UNBOUND),
    ("the log's record not by its member", signed_by(SG.seat.signer, CH), 4, UNBOUND),
    (
        "all cosignatures",
        cosignatures(damaged, SG, ES, KR),
        3,
        "FAIL 6 cosigners: cosignature by node-sg.*: bad cosignature",
    ),
    (
        "all cosignatures but one's",
        cosignatures(damaged, SG, ES),
        4,
        r"FAIL 6 cosigners: 1 counted, .* Institute KR \(KR\)$",
    ),
    ("one's cosignatures", cosignatures(damaged, SG), 0, r"PASS 6 cosigners: 2 \(2 required\): Institute ES"),
    ("no cosignatures", cosignatures(lambda _: "", SG, ES, KR), 4, "FAIL 6 cosigners: 0 counted, .* have: nobody"),
    ("strangers as cosigners", proven_by(CH, BR, IN), 4, "FAIL 6 cosigners: 0 counted, .* have: nobody"),
    ("two nodes of one member", proven_by(CH, SG, SECOND_SG), 4, "FAIL 6 cosigners: 1 counted, .* have: Institute SG"),
    ("the log's own member", proven_by(CH, SG, SECOND_CH), 4, "FAIL 6 cosigners: 1 counted, .* have: Institute SG"),
    ("cosigners' records", countersigned_badly(SG, ES), 4, "FAIL 6 cosigners: 1 counted, .* have: Institute KR"),
    ("a listed issuer warns", advised_against, 4, "FAIL 17 policy: an issuer in refuse_from .* malware"),
    ("no pin", policy('[[pin]]\nfile = "federation.json"\n', ""), 4, "UNKN 5 transparency: no charter is pinned"),
    ("another body pinned", policy('file = "federation.json"', FOREIGN_PIN), 3, "error: pin refused"),
    ("a word of the pinned charter", pinned(b"Institute CH", b"Institute XX"), 3, "error: charter refused"),
    ("no pinned file", remove("../federation.json"), 5, "error: no file"),
    ("a word of the policy", policy("at_least", "at_lest"), 2, "why: did you mean 'at_least'"),
]


def printed(said: str) -> re.Pattern[str]:
    """`FAIL 5 transparency: text` as the verifier prints it."""
    if match := re.fullmatch(r"([A-Z]{4}) (\d+) ([a-z ]+): (.+)", said, re.DOTALL):
        mark, step, row, text = match.groups()
        said = rf"  {mark}  {step:>2} {row} +{text}"
    return re.compile(f"^{said}", re.MULTILINE)


@pytest.mark.parametrize(("change", "status", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_tampering_is_found_and_named(
    change: Callable[[Folder], Any], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(GOOD.write(tmp_path), GOOD)
    change(folder)
    assert main([str(folder.path), "--policy", str(tmp_path / "policy.toml")]) == status
    out, err = capsys.readouterr()
    assert printed(said).search(out + err), out + err
    verdict = "ACCEPTED\n" if status == 0 else f"NOT ACCEPTED (exit {status})\n"
    assert err.startswith("error: ") if said.startswith(("error", "why")) else out.endswith(f"\n{verdict}")


def test_an_unchanged_folder_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOOD.write(tmp_path)), "--policy", str(tmp_path / "policy.toml")]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_a_partial_copy_is_reported_as_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(replace(GOOD, partial=True).write(tmp_path), GOOD)
    arguments = [str(folder.path), "--policy", str(tmp_path / "policy.toml")]
    assert main(arguments) == 0
    (folder.path / "LICENSE").unlink()
    assert main(arguments) == 8
    assert printed("UNKN 2 bytes: 3/4 files hashed here; partial by request").search(capsys.readouterr().out)
    folder.flip("config.json")
    assert main(arguments) == 3


def test_every_byte_of_the_manifest_counts() -> None:
    policy = GOOD.policy
    for at in range(len(GOOD.manifest)):
        turned = bytearray(GOOD.manifest)
        turned[at] ^= 1
        assert verify(replace(GOOD.evidence, manifest=bytes(turned)), policy).exit_status == 3


def test_any_byte_of_the_publication_counts() -> None:
    policy = GOOD.policy
    for at in range(0, len(SAID.line), 101):
        turned = bytearray(SAID.line)
        turned[at] ^= 1
        claims = tuple(bytes(turned) if claim == SAID.line else claim for claim in GOOD.claims)
        verdict = verify(replace(GOOD.evidence, claims=claims), policy)
        assert verdict.exit_status in (3, 5)
        assert verdict.row("signatures").state in ("fail", "unknown")
