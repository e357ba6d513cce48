"""Serves calls that only the operators of this node may make, and links by which one signs in to its console, once.

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
from pathlib import Path
from typing import Final

from comity.node.operator_acts import OperatorActs
from comity.node.publishing import Submissions
from comity.node.services.charter import CharterServicer
from comity.node.status import StatusReport
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Refused
from comity.wire.node_status import NodeStatus
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


class OperatorServicer:
    """Implements `OperatorService`."""

    def __init__(
        self,
        submissions: Submissions,
        status: StatusReport,
        charter: CharterServicer,
        links: SignInLinks,
        acts: OperatorActs,
    ) -> None:
        self._submissions = submissions
        self._status = status
        self._charter = charter
        self._links = links
        self._acts = acts

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        return await self._submissions.adopt(path, digest, size)

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        async with self._acts.recorded("join-request.keep" if keep else "join-request.dismiss", member):
            await self._charter.decide_ask(member, keep=keep)

    async def sign_in_link(self) -> SignInLink:
        async with self._acts.recorded("console.link"):
            return self._links.make()

    async def status(self) -> NodeStatus:
        return await self._status.now()
