"""Addresses of the console, and the responses: module `opening` puts them together.

/                                  the overview
/-/catalogue, /-/members, /-/proposals, /-/compute, /-/alerts
/-/logs/{log}[/{index}]            entries of a log, and one entry (module log_pages)
/-/descent                         under whose law the roots are (module descent)
/-/continuity                      checks of continuity plans, for people who signed in (module node_pages)
/-/identify                        what a file is (module identify)
/-/sign-in, /-/sign-out             sessions (module sign_in)
/-/sign-in/oidc[/callback]         sessions by an OpenID Connect provider (package oidc)
/-/node[/…]                        the node, for people who signed in (module node_pages)
/-/feeds/{kind}.atom               Atom feeds (module feeds)
/-/feeds/publishers/{id}.atom      the feed of one publisher (module publisher_feed)
/-/console.css                     the style sheet
/{namespace}/{name}[/tree/{rev}]   a repository, only for requests that accept text/html

`-` is no valid namespace, so these addresses hide no repository. The last ones match only GET and HEAD with text/html
in Accept, which browsers send and Hub clients do not; every other request goes on to the Hub routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Final

from markupsafe import escape
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from comity.drawing.graph_text import LINEAGE_STYLE, render_svg, render_tree
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.artifact import ArtifactPage, ArtifactPages, copies_without, enough_copies, issuers
from comity.gateway.console.copies import LossOutcome
from comity.gateway.console.decided import DecidedChanges
from comity.gateway.console.index import ArtifactIndex
from comity.gateway.console.listing_file import CataloguePage, CatalogueQuery, ListedRepository
from comity.gateway.console.loans import PAGE as LOANS_PAGE
from comity.gateway.console.loans import LoanBoard
from comity.gateway.console.member_map import federation_map
from comity.gateway.console.offers import offer_page
from comity.gateway.console.page import HEADERS, POLICY, PREFIX, PageMaker, Reader
from comity.gateway.console.proposals import proposals
from comity.gateway.console.state import FederationState, StateReader, WriterFacts, withdrawn
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute
from comity.gateway.http import ConnectionSlots
from comity.gateway.hub.views import MAIN
from comity.ledger.intake import fold_name
from comity.node.home import ServedHome
from comity.node.pull_counts import WeekCount, counted_file
from comity.node.threads import Pools
from comity.rules.artifact_kind import ARTIFACT_KINDS
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound

CATALOGUE_PAGE: Final = 50
SEARCHES: Final = 2
"""Searches at once: each holds a thread of those that also read files and tokens, and the lock of the list."""
PULL_WEEKS: Final = 4
"""Weeks with pulls that the page of an artifact shows."""
FILES_PAGE: Final = 100
AFFECTED: Final = 25
MAX_WORDS: Final = 8
FACET_VALUES: Final = 12
FACETS: Final = ("publisher", "licence", "format", "size")


class PageRoute(DeclaredRoute):
    """A route for browsers: it matches only requests that accept text/html."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not _accepts_html(scope):
            return Match.NONE, {}
        return super().matches(scope)


def _accepts_html(scope: Scope) -> bool:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return b"text/html" in accepted.lower()


@cache
def _style_sheet() -> bytes:
    return resources.files(__package__ or "").joinpath("static", "console.css").read_bytes()


async def _style(request: Request) -> Response:
    headers = {"Cache-Control": "public, max-age=3600", "Content-Security-Policy": POLICY}
    return Response(_style_sheet(), media_type="text/css; charset=utf-8", headers=headers)


class Console:
    """The handlers. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        home: ServedHome,
        writer: WriterFacts | None,
        index: ArtifactIndex,
        states: StateReader,
        pages: ArtifactPages,
        access: GatewayAccess,
        maker: PageMaker,
    ) -> None:
        """`writer`: None at a front end, which says on each page that it does not know what follows from it."""
        settings = home.config.gateway
        self._url = settings.url
        self._aliases = settings.alias_targets()
        self._membership = home.membership
        self._ledger = home.ledger
        self._epochs = home.epochs
        self._decided = DecidedChanges(home.ledger.tables, home.membership)
        self._pools: Pools = home.pools
        self._writer = writer
        self._loans = LoanBoard(writer.offers) if writer else None
        self._index = index
        self._states = states
        self._pages = pages
        self._access = access
        self._names = pages.catalogue
        self._maker = maker
        self._searches = ConnectionSlots(SEARCHES, "searches")

    def routes(self) -> list[DeclaredRoute]:
        """Mount them before the Hub routes."""
        page, readers = self._maker.route, self._access.for_readers()
        one, pictured = self._access.for_readers_of(self._name), self._access.for_readers_of(_given_name)
        return [
            page("/", self.overview, readers),
            DeclaredRoute(f"{PREFIX}/console.css", _style, EVERYBODY),
            page(f"{PREFIX}/catalogue", self.catalogue, readers),
            page(f"{PREFIX}/members", self.members, readers),
            page(f"{PREFIX}/proposals", self.proposals, readers),
            page(f"{PREFIX}/compute", self.compute, readers),
            page(f"{PREFIX}/alerts", self.alerts, readers),
            page(f"{PREFIX}/lineage/{{namespace}}/{{name}}/{{revision}}.svg", self.lineage, pictured),
            page(f"{PREFIX}/{{rest:path}}", self.missing, readers, kind=PageRoute),
            page("/{name}", self.alias, readers, kind=PageRoute),
            page("/{namespace}/{name}", self.artifact, one, kind=PageRoute),
            page("/{namespace}/{name}/tree/{revision}", self.artifact, one, kind=PageRoute),
        ]

    def _name(self, request: Request) -> str:
        """The repository that an address names, by an alias or itself."""
        given = _given_name(request)
        return self._aliases.get(given.lower(), given)

    async def overview(self, reader: Reader) -> Response:
        state = await self._states.now()
        gone = reader.field("gone")
        loss, affected, who = await self._loss(reader, state, gone)
        return self._maker.render(
            reader,
            "overview.html",
            state,
            gone=gone,
            loss=loss,
            affected=affected,
            who=who,
            map=federation_map(state, reader.language),
        )

    async def catalogue(self, reader: Reader) -> Response:
        state = await self._states.now()
        words = tuple(fold_name(reader.field("q")).split()[:MAX_WORDS])
        query = CatalogueQuery(
            words,
            reader.field("publisher"),
            reader.field("licence"),
            reader.field("format"),
            reader.field("size"),
            reader.field("kind"),
            reader.field("in"),
            state.rule if reader.field("copies") == "short" else None,
        )
        readable, after = await self._access.readable_names(reader.request), reader.field("after")
        async with self._searches.slot(reader.request.scope):
            found = await self._index.page(query, after, CATALOGUE_PAGE, readable)
        facets, (known, gone) = await self._facets(state), await self._ledger.run(self._times, found.found)
        return self._maker.render(
            reader,
            "catalogue.html",
            state,
            page=found,
            query=query,
            facets=facets,
            known=known,
            withdrawn=gone,
        )

    def _times(self, listed: Sequence[ListedRepository]) -> tuple[Mapping[Digest, int], frozenset[Digest]]:
        """Blocking. Since when the artifacts are known here, and those that their publishers withdrew."""
        tables = self._ledger.tables
        known = tables.proven_times.known_since([found.artifact.digest for found in listed])
        signed = ((found.artifact.digest, found.publisher) for found in listed if found.publisher is not None)
        return known, frozenset(artifact for artifact, publisher in signed if withdrawn(tables, artifact, publisher))

    async def artifact(self, reader: Reader) -> Response:
        parameters, name = reader.request.path_params, self._name(reader.request)
        revision = parameters.get("revision", MAIN)
        canonical_name = await self._names.canonical_name(name)
        if canonical_name != _given_name(reader.request):
            return self._redirect(reader, canonical_name, parameters.get("revision"))
        try:
            page = await self._pages.page(name, revision)
        except NotFound:
            newest = None if "revision" in parameters else await self._pages.newest_withdrawn(name)
            if newest is None:
                raise
            return self._redirect(reader, canonical_name, newest)  # whose page shows the warning
        state = await self._states.now()
        start = min(reader.number("file") or 0, len(page.snapshot.manifest.files))
        copies = await self._pages.copies(page)
        return self._maker.render(
            reader,
            "artifact.html",
            state,
            page=page,
            copies=copies,
            copy_count=sum(copy.counts for copy in copies),
            places=len({copy.jurisdiction for copy in copies if copy.counts}),
            enough=enough_copies(copies, state.rule),
            without=[copies_without(copies, gone, state.rule) for gone in copies],
            start=start,
            files=page.snapshot.manifest.files[start : start + FILES_PAGE],
            next_file=start + FILES_PAGE,
            endpoint=self._endpoint(reader),
            tree=escape(render_tree(page.lineage)) if page.lineage else "",
            advisories=[text for topic, text in page.snapshot.notices if topic == "advisory"],
            notices=[text for topic, text in page.snapshot.notices if topic != "advisory"],
            gguf=_first_gguf(page),
            pulls=await self._pulls(page),
            named=await self._ledger.run(self._states.namer, issuers(page.rows)),
        )

    async def _pulls(self, page: ArtifactPage) -> list[WeekCount]:
        """The pulls of the newest weeks from the process that writes."""
        if self._writer is None:
            return []
        return await self._pools.files(self._writer.pulls.weeks, counted_file(page.snapshot.manifest), PULL_WEEKS)

    async def alias(self, reader: Reader) -> Response:
        """`/{name}`: an alias of one segment."""
        name = self._aliases.get(reader.request.path_params["name"].lower())
        if name is None:
            raise NotFound("no such address", code="NO-SUCH-ROUTE")
        return self._redirect(reader, name, None)

    async def lineage(self, reader: Reader) -> Response:
        """The picture. It has its own style element, which its policy allows by the hash."""
        request = reader.request
        page = await self._pages.page(_given_name(request), request.path_params["revision"])
        if page.lineage is None:
            raise NotFound("no parent is named", code="NO-SUCH-ROUTE")
        svg = await self._pools.hashing(render_svg, page.lineage)
        policy = f"default-src 'none'; style-src {_style_hash()}; frame-ancestors 'none'; sandbox"
        headers = {**HEADERS, "Content-Security-Policy": policy}
        return Response(svg, media_type="image/svg+xml", headers=headers)

    async def members(self, reader: Reader) -> Response:
        state = await self._states.now()
        return self._maker.render(reader, "members.html", state, map=federation_map(state, reader.language))

    async def proposals(self, reader: Reader) -> Response:
        follower = self._writer.replication.charter_follower if self._writer else None
        found = proposals(self._membership, follower)
        decided = await self._ledger.run(self._decided.newest, self._epochs) if self._epochs else []
        state = await self._states.now()
        return self._maker.render(reader, "proposals.html", state, proposals=found, decided=decided)

    async def compute(self, reader: Reader) -> Response:
        state, closed = await self._states.now(), reader.field("closed") == "1"
        if self._writer is None or self._loans is None:
            return self._maker.render(reader, "compute.html", state, page=None, closed=closed)
        offers, after = self._writer.offers, reader.field("after")
        page = await offer_page(offers, self._membership, state.now, after, closed=closed)
        loans, first = await self._loans.now(state.now, closed=closed), reader.number("loan") or 0
        shown = loans.page(first)
        return self._maker.render(
            reader,
            "compute.html",
            state,
            page=page,
            closed=closed,
            loans=loans,
            shown=shown,
            next_loan=first + LOANS_PAGE if first + LOANS_PAGE < len(loans.listed) else 0,
            names=await self._ledger.run(self._states.authors, {who for loan in shown for who in loan.parties}),
        )

    async def alerts(self, reader: Reader) -> Response:
        return self._maker.render(reader, "alerts.html", await self._states.now())

    async def missing(self, reader: Reader) -> Response:
        raise NotFound("no such address", code="NO-SUCH-ROUTE")

    async def _loss(
        self, reader: Reader, state: FederationState, gone: str
    ) -> tuple[LossOutcome | None, CataloguePage | None, str]:
        """What the loss of a member or jurisdiction would change; None if none is selected."""
        listing = self._index.listing
        kind, _, value = gone.partition(":")
        seat = next((seat for seat in listing.holders.members if kind == "member" and seat.id == value), None)
        lost = listing.holders.bit(seat) if seat else listing.holders.where(value) if kind == "in" else 0
        if not lost:
            return None, None, ""
        holders, rule = listing.holders, state.rule
        loss = await self._pools.hashing(holders.loss, dict(listing.sets), rule, lost)
        readable = await self._access.readable_names(reader.request)

        def changed(held_by: int) -> bool:
            return holders.meets(held_by, rule) and not holders.meets(held_by & ~lost, rule)

        async with self._searches.slot(reader.request.scope):
            affected = await self._index.affected(changed, AFFECTED, readable)
        return loss, affected, f"{seat.name} ({seat.jurisdiction})" if seat else value

    async def _facets(self, state: FederationState) -> Mapping[str, list[tuple[str, str, int]]]:
        """The most frequent values of each facet: value, label, and number of repositories."""
        found = {kind: await self._index.facets(kind, FACET_VALUES) for kind in FACETS}
        chosen = {"in": state.jurisdictions, "kind": ARTIFACT_KINDS}
        return {**found, **{name: [(value, value, 0) for value in values] for name, values in chosen.items()}}

    def _redirect(self, reader: Reader, name: str, revision: str | None) -> Response:
        path = f"/{name}/tree/{revision}" if revision else f"/{name}"
        return RedirectResponse(reader.link(path), 307, {"Vary": HEADERS["Vary"]})

    def _endpoint(self, reader: Reader) -> str:
        """The address for clients: that of the operator, else the one by which the reader came."""
        return self._url or f"{reader.request.url.scheme}://{reader.request.url.netloc}"


def _given_name(request: Request) -> str:
    return f"{request.path_params['namespace']}/{request.path_params['name']}"


def _first_gguf(page: ArtifactPage) -> str:
    return next((entry.path for entry in page.snapshot.manifest.files if entry.path.endswith(".gguf")), "")


@cache
def _style_hash() -> str:
    import base64

    return f"'sha256-{base64.b64encode(bytes.fromhex(sha256(LINEAGE_STYLE.encode()))).decode()}'"
