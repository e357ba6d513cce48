"""The Comity client as a synchronous Python API: `Client` pulls, publishes, verifies and joins.

`TrustClient` has what this user trusts, `ArtifactClient` adds artifacts, and `Client` what is asked of nodes and logged
at them. Each method calls one function of the client modules, most of them in a session with the nodes of the pinned
federations, and returns plain values. Errors are those of `comity.trust.errors`; each has the next step as its hint.

Modules that a look at a name, a copy or a node does not need are imported where they are used: loading all of them
costs more than such a look (`tests/unit/comity_cli/test_light_commands.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from comity.bounded_file import read_bounded
from comity.installed_addons import from_addons
from comity.rules.copy_questions import CopyQuestion
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound
from comity.trust.home_logs import home_origin
from comity.trust.keys import PrivateKey
from comity.trust.names import Name
from comity.trust.report import VerdictReport
from comity.trust.rotation import LogCut
from comity.trust.statement import MAX_OBJECT_BYTES, Entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Parent

from comity_client.artifact_client import ArtifactClient
from comity_client.copies import (
    CopyList,
    CountedCopies,
    LoggedResult,
    ShowArtifacts,
    copies_of_federation,
    fold_copies_of_federation,
    logged_results,
)
from comity_client.events import OnEvent, ignore_event
from comity_client.evidence import logs
from comity_client.publishers import Publisher, change_keys, default_home_log, lost_key, new_publisher
from comity_client.pull.destinations import workers
from comity_client.seen import LogContradiction
from comity_client.session import ClaimedGateway, Session, Target, claimed_gateway, home_target
from comity_client.uplink import find_node, open_uplink

if TYPE_CHECKING:
    from comity.rules.continuity.plan import ContinuityPlan
    from comity.rules.descent_shares import DescentShares
    from comity.rules.parties import Party
    from comity.wire.upstream import QueuedImport

    from comity_client.approving import ApprovalClient
    from comity_client.bundles.exporting import ExportedBundle
    from comity_client.bundles.loading import LoadResult
    from comity_client.bundles.writing import DiskPlan
    from comity_client.charter.governance import GovernanceClient
    from comity_client.dependents import Dependents
    from comity_client.identity_signer import IdentitySigner
    from comity_client.importing import Imported, UpstreamState
    from comity_client.node_states import NodeState
    from comity_client.offers.offer_client import OfferClient
    from comity_client.party_drill import FederationDrill
    from comity_client.publish import Logged, LogTargets, PublishReceipt
    from comity_client.vouching import VouchDetails

T = TypeVar("T")


class Client(ArtifactClient):
    """A user's client. Its arguments are those of `TrustClient`."""

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
        """Have a node mirror a repository of a Hub (`hf:org/name[@revision]`) or a list of files at a web server
        (`https:host/name`), or import a folder on the node's machine.

        Args:
            node: the path of the operator socket of the node.
            endpoint: the URL of the upstream; default: the Hugging Face Hub, or the host in the name.
            hosts: hosts that may serve files in addition to the endpoint.
            terms, token: the accepted upstream terms, and the token that is sent to the endpoint only.
            claimed: the origin of a folder, if its layout does not give one.

        After a failure, the same call resumes. Raises as `importing.import_at` does.
        """
        from comity.wire.upstream import ImportOrder

        from comity_client.importing import import_at

        folder = str(source.absolute()) if isinstance(source, Path) else ""
        name = claimed if isinstance(source, Path) else source
        order = ImportOrder(name, endpoint, folder, tuple(hosts), terms, token)
        return self._user.run(
            lambda session: import_at(session, self._user.seen_logs(), node, order, on_event), on_event
        )

    def decide_import(
        self, source: str, node: str, *, endpoint: str = "", hosts: Sequence[str] = (), keep: bool
    ) -> None:
        """Have a node queue an import, or end a queued one. `keep` tells which; the other arguments are those of
        `import_upstream`. Raises as `importing.decide_at` does."""
        from comity_client.importing import decide_at

        self._user.run(lambda session: decide_at(session, node, source, endpoint, tuple(hosts), keep=keep))

    def queued_imports(self, node: str) -> tuple[QueuedImport, ...]:
        """The imports that a node keeps. Raises as `importing.queued_at` does."""
        from comity_client.importing import queued_at

        return self._user.run(lambda session: queued_at(session, node))

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
        """Have a node check the upstream of `hf:org/name@commit` again. Raises as `importing.check_at` does."""
        from comity_client.importing import check_at

        return self._user.run(lambda session: check_at(session, node, name, token))

    def copies(self, node: str = "", artifact: Digest | None = None) -> CopyList:
        """Return what a node says about the copies of all artifacts, or of one: the named node, or the first that
        answers. Raises NotFound, Unavailable."""
        return self._user.run(lambda session: copies_of_federation(session, node, artifact))

    def fold_copies(
        self,
        question: CopyQuestion,
        node: str = "",
        show: ShowArtifacts = lambda counted, found: None,
    ) -> CountedCopies:
        """Return what a node says about the copies of all artifacts, counted by sets of copies: the named node, or the
        first that answers. `show` gets the artifacts that the question is about, as they arrive. Raises NotFound,
        Unavailable."""
        return self._user.run(lambda session: fold_copies_of_federation(session, node, question, show))

    def drill(self, node: str = "", hubs: Sequence[str] = ()) -> FederationDrill:
        """Return what is left of the federation without each single party, by reasoning over what nodes answer. Raises
        NotFound, Unavailable."""
        from comity_client.party_drill import drill_federation

        return self._user.run(lambda session: drill_federation(session, node, hubs))

    def descent(
        self, holder: str, publisher: str, laws: Mapping[str, str], node: str = "", *, everybody: bool = False
    ) -> DescentShares:
        """Return from whom the artifacts descend, as the named node counts, or the first that answers: of what `holder`
        (a member or node) holds, and of what the member `publisher` published, if these are given. `laws` are what the
        asker states of authors; with `everybody`, what only others than members publish counts too. Raises NotFound,
        Unavailable."""
        from comity.rules.descent import DescentQuestion

        from comity_client.descent import descent_of_federation, member_or_node

        async def work(session: Session) -> DescentShares:
            holding, publishing = (member_or_node(session, text) if text else None for text in (holder, publisher))
            return await descent_of_federation(
                session, node, DescentQuestion(holding, publishing), laws, everybody=everybody
            )

        return self._user.run(work)

    def dependents(self, party: Party, node: str = "") -> Dependents:
        """Return what needs a party that holds no copies, one of `dependents.FURTHER_PARTIES`, as the named node, or
        the first that answers, counts it. Raises NotFound, Unavailable."""
        from comity_client.dependents import find_dependents

        async def work(session: Session) -> Dependents:
            return (await find_dependents(session, node, (party,)))[party]

        return self._user.run(work)

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

    def accusations(self, nodes: Sequence[str] = ()) -> list[logs.LogAccusation]:
        """Return the misbehaviour proofs that nodes keep, verified again here: of the named nodes, or of all. Raises
        NotFound, Unavailable."""
        return self._user.run(lambda session: logs.accusations(session, nodes))

    def log_checkpoint(self, origin: str) -> logs.SeenCheckpoint:
        """Raises as `logs.newest_checkpoint` does."""
        return self._user.run(lambda session: logs.newest_checkpoint(session, self._user.seen_logs(), origin))

    def log_entries(self, origin: str, start: int, end: int) -> list[logs.LogEntry]:
        """Raises Malformed, NotFound, Unavailable."""
        return self._user.run(lambda session: logs.read_entries(session, origin, start, end))

    def log_proof(self, line: Digest) -> list[logs.ProvenIn]:
        """Raises NotFound, Unavailable, Untrusted."""
        return self._user.run(lambda session: logs.prove_line(session, line))

    def log_check(self, origin: str) -> logs.LogCheck:
        """Raises Equivocation, Untrusted, NotFound, Unavailable."""
        return self._user.run(lambda session: logs.check_log(session, self._user.seen_logs(), origin))

    def new_publisher(self, label: str, jurisdiction: str, home_origin: str | None = None) -> Publisher:
        """Create an identity. `home_origin` is its home log, by its origin or its verifier key, empty for none; None
        selects the log of a member of a pinned federation, of the same jurisdiction if there is one. The identity names
        it with its key if the pinned federations say which log that is. Raises Conflict, Malformed."""
        folder, pins = self.home.ensure(self.home.publishers), self._user.pins()
        home = default_home_log(pins, jurisdiction) if home_origin is None else Session(pins).home_named(home_origin)
        return new_publisher(folder, label=label, jurisdiction=jurisdiction, home=home)

    def change_keys(
        self,
        publisher: Publisher,
        *,
        recovery: Sequence[Path] = (),
        home_log: str = "",
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> tuple[Publisher, tuple[Logged, ...]]:
        """Replace the keys of a publisher by means of its recovery key, and log the rotation with a cut of its home log
        at the current size. The new keys are on disk before anything is logged; if logging fails, publish or call
        `log_keys`.

        Args:
            home_log: names its home log again, as `new_publisher` does; empty to keep what it names.

        Raises as `publishers.change_keys` and `publish.publish_folder` do.
        """
        cut = [self.cut(publisher.home)] if publisher.home else []
        home = Session(self._user.pins()).home_named(home_log) if home_log else ""
        changed = change_keys(publisher, recovery, cut, home)
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

        return self.log(lambda targets: log_keys(targets, publisher), nodes or home_target(publisher.home), on_event)

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
        sign_image: bool = False,
        kind: str | None = None,
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
            sign_image: also sign the image of the artifact for cosign and its like, as `sign_image` does.
            kind: also state the kind of the artifact (`artifact_kind.ARTIFACT_KINDS`, or another word).
            nodes: where to log: names or addresses of known nodes, or paths of operator sockets. Default: the node of
                the publisher's home log.
            link: let the node on this machine adopt the files by hard link; needs the operator socket.

        The inclusion proofs in the receipt are verified. Raises as `publish.publish_folder` does.
        """
        from comity_client.publish import PublicationDetails, publish_folder, with_digests

        full = Name.parse(name)
        more = documents or {}
        given = PublicationDetails(licence, licence_file, card, (), model_key, more, unlisted_licence, sign_image, kind)

        async def work(targets: LogTargets) -> PublishReceipt:
            named = await with_digests(parents, lambda name: self._user.resolve(targets.session, name), on_event)
            details = replace(given, parents=named)
            return await publish_folder(targets, folder, full, publisher, details, workers=workers(), link=link)

        return self.log(work, nodes or home_target(publisher.home), on_event)

    def sign_image(
        self, reference: str, *, publisher: Publisher, nodes: Sequence[str] = (), on_event: OnEvent = ignore_event
    ) -> PublishReceipt:
        """Sign the image of an artifact that this publisher published before, for programs that check images, and log
        the signature. After a rotation, it is signed again with the new keys. Raises Malformed (NO-IMAGE,
        NO-CLASSICAL-KEY), Refused (NOT-PUBLISHER), and as `publish` and `resolve` do."""
        from comity_client.publish import PublishReceipt, log_image, published_manifest, require_own, sign_own_image

        async def work(targets: LogTargets) -> PublishReceipt:
            found = await self._user.resolve(targets.session, reference)
            stated = found.publication.published if found.publication else None
            require_own(publisher, stated.by if stated else None, found.title)
            assert stated is not None  # its publisher was compared
            manifest = await published_manifest(targets.session, found.artifact)
            image = await asyncio.to_thread(sign_own_image, publisher, stated.name, manifest)
            logged = await log_image(targets, publisher, image)
            return PublishReceipt(str(stated.name), found.artifact, logged.logged, image=logged)

        return self.log(work, nodes or home_target(publisher.home), on_event)

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

        return self.log(work, nodes or home_target(publisher.home), on_event)

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
        lost = Compromise(lost_key(publisher, key), home_origin(publisher.home), since)
        warning = Advisory(publisher.inception.author, publisher.id, KEY_COMPROMISE, severity, text, lost)
        return self.log(
            lambda targets: publish_advisory(targets, publisher.label, warning, publisher),
            nodes or home_target(publisher.home),
            on_event,
        )

    def vouch(
        self,
        what: Path | str,
        statement: str,
        *,
        text: str = "",
        document: Path | None = None,
        by: Publisher | IdentitySigner,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that the signer rehashed, evaluated or reproduced an artifact: a folder, or the artifact of a reference.

        *Rehashed* is logged only after every local file was hashed and matches its manifest. Raises as
        `vouching.vouch` and `publish` do.

        Args:
            by: a publisher, or a member with its governance keys (`IdentitySigner.of_member`).
        """
        from comity_client.vouching import VouchDetails

        details = VouchDetails(statement, text, read_bounded(document, MAX_OBJECT_BYTES) if document else None)
        return self._log_vouch(what, details, by, nodes, on_event)

    def vouch_built(
        self,
        reference: str,
        built: Path,
        *,
        text: str = "",
        by: Publisher | IdentitySigner,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that the signer built the artifact of a reference again (*reproduced*), if the folder `built` has its
        bytes. Raises Untrusted (NOT-REBUILT) if not, and as `vouch` does."""
        from comity_client.vouching import REPRODUCED, VouchDetails

        return self._log_vouch(reference, VouchDetails(REPRODUCED, text, built=built), by, nodes, on_event)

    def _log_vouch(
        self,
        what: Path | str,
        details: VouchDetails,
        by: Publisher | IdentitySigner,
        nodes: Sequence[str],
        on_event: OnEvent,
    ) -> PublishReceipt:
        from comity_client.identity_signer import IdentitySigner
        from comity_client.vouching import vouch

        signer = IdentitySigner.of(by)

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

        return self.log(work, nodes or home_target(signer.home), on_event)

    def approvals(self) -> ApprovalClient:
        """Return the client for approvals by named officers."""
        from comity_client.approving import ApprovalClient

        return ApprovalClient(self._user, self.local_copy, self.resolve, self.log)

    def announce_evaluation(
        self,
        reference: str,
        criteria: Digest,
        *,
        by: Publisher | IdentitySigner,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that the signer will evaluate an artifact by criteria with this digest. Raises as `vouch` does."""
        from comity_client.identity_signer import IdentitySigner
        from comity_client.vouching import announce

        signer = IdentitySigner.of(by)

        async def work(targets: LogTargets) -> PublishReceipt:
            return await announce(targets, await self._user.resolve(targets.session, reference), criteria, signer)

        return self.log(work, nodes or home_target(signer.home), on_event)

    def log(
        self, work: Callable[[LogTargets], Coroutine[Any, Any, T]], nodes: Sequence[Target], on_event: OnEvent
    ) -> T:
        """Run `work`, which logs statements at `nodes`, in a session."""
        from comity_client.publish import LogTargets

        return self._user.run(
            lambda session: work(LogTargets(session, self._user.seen_logs(), nodes, on_event)), on_event
        )

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
        sign_image: bool = False,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log the entry that `sign_report` returned, together with the report. Raises as `publish` does.

        Args:
            sign_image: also sign and log a summary about the image of the artifact, for cosign and its like. Raises
                Refused (IMAGE-REFUSED) if the artifact was not accepted.
        """
        from comity.trust.report import Verified

        from comity_client.publish import log_image, publish_statement, published_manifest, summarise_own_image

        data, title = report.encode(), report.verdict.name or f"sha256:{entry.statement.subject}"

        async def work(targets: LogTargets) -> PublishReceipt:
            image = None
            if sign_image:
                verified = Verified.parse(entry.statement)
                manifest = await published_manifest(targets.session, verified.artifact)
                image = await asyncio.to_thread(summarise_own_image, publisher, manifest, verified)
            receipt = await publish_statement(targets, title, entry, publisher.lines, {sha256(data): data})
            return replace(receipt, image=await log_image(targets, publisher, image)) if image else receipt

        return self.log(work, nodes or home_target(publisher.home), on_event)

    def log_plan(
        self,
        plan: ContinuityPlan,
        entry: Entry,
        publisher: Publisher,
        *,
        nodes: Sequence[str],
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Log that a plan was signed; what is in it is not told. Raises as `publish` does."""
        from comity_client.publish import publish_statement

        return self.log(lambda targets: publish_statement(targets, plan.name, entry, publisher.lines), nodes, on_event)

    def governance(self, federation: str = "") -> GovernanceClient:
        """Return the governance client of a pinned federation: the one whose id begins with `federation`, or the only
        one. Raises NotFound."""
        from comity_client.charter.governance import GovernanceClient, OwnLines

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
        appraise = [appraiser(self.home) for appraiser in from_addons("appraiser")]
        return OfferClient(pins, self._user.run, *appraise[:1])
