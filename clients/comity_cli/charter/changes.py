"""Parses the arguments of `comity proposal new`, such as `admit CARD` or `policy min_copies=4`, into the new body."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import click
from comity.trust.charter.document import Body, CharterPolicy
from comity.trust.names import parse_id

if TYPE_CHECKING:
    from comity.trust.node_records import NodeRecord
    from comity_client.charter.state import CharterMaterial, CharterState
    from comity_client.founding import NodeCard

CHANGES: Final[Mapping[str, str]] = {
    "admit": "CARD",
    "succeed": "MEMBER CARD",
    "remove": "MEMBER",
    "rekey": "MEMBER",
    "observer": "MEMBER",
    "active": "MEMBER",
    "policy": "NAME=VALUE…",
    "namespace": "NAME=ID…",
}
"""Kinds of change, each with its arguments."""
MAX_DIGITS: Final = 9
"""Limit of digits of a policy value."""


def build_draft(
    kind: str,
    arguments: tuple[str, ...],
    charter_state: CharterState,
    card_named: Callable[[str], NodeCard],
    nodes: Collection[NodeRecord] = (),
) -> tuple[Body, CharterMaterial]:
    """The new body, and the statements about newcomers that others need to verify it.

    Args:
        kind: one of `CHANGES`.
        card_named: finds the card of a newcomer.
        nodes: the known nodes of the members.

    Raises click.UsageError for invalid arguments, and as `CharterState.member`, `card_named`, `check_newcomer` and
    `comity_client.charter.proposals` do.
    """
    from comity_client.charter import proposals
    from comity_client.charter.state import CharterMaterial
    from comity_client.founding import check_newcomer, check_node_name

    current = charter_state.current
    match kind, arguments:
        case "admit", [name]:
            card = card_named(name)
            check_newcomer(card, nodes)
            return proposals.draft_admission(current, card.member), CharterMaterial.of(card.lines)
        case "succeed", [member, name]:
            card, old = card_named(name), charter_state.member(member)
            check_node_name(card, [record for record in nodes if record.member != old.id])
            return proposals.draft_succession(current, old, card.member), CharterMaterial.of(card.lines)
        case "remove", [member]:
            body = proposals.draft_removal(current, charter_state.member(member).id)
        case "rekey", [member]:
            body = proposals.draft_rekeying(current, charter_state.chain(charter_state.member(member).id).current)
        case "observer" | "active", [member]:
            body = proposals.draft_status(current, charter_state.member(member).id, kind)
        case "policy", _:
            body = proposals.draft_policy_change(
                current, dataclasses.replace(current.policy, **_policy_values(arguments))
            )
        case "namespace", _:
            body = proposals.draft_namespaces(current, {name: parse_id(id_) for name, id_ in _pairs(arguments).items()})
        case _:
            raise click.UsageError(f"write: comity proposal new {kind} {CHANGES[kind]}")
    return body, CharterMaterial()


def _policy_values(arguments: Iterable[str]) -> dict[str, int]:
    known, given = [field.name for field in dataclasses.fields(CharterPolicy)], _pairs(arguments)
    for name, value in given.items():
        if name not in known or not value.isdecimal() or len(value) > MAX_DIGITS:
            raise click.UsageError(f"{name}={value[:40]}: write a number for one of {', '.join(known)}")
    return {name: int(value) for name, value in given.items()}


def _pairs(arguments: Iterable[str]) -> dict[str, str]:
    found = dict[str, str]()
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator:
            raise click.UsageError(f"{argument[:80]!r}: write NAME=VALUE")
        if name in found:
            raise click.UsageError(f"{name} is given twice")
        found[name] = value
    return found
