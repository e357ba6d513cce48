"""What people type after `comity proposal new`: each kind means one change of the charter, and words that fit none are
refused instead of half understood."""

from __future__ import annotations

from typing import Any

import click
import pytest
from comity.trust.charter.document import Body, CharterPolicy, genesis, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity_cli.charter.motions import MOTIONS, draft
from comity_client.charter.proposals import (
    draft_admission,
    draft_namespaces,
    draft_policy_change,
    draft_rekeying,
    draft_removal,
    draft_status,
    draft_succession,
)
from comity_client.charter.state import CharterMaterial, CharterState, convene
from support.world import Identity, node, seat

CODES = ("CH", "ES", "KR", "SG")
X = Digest("5" * 64)


class Card:
    """As much of a newcomer's node card as a draft needs."""

    def __init__(self, who: Identity) -> None:
        self.member = who.member
        self.lines = (who.entry.line, node(who).entry.line)


NEWCOMER = Card(seat("BR"))


def card_named(name: str) -> Any:
    if name != "card":
        raise NotFound(f"no node card {name!r}")
    return NEWCOMER


@pytest.fixture(scope="module")
def sitting() -> CharterState:
    policy = CharterPolicy(quorum(4), min_copies=3, min_jurisdictions=2, cosigner_quorum=2)
    return convene(genesis([seat(code).member for code in CODES], policy), CharterMaterial())


def meant(sitting: CharterState, text: str) -> Body:
    kind, *words = text.split()
    return draft(kind, tuple(words), sitting, card_named)[0]


def test_each_kind_means_its_change(sitting: CharterState) -> None:
    now, spain = sitting.current, seat("ES").member
    expected = {
        "admit card": draft_admission(now, NEWCOMER.member),
        f"succeed {spain.name} card": draft_succession(now, spain, NEWCOMER.member),
        f"remove {spain.id[:8]}": draft_removal(now, spain.id),
        f"observer {spain.name}": draft_status(now, spain.id, "observer"),
        f"active {spain.name}": draft_status(now, spain.id, "active"),
        f"rekey {spain.name}": draft_rekeying(now, sitting.chain(spain.id).current),
        "policy min_copies=4 cosigner_quorum=1": draft_policy_change(
            now, CharterPolicy(quorum(4), min_copies=4, min_jurisdictions=2, cosigner_quorum=1)
        ),
        f"namespace swiss-ai={X} alia={X}": draft_namespaces(now, {"swiss-ai": X, "alia": X}),
    }
    for text, body in expected.items():
        assert meant(sitting, text.replace(spain.name, spain.id)) == body, text


def test_lines_of_a_newcomer_come_with_the_draft_and_no_others(sitting: CharterState) -> None:
    assert draft("admit", ("card",), sitting, card_named)[1] == CharterMaterial.of(NEWCOMER.lines)
    assert draft("succeed", (seat("ES").id, "card"), sitting, card_named)[1] == CharterMaterial.of(NEWCOMER.lines)
    assert draft("remove", (seat("ES").id,), sitting, card_named)[1] == CharterMaterial()


@pytest.mark.parametrize("kind", [kind for kind, words in MOTIONS.items() if "=" not in words])
def test_a_word_too_few_or_too_many_is_not_passed_over(sitting: CharterState, kind: str) -> None:
    count = len(MOTIONS[kind].split())
    for words in ((), (seat("ES").id,) * (count + 1)):
        with pytest.raises(click.UsageError) as refused:
            draft(kind, words, sitting, card_named)
        assert f"comity proposal new {kind} {MOTIONS[kind]}" in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "policy min_copies",
        "policy min_copies=",
        "policy min_copies=-1",
        "policy min_copies=x",
        f"policy min_copies={'9' * 5000}",
        "policy copies=3",
        "policy min_copies=3 min_copies=4",
        f"namespace alia={X} alia={X}",
        "namespace alia",
    ],
    ids=lambda text: text[:40],
)
def test_values_that_are_none_are_refused(sitting: CharterState, text: str) -> None:
    with pytest.raises(click.UsageError):
        meant(sitting, text)


def test_what_other_rooms_refuse_stays_refused(sitting: CharterState) -> None:
    for text, error in {"admit nobody": NotFound, "remove nobody": NotFound, "namespace alia=x": Malformed}.items():
        with pytest.raises(error):
            meant(sitting, text)
