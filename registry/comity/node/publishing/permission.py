"""Whether somebody may publish into this node's log. Operators always may; others where the operator says so."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from comity.node.config import Publishing
from comity.trust.digest import Digest
from comity.trust.errors import Refused
from comity.trust.statement import Entry
from comity.wire.doors import Caller


def permit(
    rule: Publishing, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest] = frozenset()
) -> None:
    """Raises Refused (PUBLISHING-CLOSED, NOT-ACCEPTED).

    Args:
        granted: entries, by digest, that need no permission of the operator: words about the charter.

    Not checked: whether the statements are their authors'. An author who is not on the list gains nothing by claiming
    to be one who is.
    """
    asked = [entry for entry in entries if entry.digest not in granted]
    if caller.operator or rule.accept == "any" or not asked:
        return
    if rule.accept == "none":
        raise Refused(
            "this node takes no statements from outside",
            hint="ask its operator, or publish through the node's own socket",
            code="PUBLISHING-CLOSED",
        )
    for entry in asked:
        author = entry.statement.by
        if author is None or author.id not in rule.accept:
            why = f"{author.id if author else 'its author'} is not among those whom the operator accepts"
            raise Refused("this publisher is not accepted here", why=why, code="NOT-ACCEPTED")
