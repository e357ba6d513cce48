"""Which proofs a pull keeps in the evidence pack, and what it says was not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comity.content import durable
from comity.evidence_pack import read_pack
from comity.rules.collected import best_proofs
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import sha256
from comity.trust.evidence import PACK, UNREAD, Evidence, EvidenceReader
from comity.trust.tlog.note import log_verifier_key
from comity_client.pull.destinations import PARTIAL, write_pack
from support.case import case, nodes
from support.world import Log, node

CH, SG, ES, KR = nodes(4)
ANNA = sha256(b"anna")
GOOD = case()
WHOLE = Evidence(GOOD.manifest, None, GOOD.claims, pieces=GOOD.pieces)


def test_a_log_of_the_same_origin_displaces_no_proof_of_another_log(tmp_path: Path) -> None:
    """A member may give its log the origin of another member's, and have it cosigned by more."""
    publication, second = GOOD.publication, node(SG.seat, "second.example")
    record = replace(second.record, log=log_verifier_key(CH.origin, second.log.public))
    bound_by = sign_content(record, SG.seat.signer, *second.bound)
    log = Log(CH.origin, second.log)
    for line in (*GOOD.claims, publication.line):
        log.append(line)
    (real,) = GOOD.proofs_of(publication.line)
    other = log.proof(publication.line, (CH, SG, ES, KR))
    claims = read_claims((*GOOD.claims, bound_by.line), GOOD.artifact)
    kept = best_proofs(publication, (real, other), claims.bound(GOOD.policy.pins), EvidenceReader())
    assert {each.proof for each in kept} == {real, other}
    write_pack(tmp_path, WHOLE, kept)
    assert set(read_pack(tmp_path, EvidenceReader()).proofs) == {real, other}


def test_a_pack_says_what_was_not_read_until_a_pull_reads_it(tmp_path: Path) -> None:
    limited = replace(WHOLE, unread=("more was said about the artifact 9f2c than was read",), cut=frozenset({ANNA}))
    write_pack(tmp_path, limited, ())
    found = read_pack(tmp_path, EvidenceReader())
    assert (found.unread, found.cut, found.left_out) == (limited.unread, limited.cut, ())
    write_pack(tmp_path, WHOLE, ())
    found = read_pack(tmp_path, EvidenceReader())
    assert (found.unread, found.cut) == ((), frozenset())


def test_a_file_that_says_nothing_readable_about_it_is_named(tmp_path: Path) -> None:
    write_pack(tmp_path, WHOLE, ())
    (tmp_path / ".comity" / UNREAD).write_bytes(b'{"cut":[1]}')
    (note,) = read_pack(tmp_path, EvidenceReader()).left_out
    assert note.startswith("unread.json is ignored: ")


def test_a_folder_with_a_part_of_the_files_is_marked_before_it_has_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill between both leaves a folder that fails."""
    written, write_file = list[str](), durable.write_file

    def watched(path: Path, data: bytes, **how: object) -> None:
        written.append(path.name)
        write_file(path, data, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(durable, "write_file", watched)
    write_pack(tmp_path, WHOLE, (), missing=("weights.bin",))
    assert written.index(PARTIAL) < written.index("manifest.json")
    write_pack(tmp_path, WHOLE, ())
    assert not (tmp_path / PACK / PARTIAL).exists()
