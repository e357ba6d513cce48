"""Arguments of `comity proposal new`: each kind makes one change of the charter, and unknown arguments are refused."""

from __future__ import annotations

from typing import Any

import click
import pytest
from comity.rules.charter_drafts import genesis
from comity.trust.charter.document import Body, CharterPolicy, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed, NotFound
from comity_cli.commands.proposal import CHANGES, build_draft
from comity_client.charter.drafts import (
    draft_admission,
    draft_namespaces,
    draft_policy_change,
    draft_rekeying,
    draft_removal,
    draft_status,
    draft_succession,
)
from comity_client.charter.state import CharterMaterial, CharterState, compute_charter_state
from support.world import Identity, node, seat

CODES = ("CH", "ES", "KR", "SG")
X = Digest("5" * 64)


class Card:
    """The part of a newcomer's node card that a draft needs."""

    def __init__(self, who: Identity) -> None:
        made = node(who)
        self.member, self.inception, self.record = who.member, who.inception, made.record
        self.lines = (who.entry.line, made.entry.line)


NEWCOMER = Card(seat("BR"))


def card_of(jurisdiction: str) -> Any:
    return Card(seat(jurisdiction))


def card_named(name: str) -> Any:
    if name != "card":
        raise NotFound(f"no node card {name!r}")
    return NEWCOMER


@pytest.fixture(scope="module")
def charter_state() -> CharterState:
    policy = CharterPolicy(quorum(4), min_copies=3, min_jurisdictions=2, cosigner_quorum=2)
    return compute_charter_state(genesis([seat(code).member for code in CODES], policy), CharterMaterial())


def meant(charter_state: CharterState, text: str) -> Body:
    kind, *words = text.split()
    return build_draft(kind, tuple(words), charter_state, card_named)[0]


def test_each_kind_means_its_change(charter_state: CharterState) -> None:
    now, spain = charter_state.current, seat("ES").member
    expected = {
        "admit card": draft_admission(now, NEWCOMER.member),
        f"succeed {spain.name} card": draft_succession(now, spain, NEWCOMER.member),
        f"remove {spain.id[:8]}": draft_removal(now, spain.id),
        f"observer {spain.name}": draft_status(now, spain.id, "observer"),
        f"active {spain.name}": draft_status(now, spain.id, "active"),
        f"rekey {spain.name}": draft_rekeying(now, charter_state.chain(spain.id).current),
        "policy min_reaches=2": draft_policy_change(now, CharterPolicy(quorum(4), 3, 2, 2, min_reaches=2)),
        "policy min_copies=4 cosigner_quorum=1": draft_policy_change(
            now, CharterPolicy(quorum(4), min_copies=4, min_jurisdictions=2, cosigner_quorum=1)
        ),
        f"namespace swiss-ai={X} alia={X}": draft_namespaces(now, {"swiss-ai": X, "alia": X}),
    }
    for text, body in expected.items():
        assert meant(charter_state, text.replace(spain.name, spain.id)) == body, text


def test_lines_of_a_newcomer_come_with_the_draft_and_no_others(charter_state: CharterState) -> None:
    assert build_draft("admit", ("card",), charter_state, card_named)[1] == CharterMaterial.of(NEWCOMER.lines)
    assert build_draft("succeed", (seat("ES").id, "card"), charter_state, card_named)[1] == CharterMaterial.of(
        NEWCOMER.lines
    )
    assert build_draft("remove", (seat("ES").id,), charter_state, card_named)[1] == CharterMaterial()


@pytest.mark.parametrize("kind", [kind for kind, words in CHANGES.items() if "=" not in words])
def test_a_missing_or_additional_word_is_refused(charter_state: CharterState, kind: str) -> None:
    count = len(CHANGES[kind].split())
    for words in ((), (seat("ES").id,) * (count + 1)):
        with pytest.raises(click.UsageError) as refused:
            build_draft(kind, words, charter_state, card_named)
        assert f"comity proposal new {kind} {CHANGES[kind]}" in refused.value.message


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
def test_invalid_values_are_refused(charter_state: CharterState, text: str) -> None:
    with pytest.raises(click.UsageError):
        meant(charter_state, text)


def test_a_newcomer_of_no_jurisdiction_is_not_admitted(charter_state: CharterState) -> None:
    with pytest.raises(Malformed) as refused:
        build_draft("admit", ("card",), charter_state, lambda _: card_of("UK"))
    assert refused.value.hint == 'write "GB"'


def test_a_newcomer_whose_node_has_the_name_of_anothers_is_not_admitted(charter_state: CharterState) -> None:
    for kind in (("admit", "card"), ("succeed", seat("KR").id, "card")):
        with pytest.raises(Conflict) as refused:
            build_draft(kind[0], kind[1:], charter_state, card_named, [node(seat("ES"), NEWCOMER.record.name).record])
        assert refused.value.code == "NODE-NAME-TAKEN"


def test_a_successor_may_give_its_node_the_name_of_the_lost_one(charter_state: CharterState) -> None:
    lost = node(seat("ES"), NEWCOMER.record.name).record
    assert build_draft("succeed", (seat("ES").id, "card"), charter_state, card_named, [lost])


def test_errors_of_the_charter_functions_are_passed_on(charter_state: CharterState) -> None:
    for text, error in {"admit nobody": NotFound, "remove nobody": NotFound, "namespace alia=x": Malformed}.items():
        with pytest.raises(error):
            meant(charter_state, text)
