"""From what was hashed here to the `observed` statement: documents, counts, and the list of what nobody checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

import comity
from comity.trust.digest import Digest
from comity.trust.manifest import Manifest
from comity.trust.pieces import PieceIndex, PieceLayout
from comity.trust.statement import SideObject
from comity.trust.upstream.comparing import encode_observations, matching_folders
from comity.trust.upstream.observed import FETCHED, Conditions, Matched, Observed, Obtained
from comity.upstream.mirror import Mirrored

CARDS: Final = ("README.md",)
LICENCES: Final = re.compile(r"(?:licen[cs]e|copying)(?:\.(?:md|txt))?\Z", re.IGNORECASE)
MAX_DOCUMENT: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Described:
    """What the importer knows beside the files: how they came, since when (POSIX seconds), and accepted terms."""

    how: str
    begun: int
    terms: bytes = b""


def describe(
    node: Digest, mirrored: Mirrored, layouts: Sequence[PieceLayout], described: Described, ended: int
) -> tuple[Observed, dict[Digest, bytes]]:
    """The statement, and every side object that it names. Blocking: it reads card and licence."""
    listing = mirrored.listing
    manifest = Manifest.of(seen.entry for seen in mirrored.observations)
    paths = [seen.entry.path for seen in mirrored.observations]
    index = PieceIndex(tuple(zip(paths, layouts, strict=True)))
    card, licence = (
        _first(mirrored, lambda path: path in CARDS),
        _first(mirrored, lambda p: LICENCES.match(p) is not None),
    )
    bodies = [manifest.encode(), index.encode(), encode_observations(mirrored.observations)]
    documents = [SideObject.of(body) for body in bodies]
    conditions = Conditions(
        listing.standing.licence,
        SideObject.of(licence) if licence else None,
        SideObject.of(card) if card else None,
        listing.standing.gated,
        SideObject.of(described.terms) if described.terms else None,
    )
    observed = Observed(
        by=node,
        upstream=listing.standing.upstream,
        artifact=manifest.digest,
        manifest=documents[0],
        pieces=documents[1],
        files=documents[2],
        matched=_matched(mirrored),
        unchecked=tuple(_unchecked(mirrored, described)),
        obtained=Obtained(described.how, described.begun, max(described.begun, ended), _tool(described), mirrored.tls),
        conditions=conditions,
    )
    kept = [*bodies, *(text for text in (card, licence, described.terms) if text)]
    return observed, {SideObject.of(body).digest: body for body in kept}


def _matched(mirrored: Mirrored) -> Matched:
    seen = mirrored.observations
    by_hash = [item for item in seen if item.match == "sha256"]
    return Matched(
        files=len(seen),
        sha256=len(by_hash),
        git_blob=sum(item.match == "git-blob" for item in seen),
        pointers=sum(item.pointer for item in by_hash),
        folders=matching_folders(seen, mirrored.listing.folders),
        folders_listed=len(mirrored.listing.folders),
    )


def _unchecked(mirrored: Mirrored, described: Described) -> Iterator[str]:
    yield "commit"
    yield "author"
    if described.how != FETCHED:
        yield "upstream"
    elif mirrored.tls is None:
        yield "tls"
    if any(item.listed.xet for item in mirrored.observations):
        yield "xet"


def _first(mirrored: Mirrored, wanted: Callable[[str], bool]) -> bytes | None:
    """The first file at the root that is `wanted`, as it was obtained; None where it is too large for a document."""
    for seen, path in zip(mirrored.observations, mirrored.paths, strict=True):
        if wanted(seen.entry.path) and 0 < seen.entry.size <= MAX_DOCUMENT:
            return path.read_bytes()
    return None


def _tool(described: Described) -> str:
    library = f", huggingface-hub {metadata.version('huggingface-hub')}" if described.how == FETCHED else ""
    return f"comity {comity.__version__}{library}"
