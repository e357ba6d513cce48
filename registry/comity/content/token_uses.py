"""When each token of the gateway was last used, so that an operator sees which can go: only the minute, nothing else.

The node writes the times to a file of its home, mode 0600, at most once in `WRITTEN_EVERY` seconds and when it stops:

    {"schema":"comity/token-uses/v1","uses":{"k3f9…":1800000000}}

It says nothing of who used a token, from where, or for what. The command line reads it. A file that cannot be read is
no error: the times are then unknown, until a token is used again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.secrets import MAX_SECRET, MAX_TOKENS, read_secret
from comity.trust.encoding import Fields, parse_json
from comity.trust.errors import ComityError

USES_SCHEMA: Final = "comity/token-uses/v1"
USES_FILE: Final = "token-uses.json"
"""In the node's home."""
WRITTEN_EVERY: Final = 60.0
MINUTE: Final = 60
MAX_USES: Final = 2 * MAX_TOKENS


class TokenUses:
    """Not thread-safe for one object: `seen` on the event loop, `write` one at a time."""

    def __init__(self, path: Path) -> None:
        """Blocking."""
        self._path = path
        self._times = read_uses(path)
        self._written = 0.0
        self._changed = False

    @property
    def times(self) -> Mapping[str, int]:
        """POSIX seconds of the last use, by the id of the token."""
        return self._times

    def seen(self, token: str, now: float) -> bool:
        """A token is used. Returns whether `write` is due."""
        minute = int(now) // MINUTE * MINUTE
        if self._times.get(token, 0) < minute:
            self._times.pop(token, None)
            self._times[token] = minute
            self._changed = True
            while len(self._times) > MAX_USES:
                del self._times[next(iter(self._times))]
        if not self._changed or abs(now - self._written) < WRITTEN_EVERY:
            return False
        self._written, self._changed = now, False
        return True

    def flush(self) -> None:
        """Write what `write` has not written yet. Blocking. Raises OutOfSpace, Unavailable."""
        if self._changed:
            self._changed = False
            self.write()

    def write(self) -> None:
        """Blocking. Raises OutOfSpace, Unavailable."""
        document = {"schema": USES_SCHEMA, "uses": dict(self._times)}
        durable.write_file(self._path, json.dumps(document).encode() + b"\n", mode=0o600, point="token-uses")


def read_uses(path: Path) -> dict[str, int]:
    """Blocking. The last uses in a file; none if it cannot be read."""
    try:
        return parse_uses(read_secret(path))
    except ComityError:
        return {}


def parse_uses(data: bytes) -> dict[str, int]:
    """Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_SECRET, what="uses of tokens"), "uses of tokens")
    fields.constant("schema", USES_SCHEMA)
    uses = fields.take("uses")
    fields.done()
    if not isinstance(uses, Mapping) or len(uses) > MAX_USES:
        raise fields.error(f"'uses' must be an object of at most {MAX_USES} members")
    times = Fields(uses, "uses of tokens")
    return {name: times.integer(name) for name in uses}
