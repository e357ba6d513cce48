"""HTTP routes of the Hub API; and one sentence for `git clone` and `git push`: a node is no Git server.

Git asks for `…/info/refs?service=git-upload-pack`, and prints the error of an answer in its own format. Source: Git's
documentation, gitprotocol-http and gitprotocol-pack (`ERR`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute, RouteAnswers
from comity.gateway.http import ConnectionSlots, error_response, read_body
from comity.gateway.hub import views
from comity.gateway.hub.catalogue import RepositoryList
from comity.gateway.hub.files import FileResponses
from comity.gateway.hub.kinds import DatasetList, cursor_after, is_listed
from comity.gateway.hub.list_items import ListItems
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import KINDS, HubAddress, Snapshot, read_api, read_resolve
from comity.ledger.intake import fold_name
from comity.node.settings import Gateway
from comity.node.threads import Pools
from comity.rules.artifact_kind import require_hub_type
from comity.trust.encoding import parse_json
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.wire.errors import clean

LIST_PAGE: Final = 100
MAX_EXAMINED: Final = 300
"""Repositories of which one request for a list reads more than the name; then the page is short, with a cursor."""
MANY_FILES: Final = 5_000
LARGE_VIEWS: Final = 2
"""Views of artifacts with `MANY_FILES` that are made at once: of 100,000 files each takes half a second, in a thread
that also hashes files and judges artifacts."""
MAX_LISTED_FILES: Final = 20_000
"""Files after which a list with files ends its page: an artifact has up to 100,000."""
UNKNOWN: Final = ("num_parameters", "apps", "inference", "inference_provider", "trained_dataset")
"""Filters of the Hub by what no node knows of a model: no model is known to match."""
MAX_FORM: Final = 1024 * 1024
MAX_NOTICE: Final = 500
SERVICES: Final = ("git-upload-pack", "git-receive-pack")
_NAME: Final = re.compile(
    r"/(?:(?:models|datasets|spaces)/)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}?)(?:\.git)?\Z", re.A
)


async def _on_list_error(request: Request, error: ComityError) -> Response:
    """Return the error as it is: of some codes, Hub clients would say that a repository is not found."""
    response = error_response(error)
    response.headers["X-Error-Code"] = error.code
    return response


LIST: Final = RouteAnswers(_on_list_error)


class HubRoutes:
    """Handlers of the Hub API."""

    def __init__(
        self,
        settings: Gateway,
        pools: Pools,
        repository_list: RepositoryList,
        items: ListItems,
        read_through: ReadThroughRoutes,
        access: GatewayAccess,
        files: FileResponses,
    ) -> None:
        self._url = settings.url
        self._pools = pools
        self._files = files
        self._read_through = read_through
        self._access = access
        self._repository_list = repository_list
        self._items = items
        self._datasets = DatasetList(repository_list.ledger)
        self._aliases = settings.alias_targets()
        self._large = ConnectionSlots(LARGE_VIEWS, "views of large artifacts")

    def api_routes(self) -> list[DeclaredRoute]:
        """Return the routes below `/api`; mount them before the addresses of repositories, which they look like."""
        readers, of_one = self._access.for_readers(), self._access.for_readers_of(self._asked)
        views = ("GET", "POST")
        return [
            DeclaredRoute("/api/whoami-v2", self.whoami, self._access.for_holders()),
            *(DeclaredRoute(f"/api/{kind}", self.repositories, readers, answers=LIST) for kind in KINDS),
            *(
                DeclaredRoute(f"/api/{kind}/{{rest:path}}", self.repository_view, of_one, methods=views)
                for kind in KINDS
            ),
        ]

    def resolve_routes(self) -> list[DeclaredRoute]:
        """Return the route of files, which matches every remaining path: mount it after all others."""
        return [DeclaredRoute("/{rest:path}", self.resolve, self._access.for_readers_of(self._resolved))]

    def _asked(self, request: Request) -> str:
        """Return the repository in an address below `/api`. Raises NotFound, Malformed."""
        address = read_api(_raw(request))
        if (request.method == "POST") != (address.view == "paths-info"):
            raise Malformed("the address does not support this method", why=request.method, code="METHOD")
        return self._name(address)

    def _resolved(self, request: Request) -> str:
        """Return the repository in the address of a file. Raises NotFound, Malformed."""
        return self._name(read_resolve(_raw(request)))

    def _name(self, address: HubAddress) -> str:
        return self._aliases.get(address.repository.lower(), address.repository)

    async def whoami(self, request: Request) -> Response:
        token = await self._access.require_token(request)
        role = {"displayName": token.name, "role": "read"}
        who = {"type": "user", "name": token.name, "fullname": token.name, "orgs": [], "auth": {"accessToken": role}}
        return JSONResponse(who)

    async def repositories(self, request: Request) -> Response:
        """`GET /api/models`: the repositories that this reader may read, by name, as nothing is known of them by which
        they could be sorted; `GET /api/datasets`: those that are datasets, in the order in which this was stated."""
        datasets = request.url.path == "/api/datasets"
        reach = await self._access.reach(request)
        query = request.query_params
        limit = views.read_integer(query.get("limit"), LIST_PAGE, LIST_PAGE)
        words, author, cursor = query.get("search", ""), query.get("author", ""), query.get("cursor", "")
        unknown = [name for name in UNKNOWN if query.get(name)]
        if unknown or views.read_bool(query.get("gated")):
            text = f"this node does not know {', '.join(unknown)} of a model" if unknown else "no model here is gated"
            return JSONResponse([], headers={"X-HF-Warning": f"filter; {text}"})
        wanted = _filters(request)
        found: list[dict[str, Any]] = []
        examined = 0
        while True:
            published = None
            async with self._repository_list.searches.slot(request.scope):
                if datasets:
                    published, cursor = await self._datasets.names(words, author, cursor, limit - len(found), reach)
                    names = list(published)
                else:
                    names, cursor = await self._repository_list.names(
                        words, author, cursor, limit - len(found), reach, in_turn=True
                    )
            items = await self._items.items(names, siblings=False)
            fitting = [item for item in items if wanted <= _words(item) and is_listed(item, published)]
            if views.read_bool(query.get("full")):
                fitting, last = await self._with_files(fitting)
                if last:
                    found, cursor = found + fitting, cursor_after(published[fold_name(last)]) if published else last
                    break
            found += fitting
            examined += len(names)
            if not cursor or len(found) >= limit or examined >= MAX_EXAMINED or not names:
                break
        body = await self._pools.hashing(lambda: json.dumps(found, ensure_ascii=False).encode())
        headers = self._link(request, cursor) if cursor else {}
        return Response(body, headers=headers, media_type="application/json")

    async def _with_files(self, items: list[views.Document]) -> tuple[list[views.Document], str]:
        """The items with their files; if these are too many, only the first items, and the name after which a reader
        goes on, else empty."""
        found: list[views.Document] = []
        files = 0
        for number, item in enumerate(items, 1):
            made = await self._items.items([item["id"]], siblings=True)
            found += made
            files += sum(len(each["siblings"]) for each in made)
            if files >= MAX_LISTED_FILES and number < len(items):
                return found, item["id"]
        return found, ""

    async def repository_view(self, request: Request) -> Response:
        """`/api/{kind}/{id}/…`."""
        address = read_api(_raw(request))
        redirect = await self._redirect(request, address)
        if redirect is not None:
            return redirect
        match address.view:
            case "" | "revision":
                return await self._model(request, address)
            case "tree":
                return await self._tree(request, address)
            case "paths-info":
                return await self._paths_info(request, address)
            case "refs":
                return await self._refs(request, address)
            case "commits":
                return await self._commits(request, address)
            case _:  # auth-check: access was checked before
                return Response()

    async def resolve(self, request: Request) -> Response:
        """`/{id}/resolve/{revision}/{path}`, and the same with `raw` or `blob`."""
        address = read_resolve(_raw(request))
        redirect = await self._redirect(request, address)
        if redirect is not None:
            return redirect
        snapshot = await self._snapshot(request, address)
        entry = snapshot.manifest.by_path.get(address.path)
        try:
            if entry is None:
                raise NotFound(f"no file {address.path[:200]!r} in {snapshot.repository}", code="NO-SUCH-FILE")
            response = await self._files.response(request, snapshot.claim, entry)
        except ComityError as error:
            response = error_response(error)
            if error.code == "RANGE" and entry is not None:
                response.headers["Content-Range"] = f"bytes */{entry.size}"
        return _with_notices(response, snapshot)

    async def _redirect(self, request: Request, address: HubAddress) -> Response | None:
        """Return a redirect to the canonical name of the repository; None if the address uses it."""
        canonical_name = await self._canonical_name(request, self._name(address), address)
        if canonical_name == address.repository:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        # Without a host: huggingface_hub before 2.0 follows no other redirect, and a client may use another address
        # of this node, at which alone it sends its token.
        return RedirectResponse(urlsplit(self._url).path + address.renamed(canonical_name) + query, 307)

    async def _canonical_name(self, request: Request, name: str, address: HubAddress) -> str:
        if address.model:
            return await self._read_through.canonical_name(name, address.revision, self._access.permit(request))
        return await self._read_through.catalogue.canonical_name(name)

    async def _snapshot(self, request: Request, address: HubAddress) -> Snapshot:
        """Only models are mirrored on demand: other kinds are other repositories at the upstream. Raises NotFound
        (OTHER-KIND), and as `ReadThroughRoutes.snapshot`."""
        if address.model:
            permit = self._access.permit(request)
            snapshot = await self._read_through.snapshot(address.repository, address.revision, permit)
        else:
            snapshot = await self._read_through.catalogue.snapshot(address.repository, address.revision)
        if address.hub_type:
            require_hub_type(snapshot.repository, snapshot.kind, address.hub_type)
        return snapshot

    async def _model(self, request: Request, address: HubAddress) -> Response:
        blobs = views.read_bool(request.query_params.get("blobs"))
        snapshot = await self._snapshot(request, address)
        card = await self._items.cards.card(snapshot.artifact, snapshot.manifest)
        facts = await self._read_through.catalogue.facts.of(snapshot.artifact, snapshot.manifest)

        def view() -> views.Document:
            return views.with_facts(views.model_view(snapshot, card, blobs=blobs), facts)

        return await self._json(request, snapshot, view)

    async def _tree(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(request, address)
        query = request.query_params
        limit = views.read_integer(query.get("limit"), views.TREE_PAGE, views.TREE_PAGE)
        recursive, expand = views.read_bool(query.get("recursive")), views.read_bool(query.get("expand"))
        after = ""

        def page() -> list[views.Document]:
            nonlocal after
            whole = views.tree_view(snapshot, address.path, recursive=recursive, expand=expand)
            shown, after = views.page_view(whole, query.get("cursor", ""), limit)
            return shown

        response = await self._json(request, snapshot, page)
        response.headers.update(self._link(request, after) if after else {})
        return response

    async def _paths_info(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(request, address)
        paths, expand = _form(request.headers.get("content-type", ""), await read_body(request, MAX_FORM))
        return await self._json(request, snapshot, lambda: views.paths_info_view(snapshot, paths, expand=expand))

    async def _commits(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(request, address)
        commits = views.commits_view(snapshot)
        response = await self._json(request, snapshot, lambda: commits)
        response.headers["X-Total-Count"] = str(len(commits))
        return response

    async def _json(self, request: Request, snapshot: Snapshot, view: Callable[[], object]) -> Response:
        """Return `view()` as JSON; runs in a thread, because an artifact may have 100,000 files."""
        many = len(snapshot.manifest.files) >= MANY_FILES
        async with self._large.slot(request.scope) if many else nullcontext():
            body = await self._pools.hashing(lambda: json.dumps(view(), ensure_ascii=False).encode())
        return _with_notices(Response(body, media_type="application/json"), snapshot)

    async def _refs(self, request: Request, address: HubAddress) -> Response:
        if address.model:
            refs = await self._read_through.refs(address.repository, self._access.permit(request))
        else:
            refs = await self._read_through.catalogue.refs(address.repository)
        if address.hub_type:
            require_hub_type(address.repository, refs.kind, address.hub_type)
        return JSONResponse(views.refs_view(refs))

    def _link(self, request: Request, cursor: str) -> dict[str, str]:
        base = self._url or f"{request.url.scheme}://{request.url.netloc}"
        query = urlencode(
            [*((k, v) for k, v in request.query_params.multi_items() if k != "cursor"), ("cursor", cursor)]
        )
        return {"Link": f'<{base}{_raw(request)}?{query}>; rel="next"'}


def _words(item: views.Document) -> set[str]:
    """Return what filters look at: tags, the task, the library, the licence."""
    return {str(word).lower() for word in (*item["tags"], item.get("pipeline_tag", ""))}


def _filters(request: Request) -> frozenset[str]:
    """Return the words that a model of the list must have: tags, the task, the library, the licence."""
    query = request.query_params
    given = (*query.getlist("filter"), *(query.get(name, "") for name in ("pipeline_tag", "library")))
    words = (word.strip().lower() for item in given for word in item.split(","))
    return frozenset(word for word in words if word)


def _with_notices(response: Response, snapshot: Snapshot) -> Response:
    """Add the headers of every response about an artifact: its commit and notices."""
    response.headers["X-Repo-Commit"] = snapshot.commit
    if snapshot.continues:
        response.headers["X-Comity-Continues"] = snapshot.continues.header
    for topic, text in snapshot.notices:
        words = (
            clean(f"{topic} {snapshot.repository}; {snapshot.repository}: {text}", MAX_NOTICE)
            .encode("ascii", "replace")
            .decode("ascii")
        )
        response.headers.append("X-HF-Warning", words)
    return response


def _raw(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.decode("ascii")


def _form(kind: str, body: bytes) -> tuple[list[str], bool]:
    """Parse `paths` and `expand` from a form or JSON. Raises Malformed."""
    if kind.startswith("application/json"):
        document = parse_json(body, limit=MAX_FORM, what="request")
        paths = document.get("paths", []) if isinstance(document, dict) else None
        if not isinstance(paths, list) or len(paths) > views.PATHS or not all(isinstance(p, str) for p in paths):
            raise Malformed("the request cannot be read", why="expected {paths: [text, …]}")
        return [str(path) for path in paths], bool(isinstance(document, dict) and document.get("expand"))
    try:
        form = parse_qs(body.decode("utf-8"), max_num_fields=views.PATHS)
    except ValueError as error:
        raise Malformed("the request cannot be read", why=str(error)) from error
    return form.get("paths", []), views.read_bool(form.get("expand", [""])[0])


def git_routes() -> list[DeclaredRoute]:
    return [DeclaredRoute("/{repository:path}/info/refs", info_refs, EVERYBODY)]


async def info_refs(request: Request) -> Response:
    """Return the error that Git prints. Raises NotFound for what is no request of Git."""
    service = request.query_params.get("service", "")
    if service not in SERVICES:
        raise NotFound("no such address", code="NO-SUCH-ROUTE")
    name = _NAME.match(f"/{request.path_params['repository']}")
    sentence = f"this is a Comity node and no Git server: use comity pull {name[1] if name else 'NAMESPACE/NAME'}"
    if service == "git-receive-pack":
        sentence = "this is a Comity node and no Git server: publish a folder with comity publish"
    body = _packet(f"# service={service}\n") + b"0000" + _packet(f"ERR {sentence}\n")
    return Response(body, media_type=f"application/x-{service}-advertisement", headers={"Cache-Control": "no-store"})


def _packet(line: str) -> bytes:
    data = line.encode()
    return b"%04x" % (len(data) + 4) + data
