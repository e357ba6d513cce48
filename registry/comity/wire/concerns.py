"""What concerns a publisher, in the messages of `GetConcerns`.

Source: proto/comity/v1/artifact.proto, message Concern.
"""

from __future__ import annotations

from typing import Annotated, Final

from comity.trust.frozen import frozen
from comity.wire import limits
from comity.wire.codec import Exact, Items
from comity.wire.messages import LocatedEntry

KEYS: Final = "keys"
"""In place of why: the entry is of the keys of an author."""


@frozen
class ConcernPart:
    """Part of an answer. `unread`: statements that the node has still to look at; `more`: there are other concerns;
    `why` the one entry is among them, or that it is of keys. The first part has no entry."""

    unread: int
    more: bool = False
    why: Annotated[str, Exact(limits.TOKEN)] = ""
    entries: Annotated[tuple[LocatedEntry, ...], Items(1)] = ()
