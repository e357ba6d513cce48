"""How many statements about the next epoch are kept: a quota for each log, never for an author."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.charter import inbox as inbox_module
from comity.node.charter.inbox import WINDOW, SignatureCache, VoteInbox, VoteReader, prev_of
from comity.node.members import Membership, OwnNode
from comity.node.threads import AsyncLedger, Pools
from comity.rules.equivocation import find_equivocations, misbehaviour_statement
from comity.trust.charter.votes import Intent, Vote
from comity.trust.encoding import sha256
from comity.trust.identity import KeySet
from comity.trust.rotation import Rotation, rotate
from comity.trust.statement import Entry, EnvelopeSignature, parse_entry, sign_statement
from support.assembly import CLASSICAL, Assembly, change
from support.world import Identity, node, signer


def assembled() -> Assembly:
    return Assembly.of(4)


def log_of(who: Identity) -> str:
    return str(node(who, "", CLASSICAL).record.log)


def bounded(monkeypatch: pytest.MonkeyPatch, statements: int, elsewhere: int | None = None) -> None:
    for name, most in (("HOME_LOG", statements), ("OTHER_LOG", statements if elsewhere is None else elsewhere)):
        monkeypatch.setattr(inbox_module, name, replace(getattr(inbox_module, name), statements=most))


def hears(kept: VoteInbox, log: str, entry: Entry, *, home: bool = False) -> bool:
    """Whether a proven entry of `log` is kept, and new."""
    return kept.admits(log, entry, home=home) and kept.put(entry)


def padded(entry: Entry, number: int) -> Entry:
    """The same statement in another envelope, with one signature by an unknown key."""
    junk = EnvelopeSignature(sha256(b"nobody %d" % number), bytes(64))
    signatures = sorted((*entry.envelope.signatures, junk), key=lambda each: each.keyid)
    return parse_entry(replace(entry.envelope, signatures=tuple(signatures)).encode())


def test_a_member_that_floods_its_log_takes_no_quota_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, 10)
    assembly, kept = assembled(), VoteInbox()
    liar, honest, *_ = assembly.seats
    body = change(assembly.body)
    flood = [assembly.intent(liar, body, at) for at in range(1, 30)]
    assert sum(hears(kept, "a log", entry) for entry in flood) == 10
    assert kept.full() == (("a log", liar.id),)
    assert hears(kept, "a log", assembly.intent(honest, body, 99))


def test_padded_copies_of_a_statement_use_no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, 2)
    assembly, kept = assembled(), VoteInbox()
    body = assembly.put(change(assembly.body))
    put_forward = assembly.lines[-1]
    wanted = [kept.admits("a log", padded(put_forward, number)) for number in range(100)]
    assert sum(wanted) == inbox_module.MAX_ENVELOPES
    assert kept.put(put_forward)
    assert not any(kept.admits("a log", padded(put_forward, number)) for number in range(100))
    assert hears(kept, "a log", assembly.intent(assembly.seats[0], body))
    assert kept.full() == ()


def test_a_member_has_a_larger_quota_in_its_own_log_than_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, 8, elsewhere=2)
    assembly, kept = assembled(), VoteInbox()
    who = assembly.seats[0]
    said = [assembly.intent(who, change(assembly.body), at) for at in range(1, 21)]
    assert sum(hears(kept, "its own log", entry, home=True) for entry in said) == 8
    assert sum(hears(kept, "another", entry) for entry in said[8:]) == 2


def test_conflicting_votes_count_where_they_are_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, 3)
    assembly, kept = assembled(), VoteInbox()
    liar = assembly.seats[0]
    said = [assembly.intent(liar, change(assembly.body), at) for at in range(1, 10)]
    for entry in said:
        hears(kept, "the liar's log", entry, home=True)
    assert said[7].statement_digest not in kept.entries
    assert hears(kept, "an honest log", said[7])


@pytest.mark.parametrize("read_first", (True, False))
def test_a_vote_on_which_another_depends_is_kept_beyond_the_quota(
    monkeypatch: pytest.MonkeyPatch, read_first: bool
) -> None:
    bounded(monkeypatch, 3)
    assembly, kept = assembled(), VoteInbox()
    liar, honest, *_ = assembly.seats
    body, other = change(assembly.body), change(assembly.body, 2)
    ratified = assembly.ratify(honest, body, 7)
    if read_first:
        assert hears(kept, "an honest log", ratified, home=True)
    for at in range(1, 6):
        hears(kept, "the liar's log", assembly.intent(liar, other, at), home=True)
    needed = assembly.intent(liar, body, 7)
    assert hears(kept, "the liar's log", needed, home=True) == read_first
    if not read_first:
        assert hears(kept, "an honest log", ratified, home=True) and kept.stale
        kept.read_again()
        for at in range(1, 6):
            hears(kept, "the liar's log", assembly.intent(liar, other, at), home=True)
        assert hears(kept, "the liar's log", needed, home=True)
    assert not hears(kept, "the liar's log", assembly.intent(liar, body, 8), home=True)


def test_large_drafts_are_bounded_and_keep_no_vote_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assembly, kept = assembled(), VoteInbox()
    body = assembly.put(change(assembly.body))
    monkeypatch.setattr(inbox_module, "OTHER_LOG", replace(inbox_module.OTHER_LOG, drafted=len(body.data) + 1))
    assert hears(kept, "a log", assembly.lines[-1])
    assembly.put(change(assembly.body, 2))
    assert not hears(kept, "a log", assembly.lines[-1])
    assert hears(kept, "a log", assembly.intent(assembly.seats[0], body))


def test_a_statement_in_two_logs_is_charged_to_both(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, 1)
    assembly, kept = assembled(), VoteInbox()
    said = [assembly.intent(assembly.seats[0], change(assembly.body), at) for at in (1, 2)]
    assert hears(kept, "a log", said[0]) and not hears(kept, "another", said[0])
    assert not hears(kept, "another", said[1])
    kept.read_again()
    assert hears(kept, "another", said[1])


def test_the_charter_that_a_statement_is_about_is_read_or_absent() -> None:
    assembly = assembled()
    assembly.put(change(assembly.body))
    assert prev_of(assembly.lines[-1].statement) == assembly.body.digest
    assert prev_of(assembly.seats[0].entry.statement) is None


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0)
    yield opened
    opened.close()


def reading(ledger: Ledger, assembly: Assembly, tmp_path: Path) -> tuple[VoteReader, Membership]:
    """A vote inbox for the successor of the assembly's body, over the logs of a ledger."""
    own = assembly.seats[0]
    record = node(own, "", CLASSICAL)
    members = Membership(OwnNode.parse(own.entry.line, record.entry.line), None, [assembly.body])
    store = FolderStore(tmp_path / "blobs")
    read = VoteReader(AsyncLedger(ledger), store, Pools(), members, SignatureCache().signed)
    read.open(assembly.body.digest)
    return read, members


def log(ledger: Ledger, who: Identity, entries: list[Entry]) -> None:
    vkey = log_of(who)
    ledger.logs.create(vkey.partition("+")[0], vkey, own=True)
    for start in range(0, len(entries), 1000):
        ledger.logs.append(vkey, [entry.line for entry in entries[start : start + 1000]])


async def test_a_long_log_keeps_no_other_waiting(ledger: Ledger, tmp_path: Path) -> None:
    assembly = assembled()
    liar, honest, *_ = assembly.seats
    body = change(assembly.body)
    log(ledger, liar, [assembly.intent(liar, body, at) for at in range(1, 3 * WINDOW)])
    said = assembly.intent(honest, body)
    log(ledger, honest, [said])
    read, _ = reading(ledger, assembly, tmp_path)
    turn = await read.read()
    assert turn.behind and turn.updated == {assembly.body.digest}
    assert said.statement_digest in read.inbox(assembly.body.digest).entries
    while (await read.read()).behind:
        pass
    assert read.full(assembly.body.digest) == (log_of(liar),)
    assert len(read.inbox(assembly.body.digest).entries) == inbox_module.HOME_LOG.statements + 1


async def test_lines_of_strangers_and_thieves_are_not_kept(ledger: Ledger, tmp_path: Path) -> None:
    assembly = assembled()
    first, second, *_ = assembly.seats
    body = change(assembly.body)
    forged = sign_statement(Intent(second.id, assembly.body.digest, 1, 1, body.digest).statement(), first.signer)
    elsewhere = sign_statement(Intent(first.id, body.digest, 2, 1, body.digest).statement(), first.signer)
    log(ledger, first, [forged, elsewhere])
    read, _ = reading(ledger, assembly, tmp_path)
    assert (await read.read()).updated == set()
    assert read.inbox(assembly.body.digest).entries == {}


async def test_votes_under_rotated_keys_count_once_the_rotation_is_known(ledger: Ledger, tmp_path: Path) -> None:
    assembly = assembled()
    who = assembly.seats[1]
    state, new = who.member.key_state, signer("after", CLASSICAL)
    rotation = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
    recovery = signer(f"{who.inception.label} recovery", CLASSICAL)
    rotated = rotate(state, rotation, [recovery], [new])
    intent = Intent(who.id, assembly.body.digest, 1, 1, change(assembly.body).digest)
    said = sign_statement(intent.statement(), new)
    log(ledger, who, [said, rotated])
    read, members = reading(ledger, assembly, tmp_path)
    turn = await read.read()
    assert turn.updated == set() and turn.rotated == [rotated]
    assert members.rotate(who.id, turn.rotated)
    read.open(assembly.body.digest)
    assert (await read.read()).updated == {assembly.body.digest}


async def test_an_accusation_has_both_lines(ledger: Ledger, tmp_path: Path) -> None:
    assembly = assembled()
    reporter, liar, *_ = assembly.seats
    pair = [assembly.intent(liar, change(assembly.body, number)) for number in (1, 2)]
    votes: dict[Vote, Entry] = {
        Intent(liar.id, assembly.body.digest, 1, 1, change(assembly.body, n + 1).digest): pair[n] for n in (0, 1)
    }
    (lie,) = find_equivocations(votes)
    read, _ = reading(ledger, assembly, tmp_path)
    statement = misbehaviour_statement(lie, node(reporter, "", CLASSICAL).record.node)
    for item, line in zip(statement.objects, (lie.first, lie.second), strict=True):
        FolderStore(tmp_path / "blobs").put(item.digest, line)
    log(ledger, reporter, [sign_statement(statement, node(reporter, "", CLASSICAL).online)])
    await read.read()
    assert {entry.statement_digest for entry in pair} == set(read.inbox(assembly.body.digest).entries)


async def test_of_a_decided_epoch_only_votes_for_a_rival_are_kept(ledger: Ledger, tmp_path: Path) -> None:
    assembly = assembled()
    who, other, *_ = assembly.seats
    taken, rival = change(assembly.body, 1), change(assembly.body, 2)
    log(ledger, who, [assembly.intent(who, taken), assembly.ratify(who, taken)])
    read, members = reading(ledger, assembly, tmp_path)
    await read.read()
    members.adopt(taken)
    read.open(assembly.body.digest, taken.digest)
    read.open(taken.digest)
    assert read.inbox(assembly.body.digest).entries == {}
    against = assembly.intent(other, rival)
    log(ledger, other, [against, assembly.ratify(other, taken)])
    assert (await read.read()).updated == {assembly.body.digest}
    assert set(read.inbox(assembly.body.digest).entries) == {against.statement_digest}
