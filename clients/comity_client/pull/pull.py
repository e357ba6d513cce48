"""Looking into the files of a pull before they are placed: whatever the policy refuses then never gets its name.

Mirror one artifact to this machine: from what is said about it to verified files in their place.

    (1) who says what        claims, proofs and objects of all nodes, and of a pack that is here already
    (2) early judgement      what no download would change is refused before the first byte
    (3) what is here         files in place are hashed again; pieces of other placed files are reused
    (4) fetch                from all nodes that have it, each piece and each file verified, resumable
    (5) judgement            the policy decides over what was hashed here
    (6) place                read-only, with the evidence pack beside

Bytes that fail are never placed. Where the policy is not met nothing is placed; what is verified stays in
`.comity/incoming` of the destination, so that the next try fetches none of it again.


From an artifact's evidence to its files on this machine: fetched, verified, placed, with their pack beside them."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comity.content.durable import disk_errors
from comity.formats.inspect import by_name, inspect
from comity.transfer.scheduler import TransferLimits
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable
from comity.trust.evidence import Evidence, FoundFile, Verdict
from comity.trust.policy import Policy
from comity.trust.verify import verify
from comity.verifier import read_pack
from comity_client.events import Advised, Note, OnEvent, PolicyJudged, Progress, Resolved, Started
from comity_client.evidence.gather import (
    beside,
    collect_growths,
    collect_objects,
    collect_proofs,
    fetch_object,
    gather_ancestors,
    kept,
    lines_around,
    refusal,
    vouched_documents,
)
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import Destination, Pack, allocated, holds, require_room, settle
from comity_client.pull.fetch import BytesBySource, Layouts, PlacedPieces, PullFetch, locked, named_indexes
from comity_client.pull.keyless import keyless_for
from comity_client.pull.model_sig import fetched_model_sig, judgeable_before
from comity_client.seen import SeenLogs, consistency_proofs
from comity_client.session import Session, node_sources


def announced(manifest: Manifest) -> Iterator[FoundFile]:
    """The files as they are going to be, with what their names tell of them."""
    return (FoundFile(e.path, e.size, e.sha256, inspection=by_name(e.path)) for e in manifest.files)


def look_into(place: Destination, entries: Sequence[FileEntry], here: Collection[str]) -> list[FoundFile]:
    """The files of `entries`, which were hashed already: those of `here` in their places, the others among what came
    in. Raises Unavailable."""
    return [_found(place, entry, entry.path in here) for entry in entries]


def _found(place: Destination, entry: FileEntry, here: bool) -> FoundFile:
    holders = [place.incoming / entry.sha256, place.holder(entry)]
    path = next((path for path in (reversed(holders) if here else holders) if path.exists()), holders[-1])
    with disk_errors(f"{path} was not looked into"), path.open("rb", buffering=0) as file:
        seen = inspect(file, entry.path, entry.size)
    return FoundFile(entry.path, entry.size, entry.sha256, inspection=seen)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did. `folder` holds the files under their paths. `here` counts bytes that were in place already;
    `alarms` are contradictions of logs that came up on the way. The verdict of a partial pull says so (status 8)."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: int
    bytes: int
    here: int
    tally: BytesBySource
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a pull works with: the nodes, and what this user remembers."""

    session: Session
    memory: SeenLogs
    placed: PlacedPieces
    policy: Policy
    limits: TransferLimits
    on_event: OnEvent


async def pull(
    tools: Tools, resolution: Resolution, place_at: Callable[[Manifest], Destination], include: Sequence[str] = ()
) -> Pulled:
    """Have what `resolution` stands for, verified, at the place that `place_at` chooses for its manifest.

    Args:
        include: patterns as the Hub's tools know them (`*.safetensors`); only matching files then, a partial pull.

    Raises Untrusted, PolicyNotMet, Unavailable, NotFound, OutOfSpace, Conflict; nothing is placed then.
    """
    _announce(tools.on_event, resolution)
    data = await fetch_object(tools.session, resolution.artifact)
    manifest = Manifest.parse(data)
    wanted = _included(manifest, include)
    place = place_at(manifest)
    layouts = _layouts(tools.session, resolution, manifest)
    pack, alarms = await _evidence(tools, resolution, place, data, await layouts.document())
    early = replace(tools, policy=judgeable_before(tools.policy, manifest))
    _judge(pack, announced(manifest), early, resolution, alarms, final=False)
    await asyncio.to_thread(place.prepare)
    here = await _in_place(place, manifest, tools.on_event)
    missing = [entry for entry in wanted if entry.path not in here]
    fetching = PullFetch(
        place.incoming, layouts, node_sources(tools.session.nodes), tools.placed, tools.limits, tools.on_event
    )
    await _fetch(fetching, place, missing, wanted, tools.on_event)
    there = here.union(entry.path for entry in missing)
    complete = [entry for entry in manifest.files if entry.path in there]
    pack = replace(pack, missing=tuple(entry.path for entry in manifest.files if entry.path not in there))
    pack = replace(pack, model_sig=await asyncio.to_thread(fetched_model_sig, place, complete, missing))
    found = await asyncio.to_thread(look_into, place, complete, here)
    verdict = _judge(pack, found, tools, resolution, alarms, final=True)
    await _place(place, missing, complete, pack, tools.on_event)
    await asyncio.to_thread(_remember, tools, place, missing, fetching)
    return Pulled(
        title=resolution.title,
        artifact=resolution.artifact,
        folder=place.folder,
        verdict=verdict,
        files=len(wanted),
        bytes=sum(entry.size for entry in wanted),
        here=sum(entry.size for entry in wanted if entry.path in here),
        tally=fetching.tally,
        alarms=tuple(str(alarm) for alarm in alarms),
    )


def _announce(on_event: OnEvent, resolution: Resolution) -> None:
    on_event(Resolved(resolution.title, resolution.artifact, resolution.basis))
    own = resolution.publication.publisher.id if resolution.publication else None
    for rival in resolution.rivals:
        on_event(Note(f"{rival} claims the name too; comity trust bind decides whose it is"))
    for advisory in resolution.advisories:
        on_event(Advised(advisory, advisory.by.id == own))


def _included(manifest: Manifest, include: Sequence[str]) -> list[FileEntry]:
    if not include:
        return list(manifest.files)
    wanted = [e for e in manifest.files if any(fnmatch.fnmatchcase(e.path, pattern) for pattern in include)]
    if not wanted:
        paths = ", ".join(entry.path for entry in manifest.files[:5])
        raise NotFound("no file matches", why=f"{' '.join(include)}; there are {paths}, …", code="NO-FILE-MATCHES")
    return wanted


def _layouts(session: Session, resolution: Resolution, manifest: Manifest) -> Layouts:
    first = resolution.publication.published.pieces.digest if resolution.publication else None
    return Layouts(session, manifest, named_indexes(resolution.gathered.readings, first))


async def _evidence(
    tools: Tools, resolution: Resolution, place: Destination, manifest: bytes, pieces: bytes
) -> tuple[Pack, list[ComityError]]:
    """Step (1): what the nodes say, and what an earlier pull kept beside the files."""
    before = _kept(place.folder, tools.on_event)
    lines = (*resolution.gathered.lines, *before.claims)
    above = await gather_ancestors(tools.session, resolution.artifact, resolution.publication, lines, tools.policy)
    around, notes = await lines_around(tools.session, resolution.publication, tools.policy)
    claims = _claims(tools, resolution, before.claims, around, notes)
    claims = beside(claims, above)
    readings = read_claims(claims, resolution.artifact)
    collected = await collect_proofs(tools.session, tools.memory, readings, tools.policy, before.proofs, tools.on_event)
    proofs = consistency_proofs(tools.session)
    objects = {**before.objects, **await collect_growths(readings.publications, collected.proofs, proofs)}
    if resolution.publication is not None:
        published = resolution.publication.published
        objects |= await collect_objects(tools.session, published, tools.on_event)
    objects |= await vouched_documents(tools.session, readings, resolution.artifact, tools.policy, tools.on_event)
    return Pack(manifest, pieces, claims, tuple(collected.proofs), objects), list(collected.alarms)


def _claims(
    tools: Tools, resolution: Resolution, before: Sequence[bytes], around: Sequence[bytes], notes: Sequence[str]
) -> tuple[bytes, ...]:
    """The lines about the artifact itself that prove themselves: those of the nodes, and of a pack that is here."""
    publisher = (resolution.publication.publisher.id,) if resolution.publication else ()
    sources = {"the nodes": resolution.gathered.lines, "the pack that is here": before, "other claimants": around}
    claims, unproven = kept(tools.session, sources, tools.policy, publisher)
    for note in (*resolution.gathered.notes, *notes, *unproven):
        tools.on_event(Note(note))
    return claims


def _kept(folder: Path, on_event: OnEvent) -> Evidence:
    try:
        return read_pack(folder)
    except (Malformed, Unavailable) as error:
        on_event(Note(f"the evidence pack that is there is not used: {error}"))
        return Evidence(None, None)


def _judge(
    pack: Pack,
    files: Iterable[FoundFile],
    tools: Tools,
    resolution: Resolution,
    alarms: Sequence[ComityError],
    *,
    final: bool,
) -> Verdict:
    """Steps (2) and (5). Where a log was caught and its proofs are what is lacking, that is the error."""
    verdict = verify(pack.evidence(files), tools.policy, keyless=keyless_for(tools.policy))
    tools.on_event(PolicyJudged(verdict, final))
    if (refused := refusal(verdict, resolution.title)) is not None:
        raise alarms[0] if alarms else refused
    return verdict


async def _in_place(place: Destination, manifest: Manifest, on_event: OnEvent) -> frozenset[str]:
    """Step (3): paths whose bytes are in place and right, hashed now."""

    def look() -> frozenset[str]:
        judged: dict[Path, bool] = {}
        for entry in manifest.files:
            holder = place.holder(entry)
            if holder in judged:
                continue
            judged[holder] = holds(holder, entry, _counting(on_event, entry.path))
            if not judged[holder] and holder.exists() and not place.replaceable(entry):
                why = f"{entry.path} is there with other bytes"
                raise Conflict(
                    f"{place.folder} holds something else", why=why, hint="move it away", code="FOLDER-NOT-EMPTY"
                )
        return frozenset(entry.path for entry in manifest.files if judged[place.holder(entry)])

    return await asyncio.to_thread(look)


def _counting(on_event: OnEvent, path: str) -> Callable[[int], None]:
    return lambda count: on_event(Progress(path, count))


async def _fetch(
    fetching: PullFetch,
    place: Destination,
    missing: Sequence[FileEntry],
    wanted: Sequence[FileEntry],
    on_event: OnEvent,
) -> None:
    """Step (4)."""
    distinct = list({entry.sha256: entry for entry in missing}.values())
    begun = sum(min(allocated(place.incoming / entry.sha256), entry.size) for entry in distinct)
    total = sum(entry.size for entry in wanted)
    on_event(Started(len(wanted), total, total - sum(entry.size for entry in missing)))
    require_room(place.incoming, sum(entry.size for entry in missing) - begun)
    await fetching.run(distinct)


async def _place(
    place: Destination, missing: Sequence[FileEntry], complete: Sequence[FileEntry], pack: Pack, on_event: OnEvent
) -> None:
    """Step (6)."""
    groups: dict[Digest, list[FileEntry]] = {}
    for entry in missing:
        groups.setdefault(entry.sha256, []).append(entry)
    for digest, entries in groups.items():
        holders = list(dict.fromkeys(place.holder(entry) for entry in entries))
        async with locked(place.incoming, entries[0], on_event):
            await asyncio.to_thread(settle, place.incoming / digest, holders, entries[0])
    await asyncio.to_thread(pack.write, place.folder)
    await asyncio.to_thread(place.finish, complete)


def _remember(tools: Tools, place: Destination, missing: Sequence[FileEntry], fetching: PullFetch) -> None:
    for entry in missing:
        try:
            tools.placed.remember(place.holder(entry), fetching.records[entry.sha256])
        except Unavailable as error:
            tools.on_event(Note(str(error)))
            return
