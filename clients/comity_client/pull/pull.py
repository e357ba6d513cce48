"""Pull one artifact to this machine: gather evidence, apply the policy, fetch, verify, place.

(1) evidence             claims, proofs and objects of all nodes, and of an existing pack
(2) early verdict        refuse what no download would change, before the first byte
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.content.durable import disk_errors
from comity.formats.inspect import inspect, inspect_name
from comity.rules.refusal import refusal
from comity.transfer.scheduler import TransferLimits
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable
from comity.trust.evidence import Evidence, FoundFile, Row, Verdict
from comity.trust.names import Name, is_segment
from comity.trust.policy import Policy
from comity.trust.rows.approvals import APPROVALS_ROW
from comity.trust.rows.content import FILE_SAFETY_ROW, refused_files
from comity.trust.verify import verify
from comity.verifier import read_pack
from comity_client.events import Advised, Note, OnEvent, PolicyJudged, Progress, Resolved, Started, in_thread
from comity_client.evidence.proofs import (
    collect_consistency,
    collect_evaluation_proofs,
    collect_objects,
    collect_proofs,
    fetch_object,
)
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import (
    Destination,
    EvidencePack,
    FolderDestination,
    HubCacheDestination,
    allocated,
    default_cache,
    free_space,
    has_file,
    place_file,
    require_space,
)
from comity_client.pull.fetch import (
    BytesBySource,
    Layouts,
    PlacedPieces,
    PullFetch,
    holders,
    locked,
    named_indexes,
    node_sources,
)
from comity_client.pull.model_sig import fetched_model_sig, keyless_for, policy_before_fetch
from comity_client.seen import SeenLogs
from comity_client.session import RemoteNode, Session

if TYPE_CHECKING:
    from comity_client.pull.offline import CacheBasis


def announced(manifest: Manifest) -> Iterator[FoundFile]:
    """Return the files as the manifest lists them, inspected by name only."""
    return (FoundFile(e.path, e.size, e.sha256, inspection=inspect_name(e.path)) for e in manifest.files)


def inspect_files(destination: Destination, entries: Sequence[FileEntry], here: Collection[str]) -> list[FoundFile]:
    """Inspect the hashed files of `entries`: those in `here` at their place, the others in `incoming`. Raises
    Unavailable."""
    return [_found(destination, entry, entry.path in here) for entry in entries]


def _found(destination: Destination, entry: FileEntry, here: bool) -> FoundFile:
    paths = [destination.incoming / entry.sha256, destination.path_of(entry)]
    path = next((path for path in (reversed(paths) if here else paths) if path.exists()), paths[-1])
    with disk_errors(f"{path} was not inspected"), path.open("rb", buffering=0) as file:
        seen = inspect(file, entry.path, entry.size)
    return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)


@dataclass(frozen=True, slots=True)
class Pulled:
    """Result of a pull. `folder` has the files by path. `here` counts bytes that were in place already; `alarms` are
    log contradictions found. The verdict of a partial pull has status 8. `cache`: no node answered, and the copy here,
    verified again, is the answer."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: int
    bytes: int
    here: int
    tally: BytesBySource
    alarms: tuple[str, ...]
    cache: CacheBasis | None = None


@dataclass(frozen=True, slots=True)
class PullContext:
    """The session, stores, policy and limits of a pull."""

    session: Session
    seen_logs: SeenLogs
    placed: PlacedPieces
    policy: Policy
    limits: TransferLimits
    on_event: OnEvent


async def pull(
    context: PullContext,
    resolution: Resolution,
    destination_for: Callable[[Manifest], Destination],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Pulled:
    """Fetch the artifact of `resolution`, verified, to the destination that `destination_for` returns for its manifest.

    Args:
        include: patterns as in Hub tools (`*.safetensors`); only matching files are pulled, a partial pull.
        exclude: patterns of files that are left out, also of the included ones.

    Raises Untrusted, PolicyNotMet, Unavailable, NotFound, OutOfSpace, Conflict; then nothing is placed.
    """
    _announce(context.on_event, resolution)
    data = await fetch_object(context.session, resolution.artifact)
    manifest = Manifest.parse(data)
    wanted = _selected(manifest, include, exclude)
    destination = destination_for(manifest)
    holding = holders(context.session, resolution.gathered.readings, manifest.digest)
    layouts = _layouts(context.session, resolution, manifest, holding)
    pack, alarms = await _evidence(context, resolution, destination, data, await layouts.document())
    early = replace(context, policy=policy_before_fetch(context.policy, manifest))
    _judge(pack, announced(manifest), early, resolution, alarms, final=False)
    fetching = PullFetch(
        destination.incoming,
        destination.path_of,
        layouts,
        node_sources([*holding, *context.session.nodes]),
        context.placed,
        context.limits,
        context.on_event,
    )
    async with _prepared(destination):
        here = await _in_place(destination, manifest, context.on_event)
        missing = [entry for entry in wanted if entry.path not in here]
        await _fetch(fetching, destination, missing, wanted, context.on_event)
        there = here.union(entry.path for entry in missing)
        complete = [entry for entry in manifest.files if entry.path in there]
        pack = replace(pack, missing=tuple(entry.path for entry in manifest.files if entry.path not in there))
        pack = replace(pack, model_sig=await asyncio.to_thread(fetched_model_sig, destination, complete, missing))
        found = await asyncio.to_thread(inspect_files, destination, complete, here)
        verdict = _judge(pack, found, context, resolution, alarms, final=True)
        await _place(destination, missing, complete, replace(pack, chains=fetching.chains), context.on_event)
    await asyncio.to_thread(_remember, context, destination, missing, fetching)
    return Pulled(
        title=resolution.title,
        artifact=resolution.artifact,
        folder=destination.folder,
        verdict=verdict,
        files=len(wanted),
        bytes=sum(entry.size for entry in wanted),
        here=sum(entry.size for entry in wanted if entry.path in here),
        tally=fetching.tally,
        alarms=tuple(str(alarm) for alarm in alarms),
    )


@asynccontextmanager
async def _prepared(destination: Destination) -> AsyncIterator[None]:
    """Inside the block the destination is ready, and no other command removes what this pull found there or placed."""
    await asyncio.to_thread(destination.prepare)
    with ExitStack() as held:
        await asyncio.to_thread(held.enter_context, destination.in_use())
        yield


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would do. `here` are the paths of files of the right size that are in place, not hashed;
    `free_bytes` is the free space of the disk of `folder`."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: tuple[FileEntry, ...]
    here: frozenset[str]
    free_bytes: int

    @property
    def missing_bytes(self) -> int:
        return sum({entry.sha256: entry.size for entry in self.files if entry.path not in self.here}.values())


async def plan_pull(
    context: PullContext,
    resolution: Resolution,
    destination_for: Callable[[Manifest], Destination],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> PullPlan:
    """Steps (1) and (2) of a pull: fetches the manifest and evidence, writes nothing. Raises as `pull`, if no download
    would change the verdict."""
    _announce(context.on_event, resolution)
    data = await fetch_object(context.session, resolution.artifact)
    manifest = Manifest.parse(data)
    wanted, destination = _selected(manifest, include, exclude), destination_for(manifest)
    layouts = _layouts(context.session, resolution, manifest)
    pack, alarms = await _evidence(context, resolution, destination, data, await layouts.document())
    early = replace(context, policy=policy_before_fetch(context.policy, manifest))
    verdict = _judge(pack, announced(manifest), early, resolution, alarms, final=False)
    here = frozenset(entry.path for entry in wanted if _has_size(destination.path_of(entry), entry))
    free = free_space(destination.folder)
    return PullPlan(resolution.title, resolution.artifact, destination.folder, verdict, tuple(wanted), here, free)


def _has_size(path: Path, entry: FileEntry) -> bool:
    with disk_errors(f"{path} was not read"):
        return path.is_file() and path.stat().st_size == entry.size


def destination_of(resolution: Resolution, manifest: Manifest, to: Path | None, hub_cache: Path | None) -> Destination:
    """Return the folder `to`, else the place in a Hub cache (default: the user's own). Raises NotFound (NO-NAME) for an
    artifact that has no place in a cache."""
    if to is not None:
        return FolderDestination(to, manifest)
    upstream = resolution.mirroring.upstream
    if upstream and (resolution.reference.mirrored or not resolution.publication):
        namespace, _, repository = upstream.repository.partition("/")
        named = Name(namespace, repository, upstream.requested if is_segment(upstream.requested) else upstream.commit)
        return HubCacheDestination(hub_cache or default_cache(), named, manifest, newest=False, commit=upstream.commit)
    if resolution.publication is None:
        hint = f"comity pull {resolution.reference} --out DIR"
        raise NotFound("an artifact without a name cannot be stored in a Hub cache", hint=hint, code="NO-NAME")
    newest = resolution.reference.version is None and resolution.reference.digest is None
    name = resolution.publication.published.name
    return HubCacheDestination(hub_cache or default_cache(), name, manifest, newest=newest)


def _announce(on_event: OnEvent, resolution: Resolution) -> None:
    on_event(Resolved(resolution.title, resolution.artifact, resolution.basis))
    own = resolution.publication.publisher.id if resolution.publication else None
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


def _layouts(
    session: Session, resolution: Resolution, manifest: Manifest, holding: Collection[RemoteNode] = ()
) -> Layouts:
    first = resolution.publication.published.pieces.digest if resolution.publication else None
    return Layouts(session, manifest, named_indexes(resolution.gathered.readings, manifest.digest, first), holding)


async def _evidence(
    context: PullContext, resolution: Resolution, destination: Destination, manifest: bytes, pieces: bytes
) -> tuple[EvidencePack, list[ComityError]]:
    """Step (1): evidence of the nodes, and of an earlier pull."""
    before, on_event = _existing_pack(destination.folder, context), context.on_event
    gathered = await resolution.collector.with_carried(before.claims)
    for note in gathered.notes:
        on_event(Note(note))
    claims = resolution.collector.claims(gathered)
    collected = await collect_proofs(context.session, context.seen_logs, claims, before.proofs, on_event)
    consistency = await collect_consistency(context.session, claims.claims.publications, collected.proofs)
    objects = {**before.objects, **consistency, **await collect_objects(context.session, claims.documents(), on_event)}
    ordered = await collect_evaluation_proofs(
        context.session, context.seen_logs, claims, objects, before.proofs, on_event
    )
    proofs = (*collected.proofs, *ordered.proofs)
    pack = EvidencePack(manifest, pieces, gathered.lines, proofs, objects, unread=gathered.bounds, cut=gathered.cut)
    return pack, [*collected.alarms, *ordered.alarms]


def _existing_pack(folder: Path, context: PullContext) -> Evidence:
    try:
        return read_pack(folder, context.session.reader)
    except (Malformed, Unavailable) as error:
        context.on_event(Note(f"the existing evidence pack is not used: {error}"))
        return Evidence(None, None)


def _judge(
    pack: EvidencePack,
    files: Iterable[FoundFile],
    context: PullContext,
    resolution: Resolution,
    alarms: Sequence[ComityError],
    *,
    final: bool,
) -> Verdict:
    """Steps (2) and (5). If a log contradiction caused the refusal, that error is raised."""
    verdict = verify(
        pack.evidence(files),
        context.policy,
        keyless=keyless_for(context.policy),
        reader=context.session.reader,
        publisher=resolution.publication.publisher.id if resolution.publication else None,
    )
    context.on_event(PolicyJudged(verdict, final))
    if (refused := refusal(verdict, resolution.title, "the policy", _next_step)) is not None:
        raise alarms[0] if alarms else refused
    return verdict


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


async def _fetch(
    fetching: PullFetch,
    destination: Destination,
    missing: Sequence[FileEntry],
    wanted: Sequence[FileEntry],
    on_event: OnEvent,
) -> None:
    """Step (4)."""
    distinct = list({entry.sha256: entry for entry in missing}.values())
    begun = sum(min(allocated(destination.incoming / entry.sha256), entry.size) for entry in distinct)
    total = sum(entry.size for entry in wanted)
    work = sum(entry.size for entry in distinct)
    on_event(Started(len(wanted), total, total - sum(entry.size for entry in missing), work))
    placed = {destination.path_of(entry): entry.size for entry in missing}
    require_space(destination.incoming, sum(placed.values()) - begun)
    await fetching.run(distinct)


async def _place(
    destination: Destination,
    missing: Sequence[FileEntry],
    complete: Sequence[FileEntry],
    pack: EvidencePack,
    on_event: OnEvent,
) -> None:
    """Step (6). Raises Conflict if another artifact was placed there meanwhile."""
    await asyncio.to_thread(destination.prepare)
    groups: dict[Digest, list[FileEntry]] = {}
    for entry in missing:
        groups.setdefault(entry.sha256, []).append(entry)
    for digest, entries in groups.items():
        paths = list(dict.fromkeys(destination.path_of(entry) for entry in entries))
        async with locked(destination.incoming, entries[0], on_event):
            await asyncio.to_thread(place_file, destination.incoming / digest, paths, entries[0])
    await asyncio.to_thread(pack.write, destination.folder)
    await asyncio.to_thread(destination.finish, complete)


def _remember(
    context: PullContext, destination: Destination, missing: Sequence[FileEntry], fetching: PullFetch
) -> None:
    for entry in missing:
        records = fetching.records.get(entry.sha256)
        if records is None:
            continue  # another pull placed the file
        try:
            context.placed.remember(destination.path_of(entry), records)
        except Unavailable as error:
            context.on_event(Note(str(error)))
            return


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
