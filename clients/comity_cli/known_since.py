"""Since when a statement is known, in words: proven by cosigners, said by nodes, or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comity.trust.encoding import format_moment

from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.evidence.known_since import KnownSince


def earliest(times: Iterable[KnownSince | None]) -> KnownSince | None:
    """The first of these times; None if none is known."""
    return min((each for each in times if each is not None), key=lambda since: since.at, default=None)


def known_text(since: KnownSince | None) -> str:
    """`cosigned 2026-11-30 (by 3 members), verified here`, or whose word it is; `unknown`."""
    if since is None:
        return "unknown"
    if since.basis == "cosigned":
        return f"cosigned {day(since.at)} (by {plural(since.members, 'member')}), verified here"
    return f"{day(since.at)}, claimed by nodes of {plural(since.members, 'member')}"


def known_day(since: KnownSince | None) -> str:
    """The day alone, for a column that says whose word it is; `-` if it is unknown."""
    return "-" if since is None else day(since.at)


def day(seconds: int) -> str:
    """The day of POSIX seconds: `2026-11-30`."""
    return format_moment(seconds, "%Y-%m-%d")
