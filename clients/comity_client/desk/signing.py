"""Putting a key to a ceremony's payload: a reading is remembered beside the key before its signature exists."""

from __future__ import annotations

from collections.abc import Iterable

from comity.trust.charter.readings import INTENT, RATIFIED, Reading, read_reading
from comity.trust.errors import ComityError
from comity.trust.keys import VerifyingKey
from comity.trust.statement import Entry

from comity_client.desk.ceremony import Ceremony
from comity_client.desk.keys import DeskKey
from comity_client.desk.votes import reading_of

READINGS = (INTENT, RATIFIED)


def sign(ceremony: Ceremony, key: DeskKey, entries: Iterable[Entry] = (), said: Iterable[Reading] = ()) -> Ceremony:
    """`ceremony` with the signature of `key`, whose owner has seen the plan.

    Args:
        entries: all lines at hand. Where they show that this key signed what its vote file does not know, the file is
            an old one, and the key sits out this epoch.
        said: proven readings of this key's member, by whichever of its keys.

    Raises Refused (NOT-A-SIGNER, VOTE-LOST), Untrusted or Conflict where this key may not sign this reading, and as
    its votes and its signer do.
    """
    ceremony.panel_of(key.public)
    if ceremony.statement.predicate in READINGS:
        key.votes.permit(reading_of(ceremony.payload), readings_of(key.public, entries), said)
    return ceremony.with_signature(key)


def readings_of(key: VerifyingKey, entries: Iterable[Entry]) -> list[Reading]:
    """The readings among `entries` that bear the signature of `key`, alone or with others."""
    found = []
    for entry in entries:
        if entry.statement.predicate in READINGS and entry.envelope.bears(key):
            try:
                found.append(read_reading(entry))
            except ComityError:
                continue  # signed, but no reading: it counts for nothing anywhere
    return found
