"""Questions about copies: what is listed, and that a fold counts what its artifacts have."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from comity.rules.copy_counts import (
    CLAIMED,
    FAILED,
    PASSED,
    TESTED,
    AssessedCopy,
    AuditResult,
    ClaimedCopy,
    CopyCount,
    CopyPolicy,
    holders,
    outside,
    parties_of,
)
from comity.rules.copy_questions import ALL, LOST, SHORT, UNTESTED, WHICH, CopyFolder, CopyQuestion
from comity.rules.parties import Party
from comity.trust.encoding import Digest, sha256

MEMBERS = {sha256(b"member %d" % at): code for at, code in enumerate(("CH", "ES", "KR", "CH"))}
OWN = next(iter(MEMBERS))
POLICY = CopyPolicy(2, 2)
CH = Party("jurisdiction", "CH")
Copies = tuple[AssessedCopy, ...]


def made(chance: random.Random) -> Copies:
    states = [(who, chance.choice((TESTED, CLAIMED, FAILED, ""))) for who in MEMBERS]
    reach = {"CH": ("CH", "US"), "ES": ("ES",), "KR": ()}
    result = AuditResult(OWN, chance.randrange(1_000), PASSED)
    return tuple(
        AssessedCopy(ClaimedCopy(who, who, MEMBERS[who], "", reach[MEMBERS[who]]), state, (result,))
        for who, state in states
        if state
    )


def artifacts() -> list[tuple[Digest, Copies]]:
    chance = random.Random(7)
    return sorted((sha256(b"artifact %d" % at), made(chance)) for at in range(300))


def is_listed(copies: Copies, question: CopyQuestion) -> bool:
    """By counting, as the words say."""
    found = outside(holders(copies, OWN), question.outside) if question.outside else holders(copies, OWN)
    count = CopyCount.of(found)
    without = [holder for holder in found if CH not in parties_of(holder)]
    said = {
        ALL: True,
        SHORT: not count.meets(POLICY),
        UNTESTED: count.meets(POLICY) and not count.tested_meets(POLICY),
        LOST: len(without) < len(found) and not CopyCount.of(without).meets(POLICY),
    }
    return any(said[word] for word in question.which)


@pytest.mark.parametrize("outside_of", [(), ("US",)])
@pytest.mark.parametrize("which", [(), *((word,) for word in WHICH), (SHORT, UNTESTED)])
def test_a_fold_lists_what_is_asked_for_and_counts_everything(
    which: tuple[str, ...], outside_of: tuple[str, ...]
) -> None:
    question, given = CopyQuestion(which, outside_of, CH), artifacts()
    folder = CopyFolder(question, OWN, POLICY)
    for artifact, copies in given:
        folder.add(artifact, folder.number(copies))
    fold = folder.fold()
    assert list(fold.listed) == [artifact for artifact, copies in given if is_listed(copies, question)]
    assert fold.counted == len(given) and fold.last == given[-1][0]
    plain = {artifact: tuple((copy.copy, copy.state) for copy in copies) for artifact, copies in given}
    whole = [tuple((copy.copy, copy.state) for copy in copies) for copies in fold.whole_sets()]
    assert Counter(plain.values()) == {whole[at]: each.artifacts for at, each in enumerate(fold.sets)}
    assert all(whole[number] == plain[artifact] for artifact, _, number in fold.items())
    assert not any(copy.results for copy in fold.copies)


def test_equal_copies_are_written_once() -> None:
    folder = CopyFolder(CopyQuestion((ALL,)), OWN, POLICY)
    for at in range(100):
        copy = AssessedCopy(ClaimedCopy(OWN, OWN, "CH"), TESTED, (AuditResult(OWN, at, PASSED),))
        folder.add(sha256(b"%d" % at), folder.number((copy,)))
    fold = folder.fold()
    assert (len(fold.copies), len(fold.sets), len(fold.listed)) == (1, 1, 100)
