"""The Comity client as a synchronous Python API: `Client` pulls, publishes, verifies and joins.

Each method calls one function of the client modules, most of them in a session with the nodes of the pinned
federations, and returns plain values. Errors are those of `comity.trust.errors`; each has the next step as its hint.

Modules that a look at a name, a copy or a node does not need are imported where they are used: loading all of them
costs more than such a look (`tests/unit/test_light_commands.py`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from comity.bounded_file import read_bounded
from comity.federation_file import FederationSource
from comity.transfer.scheduler import TransferLimits
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound, Unavailable
from comity.trust.evidence import EvidenceReader, Verdict
from comity.trust.keys import PrivateKey
from comity.trust.names import Abbreviation, Name, Reference, find_id, parse_id
from comity.trust.policy import Policy, SafetyRule
from comity.trust.report import VerdictReport
from comity.trust.rotation import LogCut
from comity.trust.statement import MAX_OBJECT_BYTES, Entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Parent, sign_derived
from comity.trust.verify import verify
from comity.verifier import collect_evidence, load_policy
from comity_client.copies import CopyList, LoggedResult, copies_of_federation, logged_results
from comity_client.events import OnEvent, Progress, ignore_event, in_thread
from comity_client.evidence import inspect
from comity_client.evidence.lookup import FoundIdentity, find_identity, known_identities
from comity_client.evidence.resolve import Resolution
from comity_client.home import Home
from comity_client.publishers import (
    Publisher,
    change_keys,
    default_home_log,
    find_publisher,
    lost_key,
    new_publisher,
    publishers,
)
from comity_client.pull.destinations import (
    Destination,
    LocalCopy,
    cached_folder,
    folder_of,
    hash_local_copy,
    known_reference,
    local_copy_loader,
)
from comity_client.seen import LogContradiction
from comity_client.session import ClaimedGateway, Session, claimed_gateway
from comity_client.trust_store import Bindings, CharterDiff, TrustPin
from comity_client.uplink import find_node, open_uplink
from comity_client.user import User

if TYPE_CHECKING:
    from comity_client.approving import ApprovalClient
    from comity_client.attestations import AttestationKeyStore
    from comity_client.bundles.exporting import ExportedBundle
    from comity_client.bundles.loading import LoadResult
    from comity_client.bundles.writing import DiskPlan
    from comity_client.charter.proposals import GovernanceClient
    from comity_client.diff import ComparedArtifact, Differences
    from comity_client.hardware_pins import HardwarePinStore
    from comity_client.lineage import Derivation, Lineage
    from comity_client.node_states import NodeState
    from comity_client.offers.fit import Model
    from comity_client.offers.offer_client import OfferClient
    from comity_client.offers.signer import OfferSigner
    from comity_client.party_drill import FederationDrill
    from comity_client.publish import Imported, Logged, LogTargets, PublishReceipt, UpstreamState
    from comity_client.pull.pull import PullContext, Pulled, PullPlan
    from comity_client.reports import CheckedReport
    from comity_client.scan import FolderScan, PickleScan

T = TypeVar("T")


def workers() -> int:
    """Return the number of threads that hash files."""
    return min(4, os.cpu_count() or 1)


class Client:
    """A user's client.

    Args:
        home: the state folder; default `Home.default()`.
        limits: timeouts and bounds of transfers.
    """

    def __init__(self, home: Home | None = None, *, limits: TransferLimits | None = None) -> None:
        self.home = home or Home.default()
        self._limits = limits or TransferLimits()
        self._user = User(self.home)

    def policy(self, path: Path | None = None) -> Policy:
        """Return the policy in a file; without a file, the default policy of the pins (see `default_policy`). Raises
        Malformed, Untrusted, NotFound."""
        return load_policy(path) if path is not None else self._user.policy(self._user.pins())

    def publishers(self) -> list[Publisher]:
        return list(publishers(self.home.publishers))

    def publisher(self, name: str) -> Publisher:
        """Find a publisher by folder, label or beginning of its id. Raises NotFound."""
        return find_publisher(self.publishers(), name)

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

        from comity_client.pull.pull import pull

        async def work(session: Session) -> Pulled:
            try:
                context, resolution = await self._pulling(session, reference, policy, on_event)
            except Unavailable as error:
                judged_by = policy or self._user.policy(session.pins, reference)
                return await in_thread(partial(self._pulled, reference, to, hub_cache, judged_by, error), on_event)
            destination = partial(_destination, resolution, to, hub_cache)
            return await pull(context, resolution, destination, include, exclude)

        return self._user.run(work, on_event)

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

        from comity_client.pull.pull import plan_pull

        async def work(session: Session) -> PullPlan:
            context, resolution = await self._pulling(session, reference, policy, on_event)
            destination = partial(_destination, resolution, to, hub_cache)
            return await plan_pull(context, resolution, destination, include, exclude)

        return self._user.run(work, on_event)

    async def _pulling(
        self, session: Session, reference: str, policy: Policy | None, on_event: OnEvent
    ) -> tuple[PullContext, Resolution]:
        from comity_client.pull.pull import PullContext

        judged_by = policy or self._user.policy(session.pins, reference)
        resolution = await self._user.resolve(session, reference, judged_by)
        stores = self._user.seen_logs(), self._user.placed_pieces()
        return PullContext(session, *stores, judged_by, self._limits, on_event), resolution

    def _pulled(
        self,
        reference: str,
        to: Path | None,
        hub_cache: Path | None,
        policy: Policy,
        failure: Unavailable,
        on_event: OnEvent,
    ) -> Pulled:
        """Return the copy that an earlier pull left, as the answer without nodes. Raises `failure`."""
        from comity_client.pull.fetch import BytesBySource
        from comity_client.pull.offline import is_exact, local_answer
        from comity_client.pull.pull import Pulled

        try:
            folder = to or cached_folder(reference, hub_cache)
            parsed = known_reference(reference, hub_cache)
        except NotFound:
            raise failure from None
        if not folder.is_dir() or not is_exact(parsed):
            raise failure
        found = local_answer(
            folder,
            parsed,
            policy,
            self.bindings(),
            self._user.known_names(),
            failure,
            workers=workers(),
            on_hashed=lambda count: on_event(Progress("", count)),
        )
        here, tally = found.bytes, BytesBySource()
        return Pulled(
            found.title, found.artifact, folder, found.verdict, found.files, here, here, tally, (), found.basis
        )

    def verify(
        self,
        what: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> Verdict:
        """Verify a folder with its evidence pack, or the copy of a reference in a Hub cache. Uses no network.

        Raises NotFound if there is no such copy, Malformed if a pack exceeds a bound.
        """
        from comity_client.pull.model_sig import keyless_for

        folder, reader = folder_of(what, hub_cache), EvidenceReader()
        judged_by = policy or self._user.policy(self._user.pins(reader), str(what))
        evidence = collect_evidence(folder, workers=workers(), on_hashed=on_hashed, reader=reader)
        named = known_reference(str(what), hub_cache) if folder != Path(what) else None
        publisher = self._user.publisher_of(named) if named else None
        return verify(evidence, judged_by, keyless=keyless_for(judged_by), reader=reader, publisher=publisher)

    def import_upstream(
        self,
        source: str | Path,
        node: str,
        *,
        endpoint: str = "",
        hosts: Sequence[str] = (),
        terms: bytes = b"",
        token: str = "",
        claimed: str = "",
        on_event: OnEvent = ignore_event,
    ) -> Imported:
        """Have a node mirror a repository of a Hub (`hf:org/name[@revision]`), or import a folder on the node's
        machine.

        Args:
            node: the path of the operator socket of the node.
            endpoint: the URL of the Hub; default: the Hugging Face Hub.
            hosts: hosts that may serve files in addition to the endpoint.
            terms, token: the accepted upstream terms, and the token that is sent to the endpoint only.
            claimed: the origin of a folder, if its layout does not give one.

        After a failure, the same call resumes. Raises as `publish.import_at` does.
        """
        from comity.wire.upstream import ImportOrder
        from comity_client.publish import import_at

        folder = str(source.absolute()) if isinstance(source, Path) else ""
        name = claimed if isinstance(source, Path) else source
        order = ImportOrder(name, endpoint, folder, tuple(hosts), terms, token)
        return self._user.run(
            lambda session: import_at(session, self._user.seen_logs(), node, order, on_event), on_event
        )

    def export_bundle(
        self,
        folder: Path,
        node: str,
        *,
        references: Sequence[str] = (),
        everything: bool = False,
        earlier: Sequence[Path] = (),
        disks: DiskPlan | None = None,
        on_event: OnEvent = ignore_event,
    ) -> ExportedBundle:
        """Write what a node has into a bundle in `folder`. Repeat it to continue.

        Args:
            node: any node of a pinned federation, or one on this machine, as for `publish`.
            references: which artifacts; default: those that the exported entries publish.
            everything: every artifact of the node.
            earlier: bundles that this one continues: of each, the folder with its index and its list of contents.
            disks: how to cut it.

        Raises as `BundleExport.run` and `resolve` do.
        """
        from comity_client.bundles.exporting import EarlierBundle, ExportOrder, export_bundle
        from comity_client.bundles.writing import DiskPlan

        had = tuple(map(EarlierBundle.read, earlier))

        async def work(session: Session) -> ExportedBundle:
            artifacts = [(await self._user.resolve(session, reference)).artifact for reference in references]
            order = ExportOrder(tuple(dict.fromkeys(artifacts)), everything, had, disks or DiskPlan())
            async with open_uplink(session, node) as uplink:
                return await export_bundle(uplink.client, order, folder, on_event)

        return self._user.run(work, on_event)

    def load_bundle(
        self, folders: Sequence[Path], socket: Path, *, check: bool = False, on_event: OnEvent = ignore_event
    ) -> LoadResult:
        """Have the node with this operator socket take what a bundle has. Raises as `load_bundle` does."""
        from comity_client.bundles.loading import load_bundle

        return asyncio.run(load_bundle(folders, socket, check=check, on_event=on_event))

    def check_upstream(self, name: str, node: str, *, token: str = "") -> UpstreamState:
        """Have a node check the upstream of `hf:org/name@commit` again. Raises as `publish.check_at` does."""
        from comity_client.publish import check_at

        return self._user.run(lambda session: check_at(session, node, name, token))

    def resolve(self, reference: str) -> Resolution:
        """Resolve a reference to an artifact. Raises Malformed, NotFound, Unavailable; PolicyNotMet with the claimants
        listed if only the owner can decide."""
        return self._user.run(lambda session: self._user.resolve(session, reference))

    def search(self, text: str, limit: int = 50) -> list[inspect.FoundArtifacts]:
        """Raises Unavailable."""
        return self._user.run(lambda session: inspect.search_artifacts(session, text, limit))

    def show(self, reference: str) -> inspect.ArtifactInfo:
        """Raises as `resolve` does."""
        return self._user.show(reference)

    def whereis(self, reference: str) -> list[inspect.Replica]:
        """List the nodes that claim a copy, and those that answer with one now. Raises as `resolve` does."""
        return self._user.whereis(reference)

    def copies(self, node: str = "", artifact: Digest | None = None) -> CopyList:
        """Return what a node says about the copies of all artifacts, or of one: the named node, or the first that
        answers. Raises NotFound, Unavailable."""
        return self._user.run(lambda session: copies_of_federation(session, node, artifact))

    def drill(self, node: str = "", hubs: Sequence[str] = ()) -> FederationDrill:
        """Return what is left of the federation without each single party, by reasoning over what nodes answer. Raises
        NotFound, Unavailable."""
        from comity_client.party_drill import drill_federation

        return self._user.run(lambda session: drill_federation(session, node, hubs))

    def logged_audits(self, artifact: Digest) -> list[LoggedResult]:
        """Return the newest logged audits of copies of an artifact, signed by nodes of the pinned federations."""
        return self._user.run(lambda session: logged_results(session, artifact))

    def status(self, on_event: OnEvent = ignore_event, *, node: str = "") -> list[NodeState]:
        """Return the state of every known node, or of one. `on_event` gets logs that contradict an earlier checkpoint.
        Raises NotFound for an unknown node."""
        from comity_client.node_states import ask_node_states

        return ask_node_states(self._user, on_event, node)

    def gateway(self, node: str = "") -> ClaimedGateway:
        """Return the gateway URL that a node claims: the named node, or the only known one. Raises as `claimed_gateway`
        does."""

        async def work(session: Session) -> ClaimedGateway:
            return await claimed_gateway(session, (await find_node(session, node)).name if node else "")

        return self._user.run(work)

    def misbehaviour(self) -> list[LogContradiction]:
        """Return the contradictions of logs that this client has recorded, with their proofs."""
        return list(self._user.seen_logs().contradictions())

    def accusations(self, nodes: Sequence[str] = ()) -> list[inspect.LogAccusation]:
        """Return the misbehaviour proofs that nodes keep, verified again here: of the named nodes, or of all. Raises
        NotFound, Unavailable."""
        return self._user.run(lambda session: inspect.accusations(session, nodes))

    def log_checkpoint(self, origin: str) -> inspect.SeenCheckpoint:
        """Raises as `inspect.newest_checkpoint` does."""
        return self._user.run(lambda session: inspect.newest_checkpoint(session, self._user.seen_logs(), origin))

    def log_entries(self, origin: str, start: int, end: int) -> list[inspect.LogEntry]:
        """Raises Malformed, NotFound, Unavailable."""
        return self._user.run(lambda session: inspect.read_entries(session, origin, start, end))

    def log_proof(self, line: Digest) -> list[inspect.ProvenIn]:
        """Raises NotFound, Unavailable, Untrusted."""
        return self._user.run(lambda session: inspect.prove_line(session, line))

    def log_check(self, origin: str) -> inspect.LogCheck:
        """Raises Equivocation, Untrusted, NotFound, Unavailable."""
        return self._user.run(lambda session: inspect.check_log(session, self._user.seen_logs(), origin))

    def new_publisher(self, label: str, jurisdiction: str, home_origin: str | None = None) -> Publisher:
        """Create an identity. `home_origin` is its home log, empty for none; None selects the log of a member of a
        pinned federation, of the same jurisdiction if there is one. Raises Conflict, Malformed."""
        folder = self.home.ensure(self.home.publishers)
        home = default_home_log(self._user.pins(), jurisdiction) if home_origin is None else home_origin
        return new_publisher(folder, label=label, jurisdiction=jurisdiction, home=home)

    def change_keys(
        self,
        publisher: Publisher,
        *,
        recovery: Sequence[Path] = (),
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> tuple[Publisher, tuple[Logged, ...]]:
        """Replace the keys of a publisher by means of its recovery key, and log the rotation with a cut of its home log
        at the current size. The new keys are on disk before anything is logged; if logging fails, publish or call
        `log_keys`.

        Raises as `publishers.change_keys` and `publish.publish_folder` do.
        """
        cut = [self.cut(publisher.home)] if publisher.home else []
        changed = change_keys(publisher, recovery, cut)
        return changed, self.log_keys(changed, nodes=nodes, on_event=on_event)

    def cut(self, origin: str) -> LogCut:
        """Return the current size and root of a log. Entries below the cut precede a rotation that names it. Raises as
        `log_checkpoint` does."""
        seen = self.log_checkpoint(origin).checkpoint
        return LogCut(seen.origin, seen.size, seen.root)

    def log_keys(
        self, publisher: Publisher, *, nodes: Sequence[str] = (), on_event: OnEvent = ignore_event
    ) -> tuple[Logged, ...]:
        """Log the inception and the rotations of a publisher again. Raises as `publish` does."""
        from comity_client.publish import log_keys

        return self._log(lambda targets: log_keys(targets, publisher), nodes or [publisher.home], on_event)

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        publisher: Publisher,
        licence: str,
        unlisted_licence: bool = False,
        licence_file: Path | None = None,
        card: Path | None = None,
        parents: Sequence[Parent] = (),
        model_key: PrivateKey | None = None,
        documents: Mapping[str, Path] | None = None,
        nodes: Sequence[str] = (),
        link: bool = False,
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Publish a folder as `namespace/name@version`.

        Args:
            parents: a parent without a digest gets that of the artifact which its name resolves to now, if there is
                one.
            licence: SPDX expression, or any text with `unlisted_licence`; the text of the licence is archived from
                `licence_file`, or from LICENSE in the folder.
            model_key: writes a `model.sig` into the folder first (`model_sig.own_key` returns the publisher's own key).
            documents: files to publish with the artifact, by kind (`published.DOCUMENTS`).
            nodes: where to log: names or addresses of known nodes, or paths of operator sockets. Default: the node of
                the publisher's home log.
            link: let the node on this machine adopt the files by hard link; needs the operator socket.

        The inclusion proofs in the receipt are verified. Raises as `publish.publish_folder` does.
        """
        from comity_client.lineage import with_digests
        from comity_client.publish import PublicationDetails, publish_folder

        full = Name.parse(name)
        more = documents or {}
        given = PublicationDetails(licence, licence_file, card, (), model_key, more, unlisted_licence)

        async def work(targets: LogTargets) -> PublishReceipt:
            named = await with_digests(parents, lambda name: self._user.resolve(targets.session, name), on_event)
            details = replace(given, parents=named)
            return await publish_folder(targets, folder, full, publisher, details, workers=workers(), link=link)

        return self._log(work, nodes or [publisher.home], on_event)

    def advise(
        self,
        reference: str,
        kind: str,
        severity: str,
        text: str,
        *,
        publisher: Publisher,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log an advisory about an artifact. Raises as `publish` does."""

        from comity_client.publish import publish_advisory

        async def work(targets: LogTargets) -> PublishReceipt:
            resolution = await self._user.resolve(targets.session, reference)
            advisory = Advisory(publisher.inception.author, resolution.artifact, kind, severity, text)
            return await publish_advisory(targets, resolution.title, advisory, publisher)

        return self._log(work, nodes or [publisher.home], on_event)

    def report_lost_key(
        self,
        publisher: Publisher,
        since: int,
        text: str,
        *,
        key: str = "",
        severity: str = "critical",
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that a key of a publisher is compromised from an entry of its home log on.

        Args:
            key: the beginning of the digest of the key; default: the key that was retired last, else the current key.

        Raises NotFound (WHICH-KEY), Conflict (NO-HOME-LOG), and as `publish` does.
        """
        from comity_client.publish import publish_advisory

        if not publisher.home:
            why = "the advisory names the entry of that log from which the key is no longer valid"
            raise Conflict(
                f"{publisher.label} has no home log", why=why, hint="comity publisher rotate --help", code="NO-HOME-LOG"
            )
        lost = Compromise(lost_key(publisher, key), publisher.home, since)
        warning = Advisory(publisher.inception.author, publisher.id, KEY_COMPROMISE, severity, text, lost)
        return self._log(
            lambda targets: publish_advisory(targets, publisher.label, warning, publisher),
            nodes or [publisher.home],
            on_event,
        )

    def vouch(
        self,
        what: Path | str,
        statement: str,
        *,
        text: str = "",
        document: Path | None = None,
        by: Publisher | OfferSigner,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that the signer rehashed, evaluated or reproduced an artifact: a folder, or the artifact of a reference.

        *Rehashed* is logged only after every local file was hashed and matches its manifest. Raises as `publish.vouch`
        and `publish` do.

        Args:
            by: a publisher, or a member with its governance keys (`OfferSigner.of_member`).
        """
        from comity_client.offers.signer import OfferSigner
        from comity_client.publish import VouchDetails, vouch

        signer = OfferSigner.of_publisher(by) if isinstance(by, Publisher) else by
        details = VouchDetails(statement, text, read_bounded(document, MAX_OBJECT_BYTES) if document else None)

        async def work(targets: LogTargets) -> PublishReceipt:
            return await vouch(
                targets,
                what,
                details,
                signer,
                resolve=lambda reference: self._user.resolve(targets.session, reference),
                policy=self._user.policy(targets.session.pins),
                workers=workers(),
            )

        return self._log(work, nodes or [signer.home], on_event)

    def approvals(self) -> ApprovalClient:
        """Return the client for approvals by named officers."""
        from comity_client.approving import ApprovalClient

        return ApprovalClient(self._user, self.local_copy, self.resolve, self._log)

    def announce_evaluation(
        self,
        reference: str,
        criteria: Digest,
        *,
        by: Publisher | OfferSigner,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that the signer will evaluate an artifact by criteria with this digest. Raises as `vouch` does."""
        from comity_client.evaluations import announce
        from comity_client.offers.signer import OfferSigner

        signer = OfferSigner.of_publisher(by) if isinstance(by, Publisher) else by

        async def work(targets: LogTargets) -> PublishReceipt:
            return await announce(targets, await self._user.resolve(targets.session, reference), criteria, signer)

        return self._log(work, nodes or [signer.home], on_event)

    def _log(self, work: Callable[[LogTargets], Awaitable[T]], nodes: Sequence[str], on_event: OnEvent) -> T:
        """Run `work`, which logs statements at `nodes`, in a session."""
        from comity_client.publish import LogTargets

        return self._user.run(
            lambda session: work(LogTargets(session, self._user.seen_logs(), nodes, on_event)), on_event
        )

    def lineage(self, what: Path | str, *, check: bool = False, hub_cache: Path | None = None) -> Lineage:
        """Return the lineage of an artifact: of a folder from its pack only, of a reference from the statements of all
        nodes.

        Args:
            check: recompute the weights of each edge whose two artifacts are on this machine.

        Raises as `resolve` and `lineage_of_folder` do.
        """

        from comity_client.lineage import check_edges, lineage_of_folder, lineage_of_resolution

        async def work(session: Session) -> Lineage:
            policy = self._user.policy(session.pins)
            return await lineage_of_resolution(session, await self._user.resolve(session, str(what), policy), policy)

        folder = Path(what) if Path(what).is_dir() else None
        found = lineage_of_folder(folder, self.policy()) if folder else self._user.run(work)
        if not check:
            return found
        places = {found.graph.root.digest: folder} if folder else {}

        def derivation(child: Digest, parent: Digest) -> Derivation:
            sides = (self.local_copy(places.get(d) or f"sha256:{d}", hub_cache=hub_cache) for d in (child, parent))
            return self.derive(*sides)

        return check_edges(found, derivation)

    def local_copy(
        self, what: Path | str, *, hub_cache: Path | None = None, on_hashed: Callable[[int], None] | None = None
    ) -> LocalCopy:
        """Hash an artifact on this machine: a folder, or the pulled copy of a reference. Uses no network. Raises as
        `destinations.hash_local_copy` does."""
        return hash_local_copy(what, workers=workers(), hub_cache=hub_cache, on_hashed=on_hashed)

    def derive(
        self, child: LocalCopy, parent: LocalCopy, *, on_read: Callable[[int], None] = lambda _: None
    ) -> Derivation:
        """Check tensor by tensor whether `child` was made from `parent`. Uses no network. Raises as `lineage.derive`
        does."""
        from comity_client.lineage import derive

        return derive(child, parent, workers=workers(), on_read=on_read)

    def compare(
        self,
        before: Path | str,
        after: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_event: OnEvent = ignore_event,
    ) -> Differences:
        """Compare two artifacts, each a folder or a reference.

        Raises as `resolve` and `destinations.hash_local_copy` do. The result lists the parts that could not be
        compared.
        """

        from comity_client.diff import compare_sides, compared_folder, compared_resolution

        def load(what: Path | str) -> LocalCopy:
            return self.local_copy(what, hub_cache=hub_cache, on_hashed=lambda count: on_event(Progress("", count)))

        async def side(session: Session, what: Path | str, judged_by: Policy) -> ComparedArtifact:
            if isinstance(what, Path) or Path(what).exists():
                return compared_folder(await asyncio.to_thread(load, what), judged_by)
            resolution = await self._user.resolve(session, what, judged_by)
            here = local_copy_loader(f"sha256:{resolution.artifact}", hub_cache, load)
            return await compared_resolution(session, self._user.seen_logs(), resolution, judged_by, on_event, here)

        async def work(session: Session) -> Differences:
            judged_by = policy or self._user.policy(session.pins)
            sides = [await side(session, what, judged_by) for what in (before, after)]
            return await compare_sides(session, *sides)

        return self._user.run(work, on_event)

    def log_derivation(
        self,
        derivation: Derivation,
        *,
        publisher: Publisher,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Sign a derivation and log it. Raises as `publish` does."""
        from comity_client.publish import publish_statement

        entry = sign_derived(derivation.statement_by(publisher.inception.author), publisher.signer())
        return self._log(
            lambda targets: publish_statement(targets, derivation.child.title, entry, publisher.lines),
            nodes or [publisher.home],
            on_event,
        )

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

    def bom(self, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> str:
        """Return a CycloneDX ML-BOM of a folder, which is hashed, or of the artifact of a reference, as nodes describe
        it. Raises as `local_copy` and `show` do."""
        from comity_client import bom

        if isinstance(what, Path):
            here = self.local_copy(what, on_hashed=on_hashed)
            return bom.write_bom(bom.bom_of_folder(here, self.policy()))
        return bom.write_bom(bom.bom_of_artifact(self.show(what)))

    def sign_report(self, report: VerdictReport, publisher: Publisher) -> Entry:
        """Sign a report as `publisher`, with the current time. Raises as `reports.sign_report` does."""
        from comity_client.reports import sign_report

        return sign_report(report, publisher, int(time.time()))

    def log_report(
        self,
        report: VerdictReport,
        entry: Entry,
        publisher: Publisher,
        *,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log the entry that `sign_report` returned, together with the report. Raises as `publish` does."""
        from comity_client.publish import publish_statement

        data, title = report.encode(), report.verdict.name or f"sha256:{entry.statement.subject}"
        return self._log(
            lambda targets: publish_statement(targets, title, entry, publisher.lines, {sha256(data): data}),
            nodes or [publisher.home],
            on_event,
        )

    def check_report(self, path: Path, *, by: str = "") -> CheckedReport:
        """Check the report in a file and its signature. The signer must be known to this user, or be `by`. Uses no
        network. Raises as `reports.read_signed` and `reports.check_signer` do."""
        from comity_client.reports import check_signer, read_signed

        trust = self._user.trust_store()
        return check_signer(read_signed(path), by, self.publishers(), list(trust.pins()), trust.bindings())

    def pin(self, file: FederationSource, *, branch: bool = False) -> TrustPin:
        """Verify and pin a federation file; for `branch` see `TrustStore.pin`. Raises Malformed, Untrusted, NotFound,
        Conflict."""
        return self._user.trust_store().pin(file, branch=branch)

    def pins(self) -> list[TrustPin]:
        return list(self._user.trust_store().pins())

    def unpin(self, federation: str) -> Digest:
        """Remove a pin, by the id of the federation, which may be abbreviated. Returns the id. Raises NotFound,
        Malformed."""
        pinned = {pin.id: str(pin.file) for pin in self.pins()}
        found = find_id(federation, pinned, "federation", "comity trust show")
        self._user.trust_store().unpin(found)
        return found

    def diff(self, file: FederationSource) -> CharterDiff:
        """Return the changes that pinning this file would make. Raises Malformed, Untrusted, NotFound."""
        return self._user.trust_store().diff(file)

    def bindings(self) -> Bindings:
        return self._user.trust_store().bindings()

    def find_target(self, name: str, to: str) -> FoundIdentity:
        """Return the publisher or artifact that `to` gives for a binding of `name`, in full, spelled or abbreviated. It
        is `claimed` if only nodes say what the digits stand for. Raises as `find_identity` and `resolve` do."""
        if Abbreviation.parse(to) is None:
            return FoundIdentity(parse_id(to), "", claimed=False)
        if "/" in name:
            repository = Reference.parse(name).repository
            found = self._user.run(lambda session: self._user.reference(session, f"{repository}@sha256:{to}"))
            return FoundIdentity(found.digest or Digest(""), "", claimed=True)
        known = self._known_identities()
        return self._user.run(lambda session: find_identity(session, name, to, known, self._user.policy(session.pins)))

    def _known_identities(self) -> dict[Digest, str]:
        own = (publisher.inception for publisher in self.publishers())
        return known_identities(own, (pin.federation.body for pin in self.pins()), self.bindings())

    def bind(self, name: str, to: str) -> None:
        """Bind a name for this user: a namespace to an identity, or `namespace/name[@version]` to an artifact. Raises
        Malformed."""
        target = parse_id(to)
        if "/" in name:
            self._user.trust_store().bind_artifact(name, target)
        else:
            self._user.trust_store().bind_publisher(name, target)

    def pin_rotation(self, identity: str, rotation: str) -> None:
        """Pin a rotation of an identity: signatures of retired keys count only if they were logged before `rotation`.
        The identity may be abbreviated if this user knows it. Raises Malformed, NotFound (UNKNOWN-ID)."""
        who = find_id(identity, self._known_identities(), "publisher", "comity trust show")
        self._user.trust_store().pin_rotation(who, parse_id(rotation))

    def unbind(self, name: str) -> None:
        """Remove the binding of a name, and the claimant remembered at its first resolution. Raises NotFound."""
        forgotten = "/" in name and self._user.known_names().forget(name)
        try:
            self._user.trust_store().unbind(name)
        except NotFound:
            if not forgotten:
                raise

    def governance(self, federation: str = "") -> GovernanceClient:
        """Return the governance client of a pinned federation: the one whose id begins with `federation`, or the only
        one. Raises NotFound."""
        from comity_client.charter.own_lines import OwnLines
        from comity_client.charter.proposals import GovernanceClient

        pins = [pin for pin in self._user.trust_store().pins() if pin.id.startswith(federation)]
        if len(pins) != 1:
            why = f"{len(pins)} pinned federations match"
            raise NotFound("the federation is not unique", why=why, hint="comity trust show", code="WHICH-FEDERATION")
        own_lines = OwnLines(self.home.memory / "charter", pins[0].federation)
        return GovernanceClient(pins[0].federation, self._user.run, own_lines)

    def offers(self) -> OfferClient:
        """Return the client for offers, requests and grants of all pinned federations."""
        from comity_client.offers.offer_client import OfferClient

        pins = tuple(pin.federation for pin in self._user.trust_store().pins())
        return OfferClient(pins, self._user.run, self._user.hardware_pins().load)

    def hardware_pins(self) -> HardwarePinStore:
        """Return the owner's pins for hardware evidence."""
        return self._user.hardware_pins()

    def attestation_keys(self) -> AttestationKeyStore:
        """Return the keys that the owner pinned for attestations of other tools."""
        from comity_client.attestations import AttestationKeyStore

        return AttestationKeyStore(self.home.ensure(self.home.attestations))

    def model(self, what: Path | str, pattern: str = "", hub_cache: Path | None = None) -> Model:
        """Return the memory needs of a model, for `offers.fit.fit`: from a folder, from the copy in a Hub cache, or
        from nodes, of which only headers are fetched. Raises as `resolve` does; NotFound if there are no weights,
        Malformed (WHICH-WEIGHTS) if `pattern` must select one of several models."""
        from comity_client.offers.fit import model_in

        folder = Path(what)
        if isinstance(what, str) and not folder.is_dir():
            try:
                folder = cached_folder(what, hub_cache)
            except NotFound:
                return self._user.run(lambda session: self._model(session, what, pattern))
            return replace(model_in(folder, pattern), title=what)  # a snapshot is named by its commit
        return model_in(folder, pattern)

    async def _model(self, session: Session, reference: str, pattern: str) -> Model:
        from comity_client.offers.fit import model_of

        return await model_of(session, await self._user.resolve(session, reference), pattern)


def _destination(resolution: Resolution, to: Path | None, hub_cache: Path | None, made: Manifest) -> Destination:
    from comity_client.pull.pull import destination_of

    return destination_of(resolution, made, to, hub_cache)
