"""What people type when they would change the charter, `admit CARD` or `policy min_copies=4`: as the body it means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import click
from comity.trust.charter.document import Body, CharterPolicy
from comity.trust.encoding import parse_digest

if TYPE_CHECKING:
    from comity_client.charter.state import CharterMaterial, CharterState
    from comity_client.founding import NodeCard

MOTIONS: Final[Mapping[str, str]] = {
    "admit": "CARD",
    "succeed": "MEMBER CARD",
    "remove": "MEMBER",
    "rekey": "MEMBER",
    "observer": "MEMBER",
    "active": "MEMBER",
    "policy": "NAME=VALUE…",
    "namespace": "NAME=ID…",
}
"""Kinds of change, each with the words that follow it."""
DIGITS: Final = 9
"""Of a number that somebody types; no promise of a charter needs as many."""


def draft(
    kind: str, words: tuple[str, ...], sitting: CharterState, card_named: Callable[[str], NodeCard]
) -> tuple[Body, CharterMaterial]:
    """The body that is meant, and the lines about newcomers that others need to judge it.

    Args:
        kind: one of `MOTIONS`.
        card_named: finds the card of a newcomer.

    Raises click.UsageError for words that say no such change, and as `Sitting.member`, `card_named` and
    `comity_client.charter.proposals` do.
    """
    from comity_client.charter import proposals as drafting
    from comity_client.charter.state import CharterMaterial

    current = sitting.current
    match kind, words:
        case "admit", [name]:
            card = card_named(name)
            return drafting.draft_admission(current, card.member), CharterMaterial.of(card.lines)
        case "succeed", [member, name]:
            card = card_named(name)
            return drafting.draft_succession(current, sitting.member(member), card.member), CharterMaterial.of(
                card.lines
            )
        case "remove", [member]:
            body = drafting.draft_removal(current, sitting.member(member).id)
        case "rekey", [member]:
            body = drafting.draft_rekeying(current, sitting.chain(sitting.member(member).id).current)
        case "observer" | "active", [member]:
            body = drafting.draft_status(current, sitting.member(member).id, kind)
        case "policy", _:
            body = drafting.draft_policy_change(current, dataclasses.replace(current.policy, **_promises(words)))
        case "namespace", _:
            body = drafting.draft_namespaces(current, {name: parse_digest(id_) for name, id_ in _pairs(words).items()})
        case _:
            raise click.UsageError(f"write: comity proposal new {kind} {MOTIONS[kind]}")
    return body, CharterMaterial()


def _promises(words: Iterable[str]) -> dict[str, int]:
    known, given = [field.name for field in dataclasses.fields(CharterPolicy)], _pairs(words)
    for name, value in given.items():
        if name not in known or not value.isdecimal() or len(value) > DIGITS:
            raise click.UsageError(f"{name}={value[:40]}: write a number for one of {', '.join(known)}")
    return {name: int(value) for name, value in given.items()}


def _pairs(words: Iterable[str]) -> dict[str, str]:
    found = dict[str, str]()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"{word[:80]!r}: write NAME=VALUE")
        if name in found:
            raise click.UsageError(f"{name} is given twice")
        found[name] = value
    return found
