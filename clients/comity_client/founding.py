"""The founding of a federation, by files.

    draft_genesis    the body to which all founders consent
    consent_to       one member's consent, by governance keys that are not on the node's machine
    seal_federation  body, consents and node cards as the federation file that everyone pins

Founders exchange cards and consents as files over channels that they trust. The person who drafts has no special power,
because every member signs the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from comity.federation_file import Federation
from comity.rules.charter_drafts import genesis
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.federation import FederationNode
from comity.trust.charter.votes import consent
from comity.trust.encoding import Digest
from comity.trust.errors import Untrusted
from comity.trust.rotation import KeyState, follow

from comity_client.node_card import NodeCard, check_newcomer
from comity_client.node_home import OFFLINE, own_inception, own_rotations
from comity_client.signing.votes import find_keys, open_key


def draft_genesis(
    cards: Iterable[NodeCard],
    policy: CharterPolicy | None = None,
    namespaces: Mapping[str, Digest] | None = None,
    *,
    predecessor: Body | None = None,
) -> Body:
    """The genesis body with a seat for every card's member; by default with `default_policy`.

    Args:
        namespaces: publishers by namespace, if the founders already agree on some.
        predecessor: the last charter of a federation that lost its quorum permanently and is founded again; its
            namespaces keep their publishers.

    The same cards always give the same bytes. Raises Malformed if the charter breaks a rule, and as `check_newcomer`.
    """
    cards = list(cards)
    for card in cards:
        check_newcomer(card, [other.record for other in cards])
    members = list({card.inception.id: card.member for card in cards}.values())
    all_namespaces = {**(namespaces or {}), **(predecessor.namespaces if predecessor else {})}
    before = predecessor.digest if predecessor else None
    return genesis(members, policy or default_policy(members), all_namespaces, predecessor=before)


def default_policy(members: Sequence[Member]) -> CharterPolicy:
    """The policy for this number of members: the smallest valid quorum, three copies, two cosigners."""
    jurisdictions = len({member.jurisdiction for member in members})
    return CharterPolicy(
        quorum_change=quorum(len(members)),
        min_copies=min(3, len(members)),
        min_jurisdictions=min(3, jurisdictions),
        cosigner_quorum=min(2, len(members) - 1),
    )


def consent_to(body: Body, directory: Path, *, governance: Sequence[Path] = ()) -> bytes:
    """Sign the member's `consented` line to exactly `body`, with as many of its keys as its threshold.

    Args:
        directory: the node's home, for its inception.
        governance: the key files, if they are not in `offline/`. For keys in several places use `consent_plan`.

    Raises Untrusted (NOT-MY-SEAT) if `body` has no seat for this member, or one with other keys or another
    jurisdiction; Untrusted (TOO-FEW-KEYS) if too few keys are here; NotFound, Refused, Malformed for the key files.
    """
    seat = own_seat(body, directory)
    keys = [open_key(path) for path in governance] or find_keys(directory / OFFLINE, seat.keys)
    entry = consent(body, seat.id, *keys[: seat.keys.threshold])
    if not seat.keys.signed(entry.envelope):
        why = f"{seat.keys.threshold} of its {len(seat.keys.keys)} keys must sign"
        raise Untrusted("consent refused", why=why, hint="name each with --key", code="TOO-FEW-KEYS")
    return entry.line


def own_seat(body: Body, directory: Path) -> Member:
    """The seat of a home's member in `body`. Raises Untrusted (NOT-MY-SEAT) if there is none with its own keys and
    jurisdiction."""
    inception = own_inception(directory)
    state = follow(KeyState.of_inception(inception), own_rotations(directory)).current
    seat = body.member(inception.id)
    own = (inception.jurisdiction, state.keys, state.recovery)
    if seat is None or (seat.jurisdiction, seat.keys, seat.recovery) != own:
        raise Untrusted(
            "this charter is not accepted",
            why="it has no seat for this member with its own keys and jurisdiction",
            hint="send node-card.json to the person who drafts, and ask for a new draft",
            code="NOT-MY-SEAT",
        )
    return seat


def seal_federation(body: Body, consents: Iterable[bytes], cards: Sequence[NodeCard]) -> Federation:
    """The federation with this genesis. Raises Untrusted naming the missing members, unless *every* member consented
    and matches its own card."""
    nodes = tuple(FederationNode(card.record, card.record_line, card.mutual, card.open) for card in cards)
    inceptions = [line for card in cards for line in (card.inception_line, *card.rotation_lines)]
    return Federation.assemble([body], [[*inceptions, *consents]], nodes)
