"""Who said it: for generated histories of keys, up to each limit and one past it, admission, intake, client, verifier
and the judge of approvals have the same answer about each line.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.authors import AuthorVerifier
from comity.node.intake import LineProver
from comity.node.members import Membership, OwnNode
from comity.rules.signing import sign_content
from comity.trust import rotation as rotations
from comity.trust.approvals import Approved
from comity.trust.authorship import MAX_RIVALS
from comity.trust.claims import ParsedClaims, read_claims, verify_advisories
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.officers import prove_approvals
from comity.trust.policy import ApprovalRule
from comity.trust.rotation import MAX_ROTATIONS
from comity.trust.statement import Author, Entry, SideObject
from comity.trust.statements import Advisory, Licence, Published
from comity_client.evidence.prove import Prover
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.logs import LogKeys
from support.rotations import CLASSICAL, Owned, of
from support.world import identity, node, signer

WHO = identity("Historian", algs=CLASSICAL)
LOG = LogKeys.generate("historian.example/log")
MANIFEST, PIECES = SideObject(sha256(b"a model"), 100), SideObject(sha256(b"pieces"), 1)
THIEF = signer("thief of no key", CLASSICAL)
KEYS = ("inception", "rotated")
SEEN = ("inception", "rotated", "published", "advisory", "approved")
CH = identity("Switzerland", "CH", kind="member")
OWN_SEAT = OwnNode.parse(CH.entry.line, node(CH).entry.line)
RULE = ApprovalRule("ward", 1, {"historian": WHO.id}, as_of=1_000)

Turn = tuple[int, ...]
"""A key state, by the turns that lead there: 0 is the rotation that an honest owner makes, others are its rivals."""


@contextmanager
def longer() -> Iterator[None]:
    """As a program without the limit signs."""
    limit, rotations.MAX_ROTATIONS = rotations.MAX_ROTATIONS, 1_000  # type: ignore[misc]
    try:
        yield
    finally:
        rotations.MAX_ROTATIONS = limit  # type: ignore[misc]


@functools.cache
def step(at: Turn, way: int) -> tuple[Owned, Entry]:
    with longer():
        return state(at).to(f"{at} {way}")


@functools.cache
def state(at: Turn) -> Owned:
    return step(at[:-1], at[-1])[0] if at else of(WHO)


@functools.cache
def said(at: Turn, *, forged: bool = False) -> tuple[Entry, ...]:
    """A publication, an advisory and an approval under the keys of a state."""
    keys: Sequence[HybridSigner] = (THIEF,) if forged else state(at).keys
    number = int(sha256(repr(at).encode())[:6], 16)  # each state says something of its own
    published = Published(WHO.id, Name("acme", "tiny", f"v{number}"), MANIFEST.digest, MANIFEST, PIECES, Licence("MIT"))
    warned = Advisory(Author("identity", WHO.id), MANIFEST.digest, "yank", "low", f"by {at}")
    approved = Approved(WHO.id, MANIFEST.digest, "ward", 10, 2_000 + number, 10)
    return sign_content(published, *keys), sign_content(warned, *keys), sign_content(approved, *keys)


@dataclass(frozen=True)
class History:
    """The lines of one identity in the order of a log, the inception first."""

    turns: tuple[Turn, ...]
    forged: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        lines = [WHO.entry]
        for turn in self.turns:
            for length in range(1, len(turn) + 1):
                lines.append(step(turn[: length - 1], turn[length - 1])[1])
            lines += said(turn)
        if self.forged:
            lines += said(self.turns[-1] if self.turns else (), forged=True)
        return tuple({entry.statement_digest: entry for entry in lines}.values())

    @property
    def rivals(self) -> int:
        """Rotations beyond one for each state that is replaced."""
        steps = {turn[:length] for turn in self.turns for length in range(1, len(turn) + 1)}
        return len(steps) - len({turn[:-1] for turn in steps})


Answers = dict[Digest, bool]


class GrowingLog:
    """A node's copy of the log, and the one intake of that node."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._prover = LineProver(ledger, lambda who: ())
        self._lines: list[bytes] = []
        ledger.logs.create(LOG.origin, LOG.vkey)

    def append(self, entries: Iterable[Entry]) -> None:
        had, new = len(self._lines), [entry.line for entry in entries]
        self._lines += new
        self.ledger.logs.advance(LOG.vkey, had, new, LOG.note_over(self._lines))
        self._prover.finish_all()


def intake(entries: Sequence[Entry], folder: Path) -> Answers:
    ledger = Ledger.open(folder, lambda: 1_000)
    try:
        GrowingLog(ledger).append(entries)
        return proven_in(ledger, entries)
    finally:
        ledger.close()


def submissions(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """As people submit them: the first rotations together, up to some before the limit; then each rotation by itself,
    and what is said under one key state together."""
    early = entries[: MAX_ROTATIONS - 3]
    first = next((at for at, entry in enumerate(early) if entry.statement.predicate not in KEYS), len(early))
    yield entries[:first]
    for kind, some in itertools.groupby(entries[first:], key=lambda entry: entry.statement.predicate in KEYS):
        said_together = list(some)
        yield from ([entry] for entry in said_together) if kind else (said_together,)


def admission(entries: Sequence[Entry], folder: Path) -> Answers:
    """Judges each line of each submission, and logs what is admitted."""
    ledger, members, answers = Ledger.open(folder, lambda: 1_000), Membership(OWN_SEAT, None), Answers()
    try:
        log = GrowingLog(ledger)
        for submitted in submissions(entries):
            verifier, admitted = AuthorVerifier(ledger, members, submitted), list[Entry]()
            for entry in submitted:
                try:
                    verifier.verify(entry)
                except ComityError:
                    answers[entry.statement_digest] = False
                    continue
                answers[entry.statement_digest] = True
                admitted.append(entry)
            if admitted:
                log.append(admitted)
        logged = [entry for entry in entries if answers[entry.statement_digest]]
        assert proven_in(ledger, logged) == dict.fromkeys((entry.statement_digest for entry in logged), True)
        return answers
    finally:
        ledger.close()


def proven_in(ledger: Ledger, entries: Iterable[Entry]) -> Answers:
    proven = {line.line for line in ledger.proven.since(0, SEEN, 1_000)}
    return {entry.statement_digest: entry.line in proven for entry in entries}


def client(entries: Sequence[Entry]) -> Answers:
    proven = {e.statement_digest for e in Prover([]).prove({"log": [e.line for e in entries]}).entries}
    return {entry.statement_digest: entry.statement_digest in proven for entry in entries}


def verifier(entries: Sequence[Entry]) -> Answers:
    """Of the predicates that the verifier judges itself."""
    claims = read_claims([entry.line for entry in entries], MANIFEST.digest)
    chain = claims.chain(WHO.id)
    assert chain is not None
    counted = {WHO.entry.statement_digest, *(s.entry.statement_digest for s in chain.steps)}
    counted |= {publication.entry.statement_digest for publication in claims.publications}
    counted |= {entry.statement_digest for entry, _ in verify_advisories(claims, MANIFEST.digest, ())[0]}
    judged = [entry for entry in entries if entry.statement.predicate != "approved"]
    return {entry.statement_digest: entry.statement_digest in counted for entry in judged} | officers(claims)


def officers(claims: ParsedClaims) -> Answers:
    approved = {each.entry.statement_digest for each in prove_approvals(claims, MANIFEST.digest, RULE, ())[0]}
    entries = (entry for entry in claims.entries if entry.statement.predicate == "approved")
    return {entry.statement_digest: entry.statement_digest in approved for entry in entries}


ways = st.lists(st.integers(0, 2), max_size=3).map(tuple)
long_ways = st.tuples(st.integers(MAX_ROTATIONS - 2, MAX_ROTATIONS + 1), ways).map(
    lambda each: (0,) * each[0] + each[1]
)
rival_ways = st.integers(MAX_RIVALS - 1, MAX_RIVALS + 2).flatmap(
    lambda most: st.permutations([(way,) for way in range(most + 1)])
)
histories = st.builds(
    History,
    st.one_of(
        st.lists(ways, max_size=5),
        st.tuples(long_ways, ways).map(list),
        st.tuples(rival_ways, st.lists(ways, max_size=2)).map(lambda both: [*both[0], *both[1]]),
    ).map(tuple),
    st.booleans(),
)
FULL, SPENT = (0,) * MAX_ROTATIONS, (0,) * (MAX_ROTATIONS + 1)
RIVALS = tuple((way,) for way in range(MAX_RIVALS + 1))


@pytest.mark.slow
@given(histories)
@example(History((FULL,)))
@example(History((SPENT,)))
@example(History((SPENT, (1,))))
@example(History(RIVALS, forged=True))
@example(History((*RIVALS, (0, 0), (0, 0, 1))))
@settings(max_examples=examples(40), deadline=None)
def test_all_who_judge_authors_have_the_same_answer(history: History) -> None:
    entries = history.entries
    with tempfile.TemporaryDirectory() as folder:
        proven, submitted = intake(entries, Path(folder, "intake")), admission(entries, Path(folder, "admission"))
    read, verified = client(entries), verifier(entries)
    assert submitted == proven
    assert read == verified
    if history.rivals <= MAX_RIVALS:
        assert proven == read
    else:  # a verifier counts the rivals that it is given, so that more evidence takes no proof away
        assert all(read[line] for line, counted in proven.items() if counted)
    spent = {said(turn)[0].statement_digest for turn in history.turns if len(turn) > MAX_ROTATIONS}
    assert not any(answers[line] for line in spent for answers in (proven, read))


def test_who_signs_one_rotation_too_many_is_told_before_it_is_signed() -> None:
    last = state(FULL)
    with pytest.raises(Malformed) as refused:
        last.to("one too many")
    assert refused.value.code == "ROTATIONS-SPENT"
    assert "64" in refused.value.why and "new identity" in refused.value.hint


@pytest.mark.parametrize(
    ("history", "at", "way", "code"),
    [(History((FULL,)), FULL, 0, "ROTATIONS-SPENT"), (History(RIVALS), (), MAX_RIVALS + 1, "ROTATION-RIVALS")],
    ids=["a number above the last", "a rival too many"],
)
def test_what_no_node_counts_is_refused_at_admission_in_words(
    tmp_path: Path, history: History, at: Turn, way: int, code: str
) -> None:
    line = step(at, way)[1]
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    try:
        GrowingLog(ledger).append(history.entries)
        with pytest.raises(ComityError) as refused:
            AuthorVerifier(ledger, Membership(OWN_SEAT, None), [line]).verify(line)
    finally:
        ledger.close()
    assert refused.value.code == code and refused.value.hint
