"""Since when a statement is known, in words: proven by cosigners, said by nodes, or unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comity.trust.encoding import format_moment

from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.evidence.known_since import KnownSince


def known_text(since: KnownSince | None) -> str:
    """`cosigned 2026-11-30 (by 3 members), verified here`, or whose word it is; `unknown`."""
    if since is None:
        return "unknown"
    if since.basis == "cosigned":
        return f"cosigned {_day(since)} (by {plural(since.members, 'member')}), verified here"
    return f"{_day(since)}, claimed by {plural(since.members, 'node')}"


def known_day(since: KnownSince | None) -> str:
    """The day alone, for a column that says whose word it is; `-` if it is unknown."""
    return "-" if since is None else _day(since)


def _day(since: KnownSince) -> str:
    return format_moment(since.at, "%Y-%m-%d")
