"""Links by which one operator signs in to the console of this node, once.

An operator asks for a link over the node's Unix socket, so only users of the socket can sign in. A
link has a secret of 256 random bits, of which only the hash is kept, in memory. It ends when it is used, after
`SECONDS`, or when the node stops. Guesses need no lock-out at that length: a wrong secret changes nothing, so strangers
cannot keep the operator out.

    what             bound      at the bound
    unused links     MAX_LINKS  the oldest one ends: only operators make links
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from comity.trust.errors import NotFound, Refused
from comity.wire.operator import SignInLink

SECONDS: Final = 300
MAX_LINKS: Final = 16
PATH: Final = "/-/sign-in"
"""Where the console is asked, below its URL; the secret is the field `key`."""


class SignInLinks:
    """Not thread-safe: call from the event loop. `clock` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._url = ""
        self._until: dict[bytes, float] = {}

    def serve_at(self, url: str) -> None:
        """The console is open at `url`, or closed if it is empty."""
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        """Where browsers reach the console; empty while it is closed."""
        return self._url

    def make(self) -> SignInLink:
        """Raises NotFound (NO-CONSOLE) if the node serves no console."""
        if not self._url:
            raise NotFound(
                "this node serves no console",
                why="its gateway has no address, or its console is switched off",
                hint="set http and console = true in [gateway] of node.toml, and start the node again",
                code="NO-CONSOLE",
            )
        self._forget_old()
        while len(self._until) >= MAX_LINKS:
            del self._until[next(iter(self._until))]
        secret = secrets.token_urlsafe(32)
        self._until[_hash(secret)] = self._clock() + SECONDS
        return SignInLink(f"{self._url}{PATH}?key={secret}", SECONDS)

    def use(self, secret: str) -> None:
        """End the link with this secret. Raises Refused (SIGN-IN-LINK) if there is none: it was used, or is too old."""
        self._forget_old()
        if self._until.pop(_hash(secret), None) is None:
            raise Refused(
                "this link does not sign anybody in",
                why=f"it was used already, or is older than {SECONDS // 60} minutes, or the node has started again",
                hint="comity console sign-in",
                code="SIGN-IN-LINK",
            )

    def _forget_old(self) -> None:
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}


def _hash(secret: str) -> bytes:
    return hashlib.sha256(b"comity sign-in link\n" + secret.encode("utf-8", "replace")).digest()
