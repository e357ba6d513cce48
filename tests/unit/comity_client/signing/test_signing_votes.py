"""The vote file: each vote of a key is on the disk before the signature exists, and no conflicting vote is signed."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from comity.trust.charter.votes import Intent, Ratify, RoundBody
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, Refused, Untrusted
from comity_client.signing.votes import GovernanceKey, new_key, open_key, parse_vote_payload

PREV, NEXT = sha256(b"epoch 4"), sha256(b"epoch 5")
ME = sha256(b"member")
A, B = sha256(b"body a"), sha256(b"body b")


def intent(body: Digest, round_: int = 1, prev: Digest = PREV) -> Intent:
    return Intent(ME, prev, 5, round_, body)


def ratify(body: Digest, round_: int = 1) -> Ratify:
    return Ratify(ME, PREV, 5, round_, body)


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> GovernanceKey:
    return new_key(tmp_path / "governance.pem")


def test_a_vote_is_in_the_file_before_it_may_be_signed(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    assert stat.S_IMODE(key.votes.path.stat().st_mode) == 0o600
    again = open_key(key.path).votes.load(PREV).state(PREV)
    assert again.intents == (intent(A),)
    assert not again.lost


def test_the_same_vote_may_be_signed_again_and_no_other_in_its_place(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    key.votes.permit(intent(A))
    with pytest.raises(Untrusted) as refused:
        open_key(key.path).votes.permit(intent(B))
    assert refused.value.code == "VOTE-TWICE"
    key.votes.permit(ratify(A))
    with pytest.raises(Untrusted):
        key.votes.permit(ratify(B))


def test_rounds_never_decrease_and_a_ratify_is_declared(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    key.votes.permit(ratify(A))
    with pytest.raises(Untrusted) as hidden:
        key.votes.permit(intent(B, 2))
    assert hidden.value.code == "VOTE-LOCK"
    key.votes.permit(Intent(ME, PREV, 5, 3, A, RoundBody(1, A), 1))
    with pytest.raises(Untrusted) as back:
        key.votes.permit(intent(B, 2))
    assert back.value.code == "VOTE-BACK"


def test_another_epoch_starts_without_votes(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    key.votes.permit(intent(B, prev=NEXT))
    assert key.votes.load(NEXT).state(NEXT).intents == (intent(B, prev=NEXT),)


def test_a_key_without_its_vote_file_does_not_vote_in_this_epoch_and_votes_in_the_next(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    key.votes.path.unlink()
    for _ in range(2):
        with pytest.raises(Refused, match="its votes are unknown") as lost:
            key.votes.permit(intent(A))
        assert lost.value.code == "VOTE-LOST"
    assert key.votes.load(PREV).state(PREV).lost
    key.votes.permit(intent(A, prev=NEXT))


def test_reading_lost_votes_records_the_loss_so_that_the_key_votes_in_the_next_epoch(key: GovernanceKey) -> None:
    key.votes.path.unlink()
    assert key.votes.load(PREV).lost(PREV)
    assert key.votes.load(NEXT).lost(NEXT) is None
    key.votes.permit(intent(B, prev=NEXT))


def test_an_old_copy_of_the_file_is_detected_by_votes_that_others_hold(key: GovernanceKey) -> None:
    backup = key.votes.path.read_bytes()
    key.votes.permit(intent(A))
    key.votes.path.write_bytes(backup)
    with pytest.raises(Refused, match="lacks") as lost:
        key.votes.permit(intent(B), seen=[intent(A)])
    assert lost.value.code == "VOTE-LOST"
    with pytest.raises(Refused):
        key.votes.permit(intent(B))  # the loss is recorded: it counts without the proof, too
    key.votes.permit(intent(A, prev=NEXT), seen=[intent(A)])


def test_the_owner_may_resume_with_the_votes_that_were_found(key: GovernanceKey) -> None:
    key.votes.path.unlink()
    assert key.votes.load(PREV).lost(PREV)
    key.votes.resume(PREV, [intent(A)], "the owner read the home log as five others mirrored it")
    with pytest.raises(Untrusted) as twice:
        key.votes.permit(intent(B))
    assert twice.value.code == "VOTE-TWICE"
    key.votes.permit(ratify(A))


def test_votes_by_another_key_of_the_member_bind_this_key(key: GovernanceKey) -> None:
    with pytest.raises(Untrusted) as twice:
        key.votes.permit(intent(B), known=[intent(A)])
    assert twice.value.code == "VOTE-TWICE"


def test_a_damaged_file_is_refused_and_not_read_as_empty(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    whole = key.votes.path.read_bytes()
    for broken in (whole.replace(A.encode(), B.encode()), whole[:-20], b"", b"\xff" + whole):
        key.votes.path.write_bytes(broken)
        with pytest.raises(Malformed) as damaged:
            key.votes.permit(intent(B))
        assert damaged.value.code == "VOTES-DAMAGED"


def test_another_keys_file_is_refused(tmp_path: Path, key: GovernanceKey) -> None:
    other = new_key(tmp_path / "other.pem")
    other.votes.path.write_bytes(key.votes.path.read_bytes())
    with pytest.raises(Untrusted) as mixed:
        other.votes.permit(intent(A))
    assert mixed.value.code == "VOTES-KEY"


def test_a_vote_file_is_never_overwritten_by_a_new_key(tmp_path: Path, key: GovernanceKey) -> None:
    key.path.unlink()
    with pytest.raises(Conflict) as exists:
        new_key(key.path)
    assert exists.value.code == "VOTES-EXIST"


def test_of_many_processes_with_one_key_only_one_vote_a_round_gets_through(key: GovernanceKey) -> None:
    bodies = [sha256(b"body %d" % number) for number in range(8)]
    through, start = list[Digest](), threading.Barrier(len(bodies))

    def machine(body: Digest) -> None:
        votes = open_key(key.path).votes
        start.wait()
        try:
            votes.permit(intent(body))
        except ComityError:
            return
        through.append(body)

    threads = [threading.Thread(target=machine, args=(body,)) for body in bodies]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(through) == 1
    assert key.votes.load(PREV).state(PREV).intents == (intent(through[0]),)


def test_the_file_holds_the_very_bytes_that_were_signed(key: GovernanceKey) -> None:
    key.votes.permit(intent(A))
    payload = intent(A).statement().encode()
    assert payload in key.votes.path.read_bytes()
    assert parse_vote_payload(payload) == intent(A)
