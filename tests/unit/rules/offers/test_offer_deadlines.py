"""Whether a grant was accepted in time, by the times of its cosigners."""

from __future__ import annotations

import pytest
from comity.rules.offers.amounts import accepted_in_time
from comity.rules.offers.records import Acceptance, GivingBack, Grant, read_record
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.encoding import sha256
from comity.trust.errors import Untrusted
from comity.trust.statement import Entry
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, cosign, cosigner_key
from comity.trust.tlog.proof import TlogProof
from support.offers import GRANTEE, LOG, LOG_KEY, START, Written, hours
from support.seeded import seeded_key

DAY = 86_400
MEMBERS = {name: seeded_key("ed25519", f"offers/cosigner/{name}") for name in ("a", "b", "c")}
KEYS = {name: (cosigner_key(f"node-{name}/cosigner", key.public),) for name, key in MEMBERS.items()}


def proven(log: Written, index: int, times: dict[str, int]) -> TlogProof:
    tree = MemoryTree(leaf_hash(entry.line) for entry in log.entries)
    checkpoint = Checkpoint(LOG.name, tree.size, tree.root())
    note = checkpoint.signed(LOG_KEY)
    note = note.with_signatures(*(cosign(checkpoint, KEYS[m][0].name, MEMBERS[m], at) for m, at in times.items()))
    return TlogProof(index, inclusion_proof(index, tree.size, tree.node), note)


def granted() -> tuple[Written, Entry, Grant, Entry]:
    log = Written()
    chain = log.post()
    entry = log.grant(chain, hours(0, 10))
    grant = read_record(entry.statement)
    assert isinstance(grant, Grant)
    return log, entry, grant, log.say(Acceptance(GRANTEE, chain, entry.digest))


def test_members_count_whose_cosignature_is_not_later_than_the_deadline() -> None:
    log, entry, grant, acceptance = granted()
    proof = proven(log, len(log.entries) - 1, {"a": START + DAY, "b": START + DAY + 1, "c": 0})
    assert accepted_in_time(entry, grant, acceptance, proof, LOG, KEYS) == {"a"}  # type: ignore[arg-type]  # names in place of digests


@pytest.mark.parametrize("at", [1, START + DAY])
def test_one_cosignature_in_time_by_any_key_of_a_member_is_enough(at: int) -> None:
    log, entry, grant, acceptance = granted()
    proof = proven(log, len(log.entries) - 1, {"a": at, "b": START + DAY + 1})
    members = {"one": (*KEYS["c"], *KEYS["a"]), "two": (*KEYS["b"], *KEYS["a"]), "three": KEYS["b"], "four": ()}
    assert accepted_in_time(entry, grant, acceptance, proof, LOG, members) == {"one", "two"}  # type: ignore[arg-type]  # names in place of digests


def test_another_statement_of_the_grantee_is_no_acceptance() -> None:
    log, entry, grant, _ = granted()
    given_back = log.say(GivingBack(GRANTEE, grant.link.chain, entry.digest))
    with pytest.raises(Untrusted, match="not an acceptance of this grant"):
        accepted_in_time(entry, grant, given_back, proven(log, len(log.entries) - 1, {}), LOG, {})


def test_an_acceptance_by_another_than_the_grantee_is_refused() -> None:
    log, entry, grant, _ = granted()
    other = log.say(Acceptance(sha256(b"another"), grant.link.chain, entry.digest))
    with pytest.raises(Untrusted, match="not an acceptance of this grant"):
        accepted_in_time(entry, grant, other, proven(log, len(log.entries) - 1, {}), LOG, {})


def test_members_that_did_not_cosign_do_not_count() -> None:
    log, entry, grant, acceptance = granted()
    proof = proven(log, len(log.entries) - 1, {})
    assert accepted_in_time(entry, grant, acceptance, proof, LOG, KEYS) == frozenset()  # type: ignore[arg-type]  # names in place of digests


def test_an_acceptance_of_another_grant_or_out_of_the_log_is_refused() -> None:
    log, entry, grant, acceptance = granted()
    other = log.say(Acceptance(GRANTEE, grant.link.chain, acceptance.digest))
    last = len(log.entries) - 1
    with pytest.raises(Untrusted):
        accepted_in_time(entry, grant, other, proven(log, last, {}), LOG, KEYS)  # type: ignore[arg-type]  # names in place of digests
    with pytest.raises(Untrusted):
        accepted_in_time(entry, grant, acceptance, proven(log, last, {}), LOG, KEYS)  # type: ignore[arg-type]  # names in place of digests
