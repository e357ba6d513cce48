"""Artifacts as a synchronous Python API: looked up, pulled, verified, inspected and compared.

Modules that a look at a name, a copy or a node does not need are imported where they are used: loading all of them
costs more than such a look (`tests/unit/comity_cli/test_light_commands.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comity.trust.errors import Refused, Unavailable
from comity.trust.evidence import Evidence, EvidenceReader, Verdict
from comity.trust.policy import Policy, SafetyRule
from comity.trust.verify import verify
from comity.verifier import collect_evidence

from comity_client.events import OnEvent, ignore_event
from comity_client.evidence.artifact_info import ArtifactInfo, Replica
from comity_client.evidence.resolve import Resolution
from comity_client.evidence.search import FoundArtifacts, search_artifacts
from comity_client.pull.destinations import (
    LocalCopy,
    folder_of,
    hash_local_copy,
    known_reference,
    workers,
)
from comity_client.session import Session
from comity_client.trust_client import TrustClient

if TYPE_CHECKING:
    from comity_client.identify.adopt import AdoptedFolder
    from comity_client.identify.disk import DiskFile
    from comity_client.identify.folder import IdentifiedFolder, VerifiedFolder
    from comity_client.identify.identify import Identified
    from comity_client.identify.index_fetch import FetchedIndex
    from comity_client.identify.kept_indexes import KeptIndexes
    from comity_client.inventory.inventory import Inventory
    from comity_client.inventory.taking import TakenAt
    from comity_client.pull.order import PullContext, Pulled
    from comity_client.pull.pull import PullPlan
    from comity_client.reports import CheckedReport
    from comity_client.scan import FolderScan, PickleScan
    from comity_client.signature_files import FileSignature


MAX_BASES: Final = 8
"""Bases of one artifact, and theirs, that follow it."""


class ArtifactClient(TrustClient):
    """Looks at artifacts at nodes and on this machine. Nothing here is logged at a node."""

    def pull(
        self,
        reference: str,
        *,
        to: Path | None = None,
        hub_cache: Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        policy: Policy | None = None,
        on_event: OnEvent = ignore_event,
    ) -> Pulled:
        """Fetch an artifact to this machine and verify it: into folder `to`, or into a Hub cache (default: the user's
        own).

        If no node gives it, the complete copy of an exact version that is here already is the answer, verified again
        (`Pulled.cache`). Raises as `pull.pull` does. On an error nothing is placed, and verified data stay for
        the next attempt.
        """

        from comity_client.pull.order import PullOrder

        order = PullOrder(reference, to, hub_cache, include, exclude)

        def work(session: Session) -> Coroutine[Any, Any, Pulled]:
            from comity_client.pull.pull import pull

            return pull(self._pull_context(session, reference, policy, on_event), order)

        return self._user.run(work, on_event, ahead=True)

    def pull_bases(
        self,
        pulled: Pulled,
        *,
        to: Path | None = None,
        hub_cache: Path | None = None,
        policy: Policy | None = None,
        on_event: OnEvent = ignore_event,
    ) -> Iterator[Pulled]:
        """Fetch what a pulled artifact needs beside it, and verify each by itself: the bases that its publisher names
        by digest, then theirs. Each is one pull, which raises as `pull` does; those before it stay.

        Args:
            to: the folder of the artifact. Its bases are beside it: `DIR-base`, then `DIR-base-2`, and so on.

        Raises Refused (TOO-MANY-BASES).
        """
        waiting, known = [pulled], {pulled.artifact}
        while waiting:
            for parent in waiting.pop(0).bases.named:
                if parent.digest is None or parent.digest in known:
                    continue
                if len(known) > MAX_BASES:
                    why = f"an artifact of which {MAX_BASES} others are bases names more"
                    raise Refused(f"{parent.name} is not pulled", why=why, code="TOO-MANY-BASES")
                number, reference = len(known), f"sha256:{parent.digest}"
                beside = to.with_name(f"{to.name}-base" + (f"-{number}" if number > 1 else "")) if to else None
                base = self.pull(reference, to=beside, hub_cache=hub_cache, policy=policy, on_event=on_event)
                known.add(parent.digest)
                waiting.append(base)
                yield base

    def plan_pull(
        self,
        reference: str,
        *,
        to: Path | None = None,
        hub_cache: Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        policy: Policy | None = None,
        on_event: OnEvent = ignore_event,
    ) -> PullPlan:
        """Return what `pull` with the same arguments would fetch, and where to; writes nothing. Raises as `pull`."""

        from comity_client.pull.order import PullOrder

        order = PullOrder(reference, to, hub_cache, include, exclude)

        def work(session: Session) -> Coroutine[Any, Any, PullPlan]:
            from comity_client.pull.pull import plan_pull

            return plan_pull(self._pull_context(session, reference, policy, on_event), order)

        return self._user.run(work, on_event, ahead=True)

    def _pull_context(self, session: Session, reference: str, policy: Policy | None, on_event: OnEvent) -> PullContext:
        from comity_client.evidence.inquiry import Inquiry
        from comity_client.pull.order import PullContext

        user = self._user
        inquiry = Inquiry(session, policy or user.policy(session.pins, reference))
        names, seen, placed = user.known_names(), user.seen_logs(session.reader), user.placed_pieces()
        return PullContext(inquiry, user.trust_store().bindings(), names, seen, placed, self._limits, on_event)

    def verify(
        self,
        what: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> Verdict:
        """Verify a folder with its evidence pack, or the copy of a reference in a Hub cache. Uses no network.

        Raises NotFound if there is no such copy, Malformed if a pack exceeds a bound, Untrusted (NOT-UNDER-NAME) if the
        copy of a name was published, but not under this name by the publisher to whom the name belongs here.
        """
        from comity_client.pull.model_sig import keyless_for
        from comity_client.pull.offline import KnownHere

        folder, reader = folder_of(what, hub_cache), EvidenceReader()
        named = known_reference(str(what), hub_cache) if folder != Path(what) else None
        judged_by = policy or self._user.policy(self._user.pins(reader), str(what) if named else "")
        evidence = collect_evidence(folder, workers=workers(), on_hashed=on_hashed, reader=reader)
        keyless = keyless_for(judged_by)
        if named is None:
            return verify(evidence, judged_by, keyless=keyless, reader=reader)
        known = KnownHere(self._user.known_names(), self._user.trust_store().bindings(), judged_by)
        publisher = known.owner(named)
        if not named.mirrored:
            known.check_named(named, folder, evidence, reader)
            return verify(evidence, judged_by, keyless=keyless, reader=reader, publisher=publisher)
        commit = f"{named.repository}@{folder.name}"  # a Hub cache names a snapshot so
        return verify(evidence, judged_by, keyless=keyless, reader=reader, commit=commit)

    def resolve(self, reference: str, *, policy: Policy | None = None) -> Resolution:
        """Resolve a reference to an artifact; by default by the default policy. Raises Malformed, NotFound,
        Unavailable; PolicyNotMet with the claimants listed if only the owner can decide."""
        return self._user.run(lambda session: self._user.resolve(session, reference, policy), ahead=True)

    def search(self, text: str, limit: int = 50, kind: str = "") -> list[FoundArtifacts]:
        """Raises Unavailable."""
        return self._user.run(lambda session: search_artifacts(session, text, limit, kind))

    def show(self, reference: str, *, policy: Policy | None = None) -> ArtifactInfo:
        """Describe an artifact. The statements of authors whom `policy` names are read first; without one, the default
        policy names nobody. Raises as `resolve` does."""
        return self._user.show(reference, policy)

    def whereis(self, reference: str) -> list[Replica]:
        """List the nodes that claim a copy, and those that answer with one now. Raises as `resolve` does."""
        return self._user.whereis(reference)

    def local_copy(
        self, what: Path | str, *, hub_cache: Path | None = None, on_hashed: Callable[[int], None] | None = None
    ) -> LocalCopy:
        """Hash an artifact on this machine: a folder, or the pulled copy of a reference. Uses no network. Raises as
        `destinations.hash_local_copy` does."""
        return hash_local_copy(what, workers=workers(), hub_cache=hub_cache, on_hashed=on_hashed)

    def identify(
        self,
        paths: Sequence[Path],
        *,
        policy: Policy | None = None,
        fresh: bool = False,
        by_index: bool = False,
        on_hashed: Callable[[int], None] = lambda count: None,
    ) -> Identified:
        """Say which artifacts the files at or below the paths are of, and judge these artifacts by a policy (default:
        the default policy). Of weight files that no node knows, say which artifacts have the same tensors. Nodes learn
        the first bits of digests of files and pieces, and of which artifacts there are files or tensors. Nothing at the
        paths is changed.

        Args:
            fresh: read every file, whatever was read before.
            by_index: ask nobody: by the indexes of nodes that are here (`file_indexes`), and the evidence packs.
            on_hashed: called with the number of bytes hashed since the last call, from several threads.

        Raises Unavailable, NotFound (NO-NODES) where no node answers; NotFound (NO-FILE-INDEX) where no index is here.
        """
        if not by_index:
            return self._identify(self._hash(paths, fresh, on_hashed), policy, on_hashed, fresh)
        from comity_client.identify.by_index import identify_by_index

        indexes = self.file_indexes().all()
        pins = self._user.pins()
        files = self._hash(paths, fresh, on_hashed) if indexes.kept else []
        return identify_by_index(indexes, files, policy or self._user.policy(pins), pins)

    def take_inventory(
        self,
        at: TakenAt,
        before: Inventory | None = None,
        *,
        policy: Policy | None = None,
        fresh: bool = False,
        leave_out: Sequence[Path] = (),
        on_hashed: Callable[[int], None] = lambda count: None,
    ) -> Inventory:
        """Return the inventory of a machine, as `identify` finds it. Raises as `identify` does.

        Args:
            at: which machine, when, and where to look.
            before: what was there at the inventory before keeps its date.
            leave_out: files, and folders with all that is in them. The state folder of this user is left out too.
        """
        from comity_client.inventory.taking import make_inventory

        left_out = tuple(f"{path}/" for path in (self._user.home.root, *leave_out))
        hashed = self._hash(at.paths, fresh, on_hashed)
        files = [each for each in hashed if not f"{each.path}/".startswith(left_out)]
        return make_inventory(at, files, self._identify(files, policy), before)

    def _hash(self, paths: Sequence[Path], fresh: bool, on_hashed: Callable[[int], None]) -> list[DiskFile]:
        from comity_client.identify.disk import HashCache
        from comity_client.identify.identify import hash_paths

        cache = None if fresh else HashCache(self._user.home.ensure(self._user.home.memory))
        return hash_paths(paths, cache, workers(), on_hashed)

    def _identify(
        self,
        files: Sequence[DiskFile],
        policy: Policy | None,
        on_hashed: Callable[[int], None] | None = None,
        fresh: bool = False,
    ) -> Identified:
        """With `on_hashed`, weight files that no node knows are read again, for their tensors."""

        async def work(session: Session) -> Identified:
            from comity_client.identify.identify import identify
            from comity_client.identify.piece_cache import PieceCache
            from comity_client.identify.same_tensors import find_same_tensors

            def context(on_event: OnEvent) -> PullContext:
                return self._pull_context(session, "", policy, on_event)

            found = await identify(session, files, context)
            if on_hashed is None:
                return found
            cache = None if fresh else PieceCache(self._user.home.ensure(self._user.home.memory))
            return replace(found, tensors=await find_same_tensors(session, found, context, cache, on_hashed))

        return self._user.run(work, ahead=True)

    def verify_by_files(
        self,
        folder: Path,
        *,
        policy: Policy | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> VerifiedFolder:
        """As `verify`, for a folder without evidence: nodes are asked of which artifact its files are, and for its
        evidence. Nothing is written. What nodes learn: as of `identify`.

        Where nothing is found, or no node answers, the verdict is that of `verify`, and says why. Raises Malformed,
        NotFound for no such folder.
        """
        from comity_client.identify.folder import VerifiedFolder
        from comity_client.pull.model_sig import keyless_for

        here = collect_evidence(folder, workers=workers(), on_hashed=on_hashed)
        judged_by = policy or self._user.policy(self._user.pins())
        alone = verify(here, judged_by, keyless=keyless_for(judged_by))
        if alone.accepted:
            return VerifiedFolder(alone)
        try:
            found = self._user.run(self._identifying(folder, here, judged_by), ahead=True)
        except Unavailable as error:
            return VerifiedFolder(alone, why=error)
        return VerifiedFolder(found.verdict, found)

    def adopt(
        self,
        folder: Path,
        *,
        hub_cache: Path | None = None,
        hard_links: bool = False,
        policy: Policy | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> AdoptedFolder:
        """Find the artifact of a folder by its files, and write its evidence into the folder, as a pull does; `verify`
        then needs no network. The files are not changed.

        Args:
            hub_cache: a Hub cache into which the files are put too, without copying them.
            hard_links: by hard links, where the file system has no clones.

        Raises as `identify.folder.identify_folder` and `identify.adopt.adopt` do.
        """
        from comity_client.identify.adopt import adopt, states_of

        states = states_of(folder)
        here = collect_evidence(folder, workers=workers(), on_hashed=on_hashed)
        find = self._identifying(folder, here, policy)

        async def work(session: Session) -> AdoptedFolder:
            from comity_client.pull.order import PullOrder
            from comity_client.pull.pull import destination_of

            found = await find(session)
            order, gathered = PullOrder(f"sha256:{found.found.artifact}", hub_cache=hub_cache), found.gathered
            cache = destination_of(gathered.resolution, order, gathered.manifest) if hub_cache is not None else None
            return adopt(folder.absolute(), found, states, cache, hard_links=hard_links)

        return self._user.run(work, ahead=True)

    def _identifying(
        self, folder: Path, here: Evidence, policy: Policy | None
    ) -> Callable[[Session], Coroutine[Any, Any, IdentifiedFolder]]:
        """What finds the artifact of a folder with these files."""

        def work(session: Session) -> Coroutine[Any, Any, IdentifiedFolder]:
            from comity_client.identify.folder import identify_folder

            context = self._pull_context(session, "", policy, ignore_event)
            return identify_folder(session, context, folder.absolute(), here)

        return work

    def file_indexes(self) -> KeptIndexes:
        """Return the indexes of files that are here, of nodes of the pinned federations."""
        from comity_client.identify.kept_indexes import KeptIndexes

        records = [node.record for pin in self._user.pins() for node in pin.nodes]
        return KeptIndexes(self._user.home.ensure(self._user.home.indexes), records)

    def fetch_indexes(
        self, nodes: Sequence[str] = (), *, again: bool = False, on_bytes: Callable[[int], None] = lambda count: None
    ) -> list[FetchedIndex]:
        """Fetch what is new in the indexes of files of nodes, or all of them: of the named nodes, of those whose
        indexes are here, or of a few. What failed is in the result. Raises NotFound, Conflict.

        Args:
            again: fetch all, and take it even if it is older than what is here.
            on_bytes: called with the bytes received since the last call.
        """
        indexes = self.file_indexes()

        def work(session: Session) -> Coroutine[Any, Any, list[FetchedIndex]]:
            from comity_client.identify.index_fetch import fetch_indexes

            return fetch_indexes(session, indexes, nodes, again=again, on_bytes=on_bytes)

        return self._user.run(work)

    def scan(self, what: Path | str, *, policy: Policy | None = None, hub_cache: Path | None = None) -> FolderScan:
        """Inspect the files of a folder, or of the pulled copy of a reference. Nothing is loaded or hashed. Without a
        policy the default safety rule applies. Raises NotFound, Unavailable, Malformed."""
        from comity_client.scan import scan_folder

        rule = policy.safety if policy else SafetyRule()
        return scan_folder(folder_of(what, hub_cache), rule, workers=workers())

    def scan_pickles(self, census: FolderScan) -> PickleScan:
        """Run picklescan on the files that may hold pickles. Raises as `scan.scan_pickles` does."""
        from comity_client.scan import scan_pickles

        return scan_pickles(census.folder, [each.file.path for each in census.files if each.may_hold_pickles])

    def check_report(self, path: Path, *, by: str = "") -> CheckedReport:
        """Check the report in a file and its signature. The signer must be known to this user, or be `by`. Uses no
        network. Raises as `reports.read_signed` and `signature_files.known_signer` do."""
        from comity_client.reports import CheckedReport, read_signed

        signed = read_signed(path)
        return CheckedReport(signed, self.known_signer(signed.signature, by))

    def known_signer(self, signature: FileSignature, by: str = "") -> str:
        """How the signer of a file is known to this user; it must be, or be `by`. Raises as
        `signature_files.known_signer` does."""
        from comity_client.signature_files import known_signer

        trust = self._user.trust_store()
        return known_signer(signature, by, self.publishers(), list(trust.pins()), trust.bindings())
