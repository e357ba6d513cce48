"""Sessions of people who signed in to the console.

A session is 256 random bits in a cookie; this node keeps their SHA-256, in memory, so that a restart ends all sessions.
The cookie is HttpOnly and SameSite=Strict. Where the browser came by TLS it is `__Host-` and Secure, and such a session
is accepted from that cookie only: another service of the same host cannot plant one. Its name contains the node's key,
because browsers send the cookies of one port to all ports of a host. A sign-in always makes a new session and ends the
one that the browser had.

    what                     bound         at the bound
    time without a request   IDLE          the session ends
    time since the sign-in   LONGEST       the session ends
    sessions of one person   MAX_OF_ONE    the one that was not used for longest ends
    sessions of all          MAX_SESSIONS  the same, of the viewer with most sessions, else of an operator
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from comity.node.threads import Clock
from comity.trust.errors import Refused
from comity.trust.frozen import frozen

IDLE: Final = 30 * 60.0
LONGEST: Final = 8 * 3600.0
MAX_OF_ONE: Final = 8
MAX_SESSIONS: Final = 64

Role = Literal["viewer", "operator"]
"""A viewer reads the pages of the node; an operator also changes tokens and ends the sessions of others."""
SignInKind = Literal["link", "oidc"]


@frozen
class BrowserSession:
    """Attributes:
    id: names the session in lists; it opens nothing.
    who: the person, as the way of signing in names them.
    begun: POSIX seconds.
    form_key: what each form of this session must contain.
    secure: whether the browser came by TLS.
    """

    id: str
    who: str
    role: Role
    by: SignInKind
    begun: int
    secure: bool
    form_key: str = field(repr=False)

    def require(self, role: Role) -> None:
        """Raises Refused (ROLE) if the session may not do what needs `role`."""
        if role == "operator" and self.role != "operator":
            raise Refused(
                "only operators may do this",
                why="you signed in as a viewer",
                hint="comity console sign-in",
                code="ROLE",
            )


@dataclass(slots=True, eq=False)
class _Kept:
    session: BrowserSession
    begun: float
    used: float


class BrowserSessions:
    """Not thread-safe: call from the event loop.

    Args:
        node: a name that no other node on this host has, for the cookie.
        clock: POSIX seconds, to show.
        monotonic: seconds that never go back, for the expiry.
    """

    def __init__(self, node: str, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._plain = f"comity-{hashlib.sha256(node.encode()).hexdigest()[:8]}"
        self._clock = clock
        self._monotonic = monotonic
        self._kept: dict[bytes, _Kept] = {}

    def begin(
        self, request: Request, who: str, role: Role, by: SignInKind, *, secure: bool
    ) -> tuple[BrowserSession, str]:
        """Begin a session, and end the one of this browser. Returns it with the secret for its cookie."""
        self.end_own(request)
        secret = secrets.token_urlsafe(32)
        session = BrowserSession(
            secrets.token_hex(4), who, role, by, int(self._clock()), secure, form_key=secrets.token_urlsafe(32)
        )
        self._make_room(who)
        now = self._monotonic()
        self._kept[_hash(secret)] = _Kept(session, now, now)
        return session, secret

    def of(self, request: Request) -> BrowserSession | None:
        """The session of a request; its idle time starts again."""
        key = self._key(request)
        if key is None:
            return None
        kept = self._kept[key]
        now = self._monotonic()
        if self._ended(kept, now):
            del self._kept[key]
            return None
        kept.used = now
        return kept.session

    def all(self) -> list[tuple[BrowserSession, int]]:
        """The sessions that have not ended, the newest first, with the seconds since each was used."""
        self._forget_ended()
        now = self._monotonic()
        found = sorted(self._kept.values(), key=lambda kept: -kept.begun)
        return [(kept.session, int(now - kept.used)) for kept in found]

    def end(self, identifier: str) -> bool:
        """End the session with this id. Returns whether there was one."""
        found = [key for key, kept in self._kept.items() if kept.session.id == identifier]
        for key in found:
            del self._kept[key]
        return bool(found)

    def end_own(self, request: Request) -> None:
        """End the session of this request, if it has one."""
        key = self._key(request)
        if key is not None:
            del self._kept[key]

    def set_cookie(self, response: Response, secret: str, *, secure: bool) -> None:
        response.set_cookie(self._cookie(secure), secret, path="/", secure=secure, httponly=True, samesite="strict")

    def delete_cookies(self, response: Response, request: Request) -> None:
        for secure in (True, False):
            if self._cookie(secure) in request.cookies:
                response.delete_cookie(self._cookie(secure), "/", secure=secure, httponly=True, samesite="strict")

    def _cookie(self, secure: bool) -> str:
        return f"__Host-{self._plain}" if secure else self._plain

    def _key(self, request: Request) -> bytes | None:
        for secure in (True, False):
            key = _hash(request.cookies.get(self._cookie(secure), ""))
            if key in self._kept and self._kept[key].session.secure == secure:
                return key
        return None

    def _make_room(self, who: str) -> None:
        self._forget_ended()
        own = [key for key, kept in self._kept.items() if kept.session.who == who]
        if len(own) >= MAX_OF_ONE:
            self._end_unused(own)
        elif len(self._kept) >= MAX_SESSIONS:
            viewers = [key for key, kept in self._kept.items() if kept.session.role == "viewer"]
            counts = Counter(self._kept[key].session.who for key in viewers or self._kept)
            most = counts.most_common(1)[0][0]
            self._end_unused([key for key, kept in self._kept.items() if kept.session.who == most])

    def _end_unused(self, keys: Sequence[bytes]) -> None:
        """End the one of these sessions that was not used for longest."""
        del self._kept[min(keys, key=lambda key: self._kept[key].used)]

    def _forget_ended(self) -> None:
        now = self._monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if not self._ended(kept, now)}

    @staticmethod
    def _ended(kept: _Kept, now: float) -> bool:
        return now - kept.used >= IDLE or now - kept.begun >= LONGEST


def is_form_key(session: BrowserSession, given: str) -> bool:
    """Whether a form was made for this session."""
    return hmac.compare_digest(session.form_key.encode(), given.encode("utf-8", "replace"))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(b"comity session\n" + secret.encode("utf-8", "replace")).digest()
