"""Pull one artifact to this machine: resolve the reference, gather evidence, judge, fetch, verify, place.

(1) evidence             statements, documents and proofs of all nodes, and of an existing pack; the first files are
                         asked for meanwhile, and kept in memory (`first_files`)
(2) early verdict        refuse what no download would change, before the first byte is written
(3) local files          files in place are hashed again; pieces of other placed files are reused
(4) fetch                from all nodes that have it; each piece and file is verified; resumable
(5) final verdict        the policy decides about the hashed and inspected files
(6) place                read-only, with the evidence pack

Invalid bytes are never placed. If the policy is not met nothing is placed; verified data stay in `.comity/incoming` of
the destination for the next attempt.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.evidence_pack import read_pack
from comity.formats.inspect import inspect, inspect_name
from comity.rules.collected import CollectedEvidence
from comity.rules.refusal import refusal
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable
from comity.trust.evidence import Evidence, EvidenceReader, FoundFile, Row, Verdict
from comity.trust.frozen import frozen
from comity.trust.names import Name, is_segment
from comity.trust.policy import Policy
from comity.trust.rows.approvals import APPROVALS_ROW
from comity.trust.rows.content import FILE_SAFETY_ROW, refused_files
from comity.trust.verify import verify

from comity_client.events import Advised, Note, OnEvent, PolicyJudged, Progress, Resolved, Started, in_thread
from comity_client.evidence.collect import collect_more
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.proofs import complete, fetch_ahead, fetch_object
from comity_client.evidence.resolve import DecidedArtifact, Resolution, resolve
from comity_client.hub_cache import default_cache
from comity_client.pull.destinations import (
    Destination,
    FolderDestination,
    HubCacheDestination,
    allocated,
    free_space,
    has_file,
    place_file,
    place_small,
    read_reference,
    require_space,
    write_pack,
)
from comity_client.pull.fetch import (
    Layouts,
    PullFetch,
    holders,
    locked,
    node_sources,
)
from comity_client.pull.first_files import SHARES, FirstFiles, first_files, first_of
from comity_client.pull.model_sig import fetched_model_sig, keyless_for, policy_before_fetch
from comity_client.pull.offline import needed_beside, pulled_before
from comity_client.pull.order import PullContext, Pulled, PullOrder
from comity_client.pull.small_files import SMALL_FILES, is_small
from comity_client.session import RemoteNode


def announced(manifest: Manifest) -> Iterator[FoundFile]:
    """Return the files as the manifest lists them, inspected by name only."""
    return (FoundFile(e.path, e.size, e.sha256, inspection=inspect_name(e.path)) for e in manifest.files)


def inspect_files(destination: Destination, entries: Sequence[FileEntry], here: Collection[str]) -> list[FoundFile]:
    """Inspect the hashed files of `entries`: those in `here` at their place, the others in `incoming`. Raises
    Unavailable."""
    return [_found(destination, entry, entry.path in here) for entry in entries]


def _found(destination: Destination, entry: FileEntry, here: bool) -> FoundFile:
    paths = [destination.incoming / entry.sha256, destination.path_of(entry)]
    return inspected(entry, next((path for path in (reversed(paths) if here else paths) if path.exists()), paths[-1]))


def inspected(entry: FileEntry, path: Path) -> FoundFile:
    """Return what the content of a file of an artifact is, whose bytes were hashed; `path`: where it is. Raises
    Unavailable."""
    with disk_errors(f"{path} was not inspected"), path.open("rb", buffering=0) as file:
        seen = inspect(file, entry.path, entry.size)
    return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)


async def pull(context: PullContext, order: PullOrder) -> Pulled:
    """Fetch an artifact, verified. If no node gives it, the complete copy of an exact version that is here already is
    the answer, verified again (`Pulled.cache`).

    Raises as `resolve` does, and Untrusted, PolicyNotMet, Unavailable, NotFound, OutOfSpace, Conflict; then nothing is
    placed.
    """
    inquiry = context.inquiry
    try:
        reference = await read_reference(inquiry.session, order.reference)
        resolution = await resolve(inquiry, reference, context.bindings, context.names, fetch_manifest)
    except Unavailable as error:
        return await in_thread(partial(pulled_before, context, order, error), context.on_event)
    async with first_files() as first:
        return await _pull(context, order, resolution, first)


async def _pull(context: PullContext, order: PullOrder, resolution: Resolution, first: FirstFiles) -> Pulled:
    """Steps (1) to (6) of a pull whose artifact is known."""
    policy, on_event, judge = context.inquiry.policy, context.on_event, judge_of(resolution)
    found = await gather(context, order, resolution, first)
    manifest, destination = found.manifest, found.destination
    early = found.evidence_with(announced(manifest))
    _conclude(judge(early, policy_before_fetch(policy, manifest)), found, on_event, final=False)
    async with _prepared(destination):
        here = await _in_place(destination, manifest, on_event)
        missing = [entry for entry in found.wanted if entry.path not in here]
        fetching = await _fetch(context, found, missing, first)
        there = here.union(entry.path for entry in missing)
        complete = [entry for entry in manifest.files if entry.path in there]
        left_out = [entry.path for entry in manifest.files if entry.path not in there]
        model_sig = await asyncio.to_thread(fetched_model_sig, destination, complete, missing)
        files = await asyncio.to_thread(inspect_files, destination, complete, here)
        evidence = found.evidence_with(files, partial=bool(left_out), model_sig=model_sig)
        verdict = judge(evidence, policy)
        _conclude(verdict, found, on_event, final=True)
        await _place(destination, missing, on_event)
        kept, chains = found.evidence.proofs, fetching.chains
        await asyncio.to_thread(write_pack, destination.folder, evidence, kept, missing=left_out, chains=chains)
        await asyncio.to_thread(destination.finish, complete)
    await asyncio.to_thread(fetching.remember, missing)
    return Pulled(
        title=resolution.title,
        artifact=resolution.artifact,
        folder=destination.folder,
        verdict=verdict,
        files=len(found.wanted),
        bytes=sum(entry.size for entry in found.wanted),
        here=sum(entry.size for entry in found.wanted if entry.path in here),
        tally=fetching.tally,
        alarms=tuple(str(alarm) for alarm in found.alarms),
        bases=needed_beside(found.evidence.circumstances(context.inquiry.session.reader), resolution.current),
    )


@frozen
class Gathered:
    """What is known before the first file is fetched. `alarms` are contradictions of logs."""

    resolution: Resolution
    manifest: Manifest
    wanted: Sequence[FileEntry]
    destination: Destination
    layouts: Layouts
    holding: Sequence[RemoteNode]
    evidence: CollectedEvidence
    pieces: bytes
    alarms: Sequence[ComityError]

    def evidence_with(
        self, files: Iterable[FoundFile], *, partial: bool = False, model_sig: bytes | None = None
    ) -> Evidence:
        """Return the evidence as a verifier reads it, with files as found."""
        found, manifest = tuple(files), self.manifest.encode()
        return self.evidence.evidence(manifest, found, partial=partial, pieces=self.pieces, model_sig=model_sig)


def judge_of(resolution: Resolution) -> Callable[[Evidence, Policy], Verdict]:
    """Return `verify` with what this session has read, to whom the name belongs, and which commit was asked for."""
    inquiry = resolution.inquiry
    keyless, reader = keyless_for(inquiry.policy), inquiry.session.reader
    return partial(verify, keyless=keyless, reader=reader, publisher=resolution.publisher, commit=resolution.commit)


def fetch_manifest(inquiry: Inquiry, decision: DecidedArtifact) -> None:
    """Begin to fetch the manifest, and what the statement that decided names: it is needed in every case."""
    named = (decision.chosen.published.pieces.digest,) if decision.chosen else ()
    fetch_ahead(inquiry.session, (decision.artifact, *named))


async def gather(
    context: PullContext, order: PullOrder, resolution: Resolution, first: FirstFiles | None = None
) -> Gathered:
    """Step (1): the manifest, and evidence of the nodes and of an earlier pull.

    Args:
        first: asks meanwhile for the first files, of those nodes that hold a copy and have answered.
    """
    on_event, session = context.on_event, resolution.inquiry.session
    _announce(on_event, resolution)
    fetch_ahead(session, (item.digest for item in resolution.evidence.documents()))
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    wanted = _selected(manifest, order.include, order.exclude)
    destination = destination_of(resolution, order, manifest)
    holding = holders(session, resolution.evidence.claims, manifest.digest)
    published = resolution.publication.published if resolution.publication else None
    layouts = Layouts.named(session, manifest, resolution.evidence.claims, published, holding)
    layouts.begin(wanted)
    if first is not None and (lacking := await asyncio.to_thread(_lacking, context, destination, wanted)):
        answering = session.soonest((node for node in holding if node.answers), SHARES)
        first.begin(node_sources(answering), lacking)
    before = _existing_pack(destination.folder, session.reader, on_event)
    evidence = await collect_more(resolution.inquiry, resolution.evidence, before.claims)
    for note in evidence.notes:
        on_event(Note(note))
    evidence, alarms = await complete(session, context.seen_logs, evidence, before, on_event)
    pieces = await layouts.document()
    return Gathered(resolution, manifest, wanted, destination, layouts, holding, evidence, pieces, alarms)


def _lacking(context: PullContext, destination: Destination, wanted: Sequence[FileEntry]) -> list[FileEntry]:
    """Of the files that may be asked for first those of which nothing is on this machine. Blocking."""
    hashes = {bytes.fromhex(entry.sha256): entry for entry in first_of(wanted)}
    try:
        elsewhere = context.placed.find_all(list(hashes))
    except Unavailable:
        elsewhere = {}  # the index is a hint

    def here(entry: FileEntry) -> bool:
        return destination.path_of(entry).exists() or (destination.incoming / entry.sha256).exists()

    return [entry for digest, entry in hashes.items() if not elsewhere.get(digest) and not here(entry)]


@asynccontextmanager
async def _prepared(destination: Destination) -> AsyncIterator[None]:
    """Inside the block the destination is ready, and no other command removes what this pull found there or placed."""
    await asyncio.to_thread(destination.prepare)
    with ExitStack() as held:
        await asyncio.to_thread(held.enter_context, destination.in_use())
        yield


@frozen
class PullPlan:
    """What a pull would do. `here` are the paths of files of the right size that are in place, not hashed;
    `begun_bytes` of the others are there from an interrupted pull; `free_bytes` is the free space of the disk of
    `folder`."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: tuple[FileEntry, ...]
    here: frozenset[str]
    begun_bytes: int
    free_bytes: int

    @property
    def here_bytes(self) -> int:
        return sum(entry.size for entry in self.files if entry.path in self.here)

    @property
    def missing_bytes(self) -> int:
        return _distinct_size(entry for entry in self.files if entry.path not in self.here) - self.begun_bytes


async def plan_pull(context: PullContext, order: PullOrder) -> PullPlan:
    """Steps (1) and (2) of a pull: fetches the manifest and evidence, writes nothing. Raises as `pull`, if no download
    would change the verdict."""
    reference = await read_reference(context.inquiry.session, order.reference)
    resolution = await resolve(context.inquiry, reference, context.bindings, context.names, fetch_manifest)
    found = await gather(context, order, resolution)
    early, destination = found.evidence_with(announced(found.manifest)), found.destination
    verdict = judge_of(resolution)(early, policy_before_fetch(context.inquiry.policy, found.manifest))
    _conclude(verdict, found, context.on_event, final=False)
    here = frozenset(entry.path for entry in found.wanted if _has_size(destination.path_of(entry), entry))
    begun = _begun_size(destination, [entry for entry in found.wanted if entry.path not in here])
    where, free = destination.folder, free_space(destination.folder)
    return PullPlan(resolution.title, resolution.artifact, where, verdict, tuple(found.wanted), here, begun, free)


def _distinct_size(entries: Iterable[FileEntry]) -> int:
    return sum({entry.sha256: entry.size for entry in entries}.values())


def _begun_size(destination: Destination, entries: Iterable[FileEntry]) -> int:
    """Bytes of these files that an interrupted pull left, at most."""
    sizes = {entry.sha256: entry.size for entry in entries}
    return sum(min(allocated(destination.incoming / digest), size) for digest, size in sizes.items())


def _has_size(path: Path, entry: FileEntry) -> bool:
    with disk_errors(f"{path} was not read"):
        return path.is_file() and path.stat().st_size == entry.size


def destination_of(resolution: Resolution, order: PullOrder, manifest: Manifest) -> Destination:
    """Return where the files go. Raises NotFound (NO-NAME) for an artifact that has no place in a cache."""
    if order.to is not None:
        return FolderDestination(order.to, manifest)
    reference, cache = resolution.reference, order.hub_cache or default_cache()
    newest = reference.version is None and reference.digest is None
    if resolution.name is not None:
        return HubCacheDestination(cache, resolution.name, manifest, newest=newest)
    upstream = resolution.mirroring.upstream_of(resolution.commit if reference.mirrored else None)
    if upstream is None:
        hint = f"comity pull {reference} --out DIR"
        raise NotFound("an artifact without a name cannot be stored in a Hub cache", hint=hint, code="NO-NAME")
    namespace, _, repository = upstream.repository.partition("/")
    # What a node asked of its upstream is the word of that node: it moves no branch of this cache.
    asked = reference.version if reference.mirrored and reference.version else upstream.commit
    named = Name(namespace, repository, asked if is_segment(asked) else upstream.commit)
    return HubCacheDestination(cache, named, manifest, newest=newest, commit=upstream.commit)


def _announce(on_event: OnEvent, resolution: Resolution) -> None:
    own = resolution.publisher
    on_event(Resolved(resolution.title, resolution.artifact, resolution.basis, own))
    for rival in resolution.rivals:
        on_event(Note(f"{rival} claims the name too; comity trust bind decides"))
    for advisory in resolution.advisories:
        on_event(Advised(advisory, advisory.by.id == own))


def _selected(manifest: Manifest, include: Sequence[str], exclude: Sequence[str]) -> list[FileEntry]:
    wanted = [
        entry
        for entry in manifest.files
        if (not include or _matches(entry.path, include)) and not _matches(entry.path, exclude)
    ]
    if not wanted and (include or exclude):
        paths = ", ".join(entry.path for entry in manifest.files[:5])
        given = " ".join([*include, *(f"without {pattern}" for pattern in exclude)])
        raise NotFound("no file matches", why=f"{given}; there are {paths}, …", code="NO-FILE-MATCHES")
    return wanted


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _existing_pack(folder: Path, reader: EvidenceReader, on_event: OnEvent) -> Evidence:
    try:
        return read_pack(folder, reader)
    except (Malformed, Unavailable) as error:
        on_event(Note(f"the existing evidence pack is not used: {error}"))
        return Evidence(None, None)


def _conclude(verdict: Verdict, found: Gathered, on_event: OnEvent, *, final: bool) -> None:
    """Steps (2) and (5): raise the refusal, if the verdict is one. If a log contradiction caused it, that error is
    raised."""
    on_event(PolicyJudged(verdict, final))
    if (refused := refusal(verdict, found.resolution.title, "the policy", _next_step)) is not None:
        raise found.alarms[0] if found.alarms else refused


async def _in_place(destination: Destination, manifest: Manifest, on_event: OnEvent) -> frozenset[str]:
    """Step (3): return the paths whose bytes are in place and right, hashed now."""

    def hash_files(report: OnEvent) -> frozenset[str]:
        valid: dict[Path, bool] = {}
        for entry in manifest.files:
            path_of = destination.path_of(entry)
            if path_of in valid:
                continue
            valid[path_of] = has_file(path_of, entry, _counting(report, entry.path))
            if not valid[path_of] and path_of.exists() and not destination.replaceable(entry):
                why = f"{entry.path} has other bytes"
                raise Conflict(
                    f"{destination.folder} has other content", why=why, hint="move it away", code="FOLDER-NOT-EMPTY"
                )
        return frozenset(entry.path for entry in manifest.files if valid[destination.path_of(entry)])

    return await in_thread(hash_files, on_event)


def _counting(on_event: OnEvent, path: str) -> Callable[[int], None]:
    return lambda count: on_event(Progress(path, count))


async def _fetch(context: PullContext, found: Gathered, missing: Sequence[FileEntry], first: FirstFiles) -> PullFetch:
    """Step (4)."""
    destination, on_event = found.destination, context.on_event
    sources = node_sources([*found.holding, *found.resolution.inquiry.session.nodes])
    fetching = PullFetch(
        destination,
        found.layouts,
        sources,
        context.placed,
        context.limits,
        first,
        on_event,
    )
    distinct = list({entry.sha256: entry for entry in missing}.values())
    begun = _begun_size(destination, distinct)
    total = sum(entry.size for entry in found.wanted)
    work = sum(entry.size for entry in distinct)
    on_event(Started(len(found.wanted), total, total - sum(entry.size for entry in missing), work))
    placed = {destination.path_of(entry): entry.size for entry in missing}
    require_space(destination.incoming, sum(placed.values()) - begun)
    await fetching.run(distinct)
    return fetching


async def _place(destination: Destination, missing: Sequence[FileEntry], on_event: OnEvent) -> None:
    """Step (6). Raises Conflict if another artifact was placed there meanwhile."""
    await asyncio.to_thread(destination.prepare)
    groups: dict[Digest, list[FileEntry]] = {}
    for entry in missing:
        groups.setdefault(entry.sha256, []).append(entry)
    incoming = destination.incoming
    placing = {same[0]: list(dict.fromkeys(map(destination.path_of, same))) for same in groups.values()}
    if small := {entry: paths for entry, paths in placing.items() if is_small(entry)}:
        async with locked(incoming, SMALL_FILES, next(iter(small)).path, on_event):
            await asyncio.to_thread(place_small, incoming, small)
    for entry, paths in placing.items():
        if entry not in small:
            async with locked(incoming, entry.sha256, entry.path, on_event):
                await asyncio.to_thread(place_file, incoming / entry.sha256, paths, entry)


MAX_ALLOWED: Final = 4
"""Files that the line of a policy in an error accepts."""


def _next_step(failing: Sequence[Row], title: str) -> str:
    """What helps against the first of these rows that this user can do something about."""
    if any(row.summary == "no charter is pinned" for row in failing):
        return "pin a federation in the policy; one with your pins is written by: comity policy new --out FILE"
    if refused := next((row for row in failing if row.name == FILE_SAFETY_ROW and row.state == "fail"), None):
        digests = ", ".join(f'"sha256:{digest}"' for digest in refused_files(refused)[:MAX_ALLOWED])
        accept = f"accept them with this line of a policy: [safety] allow = [{digests}]"
        return f"leave these files out: comity pull {title} --exclude PATTERN   or {accept}"
    if any(row.name == APPROVALS_ROW for row in failing):
        return f"comity approvals ls {title} --policy FILE"
    for row in failing:
        if row.name == "key policy" and row.hint:
            return row.hint.replace("REF", title)
    if any(row.name == "time" for row in failing):
        return "get newer evidence with the next pull, or review as_of and max_age_days: comity policy explain FILE"
    if any(row.cause == "false" for row in failing):
        return "comity status"
    if all(row.cause == "missing" for row in failing):
        return f"try again in a minute: comity pull {title}"
    wait = "wait for more cosignatures, or " if any(row.name == "cosigners" for row in failing) else ""
    return f"{wait}name a policy: comity pull {title} --policy FILE"
