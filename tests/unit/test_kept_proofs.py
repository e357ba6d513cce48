"""Which proofs a pull keeps in the evidence pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comity.trust.bound_nodes import bind_nodes
from comity.trust.claims import read_claims
from comity.trust.collected import best_proofs
from comity.trust.evidence import EvidenceReader
from comity.trust.node_records import sign_node_record
from comity.trust.tlog.note import log_verifier_key
from comity.verifier import read_pack
from comity_client.pull.destinations import EvidencePack
from support.case import case, nodes
from support.world import Log, node

CH, SG, ES, KR = nodes(4)
GOOD = case()


def test_a_log_of_the_same_origin_displaces_no_proof_of_another_log(tmp_path: Path) -> None:
    """A member may give its log the origin of another member's, and have it cosigned by more."""
    publication, second = GOOD.publication, node(SG.seat, "second.example")
    record = replace(second.record, log=log_verifier_key(CH.origin, second.log.public))
    bound_by = sign_node_record(record, [SG.seat.signer], second.bound)
    log = Log(CH.origin, second.log)
    for line in (*GOOD.claims, publication.line):
        log.append(line)
    (real,) = GOOD.proofs_of(publication.line)
    other = log.proof(publication.line, (CH, SG, ES, KR))
    claims = read_claims((*GOOD.claims, bound_by.line), GOOD.artifact)
    bound, _, _ = bind_nodes(GOOD.policy.pins, claims.entries, claims.chains)
    kept = best_proofs(publication, (real, other), bound, EvidenceReader())
    assert {each.proof for each in kept} == {real, other}
    EvidencePack(GOOD.manifest, GOOD.pieces, GOOD.claims, tuple(kept)).write(tmp_path)
    assert set(read_pack(tmp_path, EvidenceReader()).proofs) == {real, other}
