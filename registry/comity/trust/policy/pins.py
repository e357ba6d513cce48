"""`[[pin]]`: a charter body of a federation file, which decides who counts."""

from __future__ import annotations

from collections.abc import Callable

from comity.trust.charter import Body
from comity.trust.digest import parse_digest
from comity.trust.errors import Untrusted
from comity.trust.federation import prove_bodies
from comity.trust.policy.table import Table, naming, wrong


def read_pin(table: Table, read: Callable[[str], bytes]) -> Body:
    """Raises Malformed, Untrusted where the file nowhere has the body, and what `read` raises."""
    file, expected = table.take("file", str, ""), table.take("body", str, "")
    table.done()
    if not file:
        raise wrong(table.what, "it names no file")
    with naming(table.what, "body"):
        pinned = parse_digest(expected) if expected else None
    bodies = prove_bodies(read(file))
    body = next((each for each in bodies if each.digest == pinned), None) if pinned else bodies[-1]
    if body is None:
        why = f"{file} ends with charter body {bodies[-1].digest[:16]} and nowhere has {expected[:16]}"
        raise Untrusted("pin refused", why=why, code="PIN")
    return body
