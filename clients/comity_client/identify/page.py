"""What was found on a disk as a page of HTML, for the file of those who asked: one document without scripts and outside
resources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from comity.trust.encoding import format_time
from comity.trust.exit_statuses import (
    EVIDENCE_MISSING,
    NOBODY_KNOWS,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    VERIFICATION_FAILED,
)

from comity_client.identify.identify import Identified
from comity_client.reports import page_template

MAX_ROWS: Final = 1_000
"""Rows of a table. How many more there are is below it."""
HEADLINES: Final[Mapping[int, str]] = {
    OK: "Every file is of an artifact that the policy accepts, and these are complete.",
    VERIFICATION_FAILED: "Files have other bytes than their artifact, or evidence does not verify.",
    POLICY_NOT_MET: "An artifact is authentic, and the policy is not met.",
    EVIDENCE_MISSING: "Something could not be read, or evidence or an answer is missing.",
    PARTIAL: "Files are missing, or at other places than in their artifact.",
    NOBODY_KNOWS: "No node that answered, or whose index was read, knows some of the files.",
}
TERMS: Final[Mapping[str, str]] = {
    "complete": "The folder has every file of the artifact at its path, with these bytes. The artifact's manifest, "
    "whose hash is its digest, proves it.",
    "partial": "Files of the artifact are missing; at least half of its files or bytes are there.",
    "changed": "A file of the artifact has other bytes.",
    "accepted": "The publisher's signature, the logs and the cosigners were verified on this machine by the policy.",
    "no node knows": "Each node that answered says that it has read all its logs, and that no publication names these "
    "bytes. That is what nodes say, and no proof.",
    "named by an index": "A node signed an index that names the artifact; no manifest on this machine proves it.",
    "undecided": "Nothing was found, and a node said that it left something out.",
}


def render_identified(found: Identified, exit_status: int, at: int, policy: str, size: Callable[[int], str]) -> str:
    """The HTML document.

    Args:
        at: when it was found, in seconds since 1970, by this machine's clock.
        policy: what the policy is called; empty for the default one.
        size: bytes in words.
    """
    return page_template("identified.html").render(
        found=found,
        headline=HEADLINES.get(exit_status, ""),
        exit_status=exit_status,
        at=format_time(at),
        moment=format_time,
        policy=policy or "the default policy",
        size=size,
        terms=TERMS,
        most=MAX_ROWS,
    )
