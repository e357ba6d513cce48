"""The route by which data portals harvest what a gateway serves, a page at a time.

A page lists the newest version of each name that the reader may read. Most are served by the proven statements alone,
many at a time, as those of the Hub's list (`proven_items`). The others are judged as every file of an artifact is, tens
of milliseconds each: so a page is short, and few pages are made at once. A name that is not served now is counted, and
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from comity.addons.mldcat.catalogue import (
    MEDIA_TYPE,
    PATH,
    CatalogueEntry,
    CataloguePublisher,
    CatalogueWriter,
    PortalPage,
    TrainingDataset,
)
from comity.gateway.declared_routes import DeclaredRoute
from comity.gateway.fileserver.http1 import is_known
from comity.gateway.http import ConnectionSlots
from comity.gateway.hub.catalogue import CHANGING, is_within_reach
from comity.gateway.hub.views import MAIN, Snapshot, read_integer
from comity.ledger.intake import fold_name
from comity.rules.artifact_kind import DATASET
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.names import Name
from comity.trust.statements import Parent, Published
from comity.trust.upstream import Observed

if TYPE_CHECKING:
    from comity.gateway.app import ReaderParts

PAGE: Final = 50
MAX_PAGE_FILES: Final = 2_000
"""Files after which a page ends: its artifacts have at most `MAX_FILES` more, 2 MB in all."""
PAGES: Final = 2
"""Pages that are made at once."""


class CatalogueRoutes:
    """Handlers of the catalogue for data portals."""

    def __init__(self, parts: ReaderParts) -> None:
        self._parts = parts
        self._url = parts.home.config.gateway.url
        self._pages = ConnectionSlots(PAGES, "pages of the catalogue")

    def routes(self) -> list[DeclaredRoute]:
        return [DeclaredRoute(PATH, self.page, self._parts.access.for_readers())]

    async def page(self, request: Request) -> Response:
        """A page of `limit` artifacts at most, after `cursor`."""
        parts, started = self._parts, int(self._parts.home.clock())
        reach = await parts.access.reach(request)
        limit = read_integer(request.query_params.get("limit"), PAGE, PAGE)
        cursor = request.query_params.get("cursor", "")
        async with self._pages.slot(request.scope):
            async with parts.repositories.searches.slot(request.scope):
                names, following = await parts.repositories.names("", "", cursor, limit, reach)
            proven = await parts.items.proven(names)
            entries: list[CatalogueEntry] = []
            examined = files = 0
            for name in names:
                examined += 1
                try:
                    snapshot = proven.get(fold_name(name)) or await parts.catalogue.snapshot(name, MAIN)
                except ComityError:  # such as a policy that refuses it: it is counted
                    continue
                entry = catalogue_entry(snapshot, started)
                entries.append(replace(entry, trained_on=await self._trained_on(entry, reach)))
                files += len(entries[-1].listed)
                if files >= MAX_PAGE_FILES and examined < len(names):
                    following = name
                    break
            base = self._url or f"{request.url.scheme}://{request.url.netloc}"
            after = _address(base, limit, following) if following else ""
            page = PortalPage(_address(base, limit, cursor), after, examined - len(entries))
            writer = CatalogueWriter(base, parts.home.membership.own_node.record.name)
            body = await parts.home.pools.hashing(lambda: writer.write(entries, page).encode())
        return _answer(request, body, after)

    async def _trained_on(self, entry: CatalogueEntry, reach: Sequence[str]) -> tuple[TrainingDataset, ...]:
        """The datasets of a model, by what their names mean here."""
        found = [await self._dataset(parent, reach) for parent in entry.training_parents]
        return tuple(each for each in found if each is not None)

    async def _dataset(self, parent: Parent, reach: Sequence[str]) -> TrainingDataset | None:
        catalogue = self._parts.catalogue
        try:
            name = Name.parse(parent.name)
            if not is_within_reach(fold_name(name.repository), reach):
                return None
            repository = await catalogue.repository(name.repository)
            candidate = repository.version(name.version)
        except ComityError:  # nothing here proves it
            return None
        if repository.mirrored or candidate.artifact != parent.digest:
            return None
        kind = await catalogue.local_artifacts.kind(candidate.artifact, candidate.publisher)
        return TrainingDataset(repository.name, candidate.version, candidate.artifact) if kind == DATASET else None


def catalogue_entry(snapshot: Snapshot, started: int) -> CatalogueEntry:
    """What the catalogue says of an artifact that is served, without what changes in seconds: how many cosigned it, and
    the present time, which stands for one that this node has not noted yet (`ProvenTimes`).

    Args:
        started: when the request arrived, in POSIX seconds.
    """
    claim = snapshot.claim
    published = claim if isinstance(claim, Published) else None
    return CatalogueEntry(
        repository=snapshot.repository,
        version=snapshot.label,
        artifact=snapshot.artifact,
        revision=f"sha256:{snapshot.artifact}" if published else snapshot.commit,
        kind=snapshot.kind,
        licence=snapshot.licence,
        manifest=snapshot.manifest,
        publisher=CataloguePublisher(snapshot.author, published.by) if published else None,
        lineage=published.lineage if published else (),
        upstream=claim.name if isinstance(claim, Observed) else "",
        known_since=snapshot.known_since if snapshot.known_since < started else 0,
        notices=tuple(f"{topic}: {text}" for topic, text in snapshot.notices if topic not in CHANGING),
    )


def _address(base: str, limit: int, cursor: str) -> str:
    return f"{base}{PATH}?{urlencode({'limit': limit, **({'cursor': cursor} if cursor else {})})}"


def _answer(request: Request, body: bytes, after: str) -> Response:
    etag = f'"{sha256(body)}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", **({"Link": f'<{after}>; rel="next"'} if after else {})}
    if is_known(etag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=MEDIA_TYPE)
