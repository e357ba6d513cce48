"""Lines that prove themselves are kept; additional lines of one node cost that node's own answer, and
displace nothing.
"""

from __future__ import annotations

import base64
import json

import pytest
from comity.trust.claims import KnownAuthor, KnownAuthors
from comity.trust.identity import Inception
from comity.trust.statement import Entry, parse_entry
from comity_client.evidence import prove
from comity_client.evidence.prove import Prover, choose
from support.case import case, nodes, release
from support.world import found, identity

NODES = nodes()
BODIES = [found(NODES).body]
OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")
HONEST = [OWNER.entry.line, release()[1].line, *(node.entry.line for node in NODES)]


def junk(number: int, predicate: str = "node-record", by: str = "") -> bytes:
    """A well-formed line without a valid signature."""
    digest = f"{number:064x}"
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "node.example", "digest": {"sha256": digest}}],
        "predicateType": f"urn:comity:{predicate}:v1",
        "predicate": {"by": {"identity": by or digest}},
    }
    signature = {"keyid": digest, "sig": base64.b64encode(b"x" * 64).decode()}
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [signature]}
    return json.dumps(envelope, separators=(",", ":")).encode()


def kept(*sources: list[bytes], most: int = 10_000, prefer: tuple[str, ...] = ()) -> tuple[bytes, ...]:
    proven = Prover(BODIES).prove({str(number): lines for number, lines in enumerate(sources)})
    return choose(proven, (), prefer, most=most)[0]  # type: ignore[arg-type]  # names in place of origins


def test_ten_thousand_junk_node_records_of_one_node_displace_no_line_of_another() -> None:
    flood = [junk(number) for number in range(10_000)]
    assert set(kept(HONEST, flood)) == set(kept(HONEST)) == set(HONEST)


def test_unproven_lines_of_a_node_are_reported() -> None:
    proven = Prover(BODIES).prove({"a+1": HONEST, "b+2": [junk(1), junk(2), b"no line at all"]})
    assert proven.notes() == ("b gave 2 unproven lines, dropped",)


def test_a_stranger_s_inception_that_names_a_publisher_hides_nothing() -> None:
    forged = [junk(number, "inception", OWNER.id) for number in range(64)]
    assert OWNER.entry.line in kept([*forged, *HONEST])


def test_a_limit_takes_one_line_of_each_node_and_author_in_turn() -> None:
    others = [identity(f"Sybil {number}", "SG") for number in range(6)]
    flood = [line for other in others for line in (other.entry.line, release(by=other, name="a/b@v1")[1].line)]
    few = kept(flood, HONEST[:2], most=4)
    assert set(HONEST[:2]) < set(few) and len(few) == 4


def test_authors_that_the_owner_trusts_are_first_in_each_turn() -> None:
    others = [identity(f"Sybil {number}", "SG") for number in range(6)]
    flood = [line for other in others for line in (other.entry.line, release(by=other, name="a/b@v1")[1].line)]
    assert set(kept([*flood, *HONEST[:2]], most=2, prefer=(OWNER.id,))) == set(HONEST[:2])


def test_no_number_of_other_authors_displaces_a_later_statement_of_a_trusted_one() -> None:
    """One line of each author in turn would put the second statement of a publisher after the first of everybody."""
    later = release(by=OWNER, name="swiss-ai/apertus@v9")[1].line
    others = [identity(f"Sybil {number}", "SG") for number in range(6)]
    flood = [line for other in others for line in (other.entry.line, release(by=other, name="a/b@v1")[1].line)]
    few = kept([*flood, *HONEST[:2], later], most=5, prefer=(OWNER.id,))
    assert {*HONEST[:2], later} < set(few)


def test_one_statement_in_many_envelopes_is_kept_once() -> None:
    line = HONEST[1]
    envelope = json.loads(line)
    padded = []
    for number in range(8):
        extra = {"keyid": f"{number:064x}", "sig": base64.b64encode(b"x" * 64).decode()}
        padded.append(json.dumps({**envelope, "signatures": [*envelope["signatures"], extra]}).encode())
    assert [each for each in kept([*padded, *HONEST]) if parse_entry(each).statement.predicate == "published"] == [line]


def test_only_identities_whose_record_hashes_to_their_id_are_known() -> None:
    proven = Prover(BODIES).prove({"a": [OWNER.entry.line, junk(5, "inception")]})
    assert set(proven.inceptions) == {OWNER.id}
    assert all(isinstance(each, Inception) for each in proven.readings.inceptions.values())


def test_statements_of_a_node_are_proven_by_an_available_record() -> None:
    claims = case().claims
    holds = [line for line in claims if parse_entry(line).statement.predicate == "hold"]
    records = [entry for entry in map(parse_entry, claims) if entry.statement.predicate == "node-record"]
    assert not Prover(BODIES).prove({"a": holds}).entries
    assert [entry.line for entry in Prover(BODIES, records).prove({"a": holds}).entries] == holds


def test_what_one_answer_proves_is_known_for_the_next_and_is_not_proven_again(monkeypatch: pytest.MonkeyPatch) -> None:
    prover, judged = Prover(BODIES), list[bytes]()
    genuine = KnownAuthors.author_of

    def counted(authors: KnownAuthors, entry: Entry) -> KnownAuthor | None:
        judged.append(entry.line)
        return genuine(authors, entry)

    monkeypatch.setattr(KnownAuthors, "author_of", counted)
    keys, published = HONEST[0], HONEST[1]
    assert not prover.prove({"a": [published]}).entries
    assert [entry.line for entry in prover.prove({"a": [keys, *HONEST[2:]]}).entries] == [keys, *HONEST[2:]]
    assert [entry.line for entry in prover.prove({"b": [published]}).entries] == [published]
    again = prover.prove({"a": [published], "b": HONEST})
    assert (set(again.sources), {entry.line for entry in again.entries}) == ({"a", "b"}, set(HONEST))
    assert judged == [published, published], "once before its keys were known"


def test_a_statement_that_is_known_counts_only_where_it_is_wanted() -> None:
    prover = Prover(BODIES)
    assert len(prover.prove({"a": HONEST}).entries) == len(HONEST)
    unwanted = prover.prove({"a": HONEST}, lambda entry: False)
    assert [entry.line for entry in unwanted.entries] == [HONEST[0], *HONEST[2:]]
    assert unwanted.unproven == {"a": 1}


def test_more_than_a_verifier_reads_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "MAX_READ", sum(map(len, HONEST)) - 1)
    prover = Prover(BODIES)
    assert [entry.line for entry in prover.prove({"a": HONEST}).entries] == HONEST
    assert not prover.prove({"a": [HONEST[1]]}).entries, "its keys were sent with another answer"
