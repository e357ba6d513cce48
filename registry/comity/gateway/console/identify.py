"""The page that says what a file is: which published artifacts have it, by whom, and what this node's policy says.

The digest is put in, or a file whose digest the node computes. That a file is in an artifact is read from the
artifact's manifest; the index of files only says which manifests to read. Artifacts of members come before those of
others, and of either those that this node read first, so that a later publication displaces no earlier one. Nothing is
told of repositories that the reader may not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from starlette.responses import Response

from comity.content.gateway_tokens import ALL_REPOSITORIES
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.page import PREFIX, WITH_FORMS, PageMaker, Reader
from comity.gateway.console.posted_file import FILE, MAX_FILE
from comity.gateway.console.sign_in import see_other
from comity.gateway.console.state import StateReader
from comity.gateway.declared_routes import DeclaredRoute
from comity.gateway.http import ConnectionSlots
from comity.gateway.hub.catalogue import Catalogue
from comity.ledger.proven import ProvenPublication
from comity.node.file_index import FileIndexReader, publication_of
from comity.node.home import ServedHome
from comity.node.reading import ReadState
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, PolicyNotMet, Untrusted
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statement import Author, parse_entry
from comity.trust.statement_kinds import PUBLISHED
from comity.trust.statements import Published

PATH: Final = f"{PREFIX}/identify"
LOOKED_AT: Final = 64
"""Artifacts of members, and of others, whose names are read for one answer."""
SHOWN: Final = 8
"""Artifacts that are judged for one answer."""
NAMES: Final = 16
"""Publications of one artifact that are read."""
OTHER_NAMES: Final = 3
LOOK_UPS: Final = 2
"""Answers that are made at once."""
_SHA256: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_SAYS: Final = re.compile(r"says ([0-9a-f]{64})\Z")
"""Whose word a notice is."""

_log: Final = structlog.get_logger("comity.gateway.console")


@frozen
class NamedFile:
    """An artifact that has the file, at `paths`. `publisher` is empty if members mirrored it and nobody signed it.
    `refusal`: why this node does not serve it; `refused`: its policy does not accept it, or its evidence is wrong."""

    name: str
    page: str
    publisher: str
    withdrawn: bool = False
    notices: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    refused: bool = False
    paths: tuple[str, ...] = ()
    size: int = 0
    other_names: tuple[str, ...] = ()


@frozen
class FileAnswer:
    """`more`: of other artifacts it is not known whether they have the file, or they are not shown; `unread`:
    statements that this node has still to look at; `limited`: the reader may read some repositories only."""

    digest: Digest
    found: tuple[NamedFile, ...]
    more: bool
    indexed: int
    unread: int
    limited: bool


class IdentifyPages:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        home: ServedHome,
        files: FileIndexReader | None,
        catalogue: Catalogue,
        states: StateReader,
        access: GatewayAccess,
        maker: PageMaker,
    ) -> None:
        """`files`: None at a front end, which has no index and says so."""
        self._ledger = home.ledger
        self._pools = home.pools
        self._membership = home.membership
        self._files = files
        self._catalogue = catalogue
        self._states = states
        self._access = access
        self._maker = maker
        self._slots = ConnectionSlots(LOOK_UPS, "look-ups of files")

    def routes(self) -> list[DeclaredRoute]:
        readers = self._access.for_readers()
        shown = self._maker.route(PATH, self.show, readers)
        if self._files is None:
            return [shown]
        return [shown, self._maker.route(PATH, self.posted, self._maker.file_form(readers))]

    async def show(self, reader: Reader) -> Response:
        given = reader.field("sha256").strip()
        wanted, answer = _SHA256.fullmatch(given.lower()), None
        if wanted and self._files is not None:
            answer = await self._answer(reader, self._files, Digest(wanted[1]))
        status, state = 400 if given and not wanted else 200, await self._states.now()
        values = {"given": given, "malformed": status == 400, "answer": answer, "most": MAX_FILE}
        return self._maker.render(reader, "identify.html", state, status, WITH_FORMS, **values)

    async def posted(self, reader: Reader) -> Response:
        return see_other(reader, PATH, sha256=reader.form[FILE])

    async def _answer(self, reader: Reader, files: FileIndexReader, digest: Digest) -> FileAnswer:
        reach = await self._access.reach(reader.request)
        readable = await self._access.readable_names(reader.request)
        async with self._slots.slot(reader.request.scope):
            progress, indexed, candidates, more = await self._pools.files(_indexed, files, digest)
            found = list[NamedFile]()
            for artifact in candidates:
                if len(found) == SHOWN:
                    more = True
                    break
                try:
                    found += await self._named(artifact, digest, readable)
                except ComityError as error:  # of one artifact, whose manifest is lost here
                    _log.warning("an artifact was left out of an answer", artifact=artifact, why=str(error))
                    more = True
        unread = (progress.total or 0) - progress.done
        return FileAnswer(digest, tuple(found), more, indexed, unread, ALL_REPOSITORIES not in reach)

    async def _named(self, artifact: Digest, file: Digest, readable: Callable[[str], bool]) -> list[NamedFile]:
        """The artifact under the first of its names that the reader may read; none if it has not the file or no such
        name. Raises as `LocalArtifacts.manifest`."""
        found = await self._ledger.run(
            self._ledger.tables.proven.publications_of, artifact, NAMES, self._membership.precedence
        )
        published = [each for each in found.found if readable(each.repository.removeprefix(UPSTREAM))]
        if not published:
            return []
        item = publication_of(parse_entry(published[0].line).statement).manifest
        manifest = await self._pools.files(self._catalogue.local_artifacts.manifest, item)
        entries = [entry for entry in manifest.files if entry.sha256 == file]
        if not entries:
            return []
        judged = await self._judged(published[0])
        others = tuple(dict.fromkeys(each.name for each in published if each.name != judged.name))
        paths = tuple(entry.path for entry in entries)
        return [replace(judged, paths=paths, size=entries[0].size, other_names=others[:OTHER_NAMES])]

    async def _judged(self, published: ProvenPublication) -> NamedFile:
        """What this node says of a publication."""
        repository = published.repository.removeprefix(UPSTREAM)
        page = f"/{repository}/tree/sha256:{published.artifact}"
        signed = published.predicate == PUBLISHED
        try:
            snapshot = await self._catalogue.snapshot(repository, f"sha256:{published.artifact}")
        except ComityError as error:
            by = await self._ledger.run(self._states.author, Author("identity", published.publisher)) if signed else ""
            refused = isinstance(error, PolicyNotMet | Untrusted)
            return NamedFile(published.name, page, by, refusal=str(error), refused=refused)
        if not isinstance(snapshot.claim, Published):
            return NamedFile(f"{snapshot.repository}@{snapshot.commit}", page, "", notices=snapshot.notices)
        by = await self._ledger.run(self._states.author, Author("identity", snapshot.claim.by))
        said = (_SAYS.search(text) for _, text in snapshot.notices)
        named = await self._ledger.run(self._states.namer, {Digest(who[1]) for who in said if who})
        notices = tuple((topic, named(text)) for topic, text in snapshot.notices)
        withdrawn = await self._catalogue.is_withdrawn(repository, published.artifact)
        return NamedFile(f"{snapshot.repository}@{snapshot.label}", page, by, withdrawn, notices)


def _indexed(files: FileIndexReader, file: Digest) -> tuple[ReadState, int, list[Digest], bool]:
    """Blocking. How far the index is, its files, and which artifacts have this one, as far as they are asked for."""
    return files.progress(), files.index.count, *files.index.artifacts_with(file, LOOKED_AT)
