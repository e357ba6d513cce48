"""What files on this machine are, without asking anybody: by the indexes of nodes that are here (`kept_indexes`).

An index names artifacts, and proves nothing: that a file is in an artifact is proven by the manifest, where an evidence
pack is here: in the folder of the file or above it, or in the user's Hub cache. Such artifacts are judged by the policy
with the evidence of the pack, as `comity verify` does. All other files that an index names are listed as that: with the
name that a publication claims, and the nodes that say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import filterfalse, islice
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.evidence_pack import read_pack
from comity.federation_file import Federation
from comity.rules.file_records import MEMBERS
from comity.rules.refusal import refusal
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, printable
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import PACK, EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.key_validity import key_circumstances
from comity.trust.policy import Policy
from comity.trust.verify import choose_publication, verify
from comity.wire.files import file_reference

from comity_client.events import Advised
from comity_client.evidence.artifact_info import kept_advisories
from comity_client.hub_cache import default_cache
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import Identified, IndexedFile, locate, unread_paths
from comity_client.identify.judging import KnownArtifact, model_sig_here
from comity_client.identify.kept_indexes import (
    FETCH,
    DamagedIndex,
    FoundInIndex,
    IndexesHere,
    KeptIndex,
    NamedByIndex,
    find_files,
)
from comity_client.identify.lookup import ClaimedFiles, NodeAnswer
from comity_client.identify.match import cover, match
from comity_client.pull.model_sig import keyless_for
from comity_client.pull.pull import inspected

MAX_PACKS: Final = 10_000
"""Manifests of packs that are read."""


def identify_by_index(
    indexes: IndexesHere, files: Sequence[DiskFile], policy: Policy, pins: Sequence[Federation]
) -> Identified:
    """Say what files are, without a network. Blocking. Raises NotFound (NO-FILE-INDEX); if no index is readable, the
    error of the first one.

    Args:
        pins: those of the user, whose members and nodes may warn.
    """
    if not indexes.nodes:
        raise NotFound("no index of files is here", why="none was fetched", hint=FETCH, code="NO-FILE-INDEX")
    wanted = {file_reference(each.sha256) for each in files if each.sha256 is not None and each.size}
    said = [_Said.of(index, wanted) for index in indexes.kept]
    damaged = [*indexes.damaged, *(each.damaged for each in said if each.damaged)]
    if len(damaged) == len(indexes.nodes):
        raise damaged[0].error
    named = _merged(said)
    packs = _packs(files, named)
    matched = match(files, {artifact: pack.manifest for artifact, pack in packs.items()})
    here, places = locate(files, matched)
    judged = {artifact: _judge(packs[artifact], here, policy, pins) for artifact in places}
    unread = (NodeAnswer(each.node.name, problem=each.problem) for each in indexes.damaged)
    nodes = (*(each.answer for each in said), *unread)
    by_reference = _chosen(named)
    unknown = ClaimedFiles({}, nodes).is_unknown

    def reference_of(file: DiskFile) -> bytes:
        return file_reference(file.sha256 or Digest(""))

    def is_named(file: DiskFile) -> bool:
        return reference_of(file) in by_reference

    rest = tuple(filterfalse(is_named, matched.unknown))
    return Identified(
        matched=replace(matched, unknown=tuple(each for each in rest if unknown(reference_of(each)))),
        artifacts=judged,
        unsure=tuple(each for each in rest if not unknown(reference_of(each))),
        unread=unread_paths(files, rest),
        nodes=nodes,
        files=sum(each.within is None for each in files),
        bytes=sum({each.identity: each.size for each in files if each.within is None}.values()),
        named=tuple(IndexedFile(each, *by_reference[reference_of(each)]) for each in filter(is_named, matched.unknown)),
    )


@frozen
class _Said:
    """What one index says."""

    index: KeptIndex
    found: FoundInIndex
    damaged: DamagedIndex | None = None

    @classmethod
    def of(cls, index: KeptIndex, wanted: Collection[bytes]) -> _Said:
        try:
            return cls(index, find_files(index, frozenset(wanted)))
        except ComityError as error:
            return cls(index, FoundInIndex(0, {}), DamagedIndex(index.node, error))

    @property
    def answer(self) -> NodeAnswer:
        name, state = self.index.node.name, self.index.state
        if self.damaged is not None:
            return NodeAnswer(name, problem=self.damaged.problem, as_of=state.time)
        return NodeAnswer(name, self.found.files, state.unread + state.later, as_of=state.time)


@frozen
class _Merged:
    """What all indexes say of an artifact."""

    by: NamedByIndex
    nodes: tuple[str, ...]


def _merged(said: Iterable[_Said]) -> dict[Digest, _Merged]:
    """Those of members first; of one artifact what the first index says of whose it is."""
    merged = dict[Digest, _Merged]()
    for each in said:
        for artifact, found in each.found.artifacts.items():
            before = merged.get(artifact, _Merged(replace(found, references=frozenset()), ()))
            references = before.by.references | found.references
            nodes = (*before.nodes, each.index.node.name)
            merged[artifact] = _Merged(replace(before.by, references=references), nodes)
    return dict(sorted(merged.items(), key=lambda item: item[1].by.whose))


def _chosen(named: Mapping[Digest, _Merged]) -> dict[bytes, tuple[Digest, str, bool, tuple[str, ...]]]:
    """Of each file the artifact that is named with it, as nodes are asked for the fewest artifacts that have all."""
    chosen = dict[bytes, tuple[Digest, str, bool, tuple[str, ...]]]()
    for artifact in cover({artifact: each.by.references for artifact, each in named.items()}):
        by, nodes = named[artifact].by, named[artifact].nodes
        for reference in by.references:
            chosen.setdefault(reference, (artifact, printable(by.name), by.whose == MEMBERS, nodes))
    return chosen


@frozen
class _LocalPack:
    """An evidence pack, in the folder of an artifact."""

    folder: Path
    manifest: Manifest


def _packs(files: Sequence[DiskFile], named: Collection[Digest]) -> dict[Digest, _LocalPack]:
    """Packs beside the files, and those in the user's Hub cache of artifacts that an index names. One whose manifest
    cannot be read proves nothing; `comity verify` says why."""
    found = dict[Digest, _LocalPack]()
    folders = [each.absolute() for each in dict.fromkeys(each.path.parent for each in files if each.within is None)]
    beside = dict.fromkeys(above for each in folders for above in (each, *each.parents))
    stored = [pack.parent for pack in default_cache().glob(f"models--*/snapshots/*/{PACK}")]
    for folder in islice(dict.fromkeys([*beside, *stored]), MAX_PACKS):
        try:
            manifest = Manifest.parse(read_bounded(folder / PACK / "manifest.json", MAX_MANIFEST))
        except ComityError:
            continue
        if folder in beside or manifest.digest in named:
            found.setdefault(manifest.digest, _LocalPack(folder, manifest))
    return found


def _judge(pack: _LocalPack, here: Mapping[Digest, Path], policy: Policy, pins: Sequence[Federation]) -> KnownArtifact:
    """Judge an artifact with the evidence in its pack. Errors are in the answer."""
    manifest, reader, basis = pack.manifest, EvidenceReader(), f"the evidence pack in {pack.folder}"
    title = f"sha256:{manifest.digest}"
    try:
        seen = tuple(inspected(each, here[each.sha256]) for each in manifest.files if each.sha256 in here)
        evidence = replace(
            read_pack(pack.folder, reader),
            files=seen,
            partial=len(seen) < len(manifest.files),
            model_sig=model_sig_here(manifest, here),
        )
        if (chosen := choose_publication(evidence, policy, reader, None)) is not None:
            title = str(chosen.publication.published.name)
        verdict = verify(evidence, policy, keyless=keyless_for(policy), reader=reader)
        stated = read_claims(evidence.claims, manifest.digest, reader)
        warned = kept_advisories(key_circumstances(evidence, stated, policy, reader), manifest.digest, pins)
    except ComityError as error:
        return KnownArtifact(manifest.digest, title, basis, None, str(error), error.exit_status)
    refused = refusal(verdict, title, "the policy", lambda rows, named: "")
    problem = "" if refused is None else str(refused)
    own = chosen.publication.publisher.id if chosen is not None else None
    advised = tuple(Advised(advisory, advisory.by.id == own) for _, advisory in warned)
    return KnownArtifact(manifest.digest, title, basis, verdict, problem, verdict.exit_status, advised)
