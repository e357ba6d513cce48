"""What every topic needs: the home, the pins, a session over their nodes.

Bytes: from nodes, from an upstream through a node of one's own, and judged here.

What there is, who says what about it, who has it; logs, as an outsider reads them.

What publishers say, under which keys.

What was made from what, and what differs.

What is in an artifact, written down: looks into its files, bills of material, signed reports.

What the owner trusts: pins, bindings, rotations.

The Python API: one object, synchronous, thin. Each method opens a session, awaits one function of its room, and
returns plain values. Errors are those of `comity.trust.errors`, each with the next step as its hint.

The topics of the Python API. `client.Client` is all of them.

The Comity client: pull, publish, verify and join, as a typed Python API."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from comity.transfer.scheduler import TransferLimits
from comity.trust.artifact import Manifest
from comity.trust.charter.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.encoding import Digest, parse_digest, sha256
from comity.trust.errors import Conflict, NotFound
from comity.trust.evidence import Verdict
from comity.trust.keys import PrivateKey
from comity.trust.names import UPSTREAM, Name, is_segment
from comity.trust.policy import Policy, SafetyRule
from comity.trust.report import VerdictReport
from comity.trust.rotation import LogCut
from comity.trust.statement import MAX_OBJECT_BYTES, Entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Parent, sign_derived
from comity.trust.verify import verify
from comity.verifier import examine, load_policy, read_bounded
from comity.wire.upstream import ImportOrder
from comity_client import bom
from comity_client.charter.proposals import GovernanceClient
from comity_client.diff import ComparedArtifact, Differences, compare_sides, side_of_folder, side_of_resolution
from comity_client.events import NodeAtFault, OnEvent, Progress, ignore_event
from comity_client.evidence.inspect import (
    ArtifactInfo,
    FoundArtifacts,
    LogAccusation,
    LogCheck,
    LogEntry,
    NodeState,
    ProvenIn,
    Replica,
    SeenCheckpoint,
    accusations,
    check_log,
    describe_artifact,
    newest_checkpoint,
    node_states,
    prove_line,
    read_entries,
    replicas,
    search_artifacts,
)
from comity_client.evidence.resolve import Resolution, resolve, upstream_of
from comity_client.home import Home
from comity_client.lineage import Derivation, Lineage, check_edges, derive, of_folder, of_resolution, with_digests
from comity_client.offers.fit import Model, model_in, model_of
from comity_client.offers.market import OfferClient
from comity_client.offers.speaker import OfferSigner
from comity_client.publish import (
    Imported,
    Logged,
    PublicationDetails,
    PublishReceipt,
    UpstreamState,
    Vouching,
    check_at,
    import_at,
    log_keys,
    publish_advisory,
    publish_folder,
    publish_statement,
    vouch,
)
from comity_client.publishers import Publisher, change_keys, find_publisher, lost_key, new_publisher, publishers
from comity_client.pull.destinations import (
    Destination,
    FolderDestination,
    HubCacheDestination,
    LocalCopy,
    cached,
    default_cache,
    folder_of,
    held,
    held_of,
    reference_of,
)
from comity_client.pull.fetch import PlacedPieces
from comity_client.pull.keyless import keyless_for
from comity_client.pull.pull import Pulled, Tools, pull
from comity_client.reports import CheckedReport, check_signer, read_signed, sign_report
from comity_client.scan import Census, PickleScan, scan_pickles, take_census
from comity_client.seen import KnownNames, LogContradiction, SeenLogs
from comity_client.session import Session, ToldGateway, open_session, told_gateway
from comity_client.trust_store import Bindings, CharterDiff, TrustPin, TrustStore, default_policy, mirrored_policy

T = TypeVar("T")


class Base:
    """A user's home, and how its topics reach nodes.

    Args:
        home: where it remembers; `Home.default()` where not given.
        limits: patience and bounds of transfers.
    """

    def __init__(self, home: Home | None = None, *, limits: TransferLimits | None = None) -> None:
        self.home = home or Home.default()
        self._limits = limits or TransferLimits()

    def policy(self, path: Path | None = None) -> Policy:
        """The policy in a file; without one, what follows from the pins (see `policies`). Raises Malformed, Untrusted,
        NotFound."""
        if path is not None:
            return load_policy(path)
        return default_policy((pin.federation for pin in self._trust().pins()), self._trust().bindings())

    def publishers(self) -> list[Publisher]:
        return list(publishers(self.home.publishers))

    def publisher(self, name: str) -> Publisher:
        """By folder, label or beginning of the id. Raises NotFound."""
        return find_publisher(self.publishers(), name)

    def _policy_for(self, reference: str) -> Policy:
        policy = self.policy()
        return mirrored_policy(policy) if reference.startswith(UPSTREAM) else policy

    async def _resolve(self, session: Session, reference: str, policy: Policy) -> Resolution:
        return await resolve(session, reference_of(reference), policy, self._trust().bindings(), self._names())

    def _with(self, work: Callable[[Session], Awaitable[T]], on_event: OnEvent = ignore_event) -> T:
        pins = [pin.federation for pin in self._trust().pins()]

        async def run() -> T:
            async with open_session(pins, lambda node, error: on_event(NodeAtFault(node.name, str(error)))) as session:
                return await work(session)

        return asyncio.run(run())

    def _trust(self) -> TrustStore:
        return TrustStore(self.home.ensure(self.home.trust))

    def _memory(self) -> SeenLogs:
        return SeenLogs(self.home.ensure(self.home.memory))

    def _names(self) -> KnownNames:
        return KnownNames(self.home.ensure(self.home.memory))

    def _placed(self) -> PlacedPieces:
        return PlacedPieces(self.home.ensure(self.home.placed))


def workers() -> int:
    """Threads that hash files."""
    return min(4, os.cpu_count() or 1)


class Mirroring(Base):
    """Bytes: from nodes, from an upstream through a node of one's own, and judged here."""

    def pull(
        self,
        reference: str,
        *,
        to: Path | None = None,
        hub_cache: Path | None = None,
        include: Sequence[str] = (),
        policy: Policy | None = None,
        on_event: OnEvent = ignore_event,
    ) -> Pulled:
        """Have an artifact on this machine, verified: in folder `to`, or in a Hub cache (the user's own by default).

        Raises what `pull.pull` raises; nothing is placed then, and what is verified stays for the next try.
        """

        async def work(session: Session) -> Pulled:
            judged_by = policy or self._policy_for(reference)
            resolution = await self._resolve(session, reference, judged_by)
            tools = Tools(session, self._memory(), self._placed(), judged_by, self._limits, on_event)
            return await pull(tools, resolution, lambda made: _place(resolution, made, to, hub_cache), include)

        return self._with(work, on_event)

    def verify(
        self,
        what: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> Verdict:
        """Judge a folder with its evidence pack, or what a reference stands for in a Hub cache. Uses no network.

        Raises NotFound where it is not here, Malformed where a pack breaks a bound.
        """
        folder = Path(what)
        if isinstance(what, str) and not folder.is_dir():
            folder = cached(hub_cache or default_cache(), reference_of(what))
        evidence = examine(folder, workers=workers(), on_hashed=on_hashed)
        judged_by = policy or self._policy_for(str(what))
        return verify(evidence, judged_by, keyless=keyless_for(judged_by))

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
        """Have a node mirror a repository of a Hub (`hf:org/name[@revision]`), or take in a folder on its machine.

        Args:
            node: the path of its operator's socket.
            endpoint: the Hub's URL; the Hugging Face Hub's where none is given.
            hosts: from where files may come beside the endpoint.
            terms, token: what was accepted upstream, and the token that the endpoint alone is shown.
            claimed: where a folder is from, if its layout does not say.

        Repeating it after a failure goes on from there. Raises as `importing.import_at` does.
        """
        folder = str(source.absolute()) if isinstance(source, Path) else ""
        name = claimed if isinstance(source, Path) else source
        order = ImportOrder(name, endpoint, folder, tuple(hosts), terms, token)
        return self._with(lambda session: import_at(session, self._memory(), node, order, on_event), on_event)

    def check_upstream(self, name: str, node: str, *, token: str = "") -> UpstreamState:
        """Have a node ask again how the upstream of `hf:org/name@commit` stands. Raises as `importing.check_at`."""
        return self._with(lambda session: check_at(session, node, name, token))


def _place(resolution: Resolution, manifest: Manifest, to: Path | None, hub_cache: Path | None) -> Destination:
    if to is not None:
        return FolderDestination(to, manifest)
    upstream = upstream_of(resolution.mirroring)
    if upstream and (resolution.reference.mirrored or not resolution.publication):
        namespace, _, repository = upstream.repository.partition("/")
        named = Name(namespace, repository, upstream.requested if is_segment(upstream.requested) else upstream.commit)
        return HubCacheDestination(hub_cache or default_cache(), named, manifest, newest=False, commit=upstream.commit)
    if resolution.publication is None:
        hint = f"comity pull {resolution.reference} --to DIR"
        raise NotFound("an artifact without a name has no place in a Hub cache", hint=hint, code="NO-NAME")
    newest = resolution.reference.version is None and resolution.reference.digest is None
    name = resolution.publication.published.name
    return HubCacheDestination(hub_cache or default_cache(), name, manifest, newest=newest)


class Looking(Base):
    """What there is, who says what about it, who has it; logs, as an outsider reads them."""

    def resolve(self, reference: str) -> Resolution:
        """What a reference stands for. Raises Malformed, NotFound, Unavailable; PolicyNotMet where only the owner can
        decide, with the claimants listed."""
        return self._with(lambda session: self._resolve(session, reference, self.policy()))

    def search(self, text: str, limit: int = 50) -> list[FoundArtifacts]:
        """Raises Unavailable."""
        return self._with(lambda session: search_artifacts(session, text, limit))

    def show(self, reference: str) -> ArtifactInfo:
        """Raises as `resolve` does."""

        async def work(session: Session) -> ArtifactInfo:
            policy = self.policy()
            return await describe_artifact(session, await self._resolve(session, reference, policy), policy)

        return self._with(work)

    def whereis(self, reference: str) -> list[Replica]:
        """Who claims a copy, and who has it as they answer now. Raises as `resolve` does."""

        async def work(session: Session) -> list[Replica]:
            policy = self.policy()
            return await replicas(session, await self._resolve(session, reference, policy), policy)

        return self._with(work)

    def status(self, on_event: OnEvent = ignore_event) -> list[NodeState]:
        """How every known node is; alarms where a log contradicts what was seen before."""
        return self._with(lambda session: node_states(session, self._memory(), on_event), on_event)

    def gateway(self, node: str = "") -> ToldGateway:
        """Where a node claims that its gateway is: the one named, or the only one. Raises as `told_gateway` does."""
        return self._with(lambda session: told_gateway(session, node))

    def misbehaviour(self) -> list[LogContradiction]:
        """Contradictions of logs that this user has seen, and keeps the proof of."""
        return list(self._memory().contradictions())

    def accusations(self, nodes: Sequence[str] = ()) -> list[LogAccusation]:
        """What nodes keep against logs, judged again here: those named, or all. Raises NotFound, Unavailable."""
        return self._with(lambda session: accusations(session, nodes))

    def log_checkpoint(self, origin: str) -> SeenCheckpoint:
        """Raises as `logs.newest_checkpoint` does."""
        return self._with(lambda session: newest_checkpoint(session, self._memory(), origin))

    def log_entries(self, origin: str, start: int, end: int) -> list[LogEntry]:
        """Raises Malformed, NotFound, Unavailable."""
        return self._with(lambda session: read_entries(session, origin, start, end))

    def log_proof(self, line: Digest) -> list[ProvenIn]:
        """Raises NotFound, Unavailable, Untrusted."""
        return self._with(lambda session: prove_line(session, line))

    def log_check(self, origin: str) -> LogCheck:
        """Raises Equivocation, Untrusted, NotFound, Unavailable."""
        return self._with(lambda session: check_log(session, self._memory(), origin))


class Publishing(Looking):
    """What publishers say, under which keys."""

    def new_publisher(self, label: str, jurisdiction: str, home_origin: str) -> Publisher:
        """A new identity. Raises Conflict, Malformed."""
        folder = self.home.ensure(self.home.publishers)
        return new_publisher(folder, label=label, jurisdiction=jurisdiction, home=home_origin)

    def change_keys(
        self,
        publisher: Publisher,
        *,
        recovery: Sequence[Path] = (),
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> tuple[Publisher, tuple[Logged, ...]]:
        """New keys for a publisher, by its recovery key; logged like a publication, with a cut of its home log as it is
        now. The new keys are on this disk before anything is logged: on a failure there, publish or call `log_keys`.

        Raises as `publishers.change_keys` and `publish.publish_folder` do.
        """

        cut = [self.cut(publisher.home)] if publisher.home else []
        changed = change_keys(publisher, recovery, cut)
        return changed, self.log_keys(changed, nodes=nodes, on_event=on_event)

    def cut(self, origin: str) -> LogCut:
        """How long a log is now: what stands in it below was said before a change of keys that names this. Raises as
        `log_checkpoint` does."""
        seen = self.log_checkpoint(origin).checkpoint
        return LogCut(seen.origin, seen.size, seen.root)

    def log_keys(
        self, publisher: Publisher, *, nodes: Sequence[str] = (), on_event: OnEvent = ignore_event
    ) -> tuple[Logged, ...]:
        """Log a publisher's inception and rotations once more. Raises as `publish` does."""
        return self._with(
            lambda session: log_keys(session, self._memory(), publisher, nodes or [publisher.home], on_event=on_event),
            on_event,
        )

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        publisher: Publisher,
        licence: str,
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
            parents: those without a digest get that of the artifact which their name stands for now, if it does.
            licence: SPDX expression; its text is archived from `licence_file`, or LICENSE in the folder.
            model_key: writes a `model.sig` into the folder first (`model_signing.own_key` gives the publisher's own).
            documents: files to put beside it, by kind (`published.DOCUMENTS`).
            nodes: where to log it: names or addresses of known nodes, or paths of operators' sockets. The publisher's
                home log's node where none is given.
            link: let the node on this machine take the files by hard link; needs the operator's socket.

        The receipt's inclusion proofs were checked. Raises as `publish.publish_folder` does.
        """
        full = Name.parse(name)

        async def work(session: Session) -> PublishReceipt:
            policy = self.policy()
            named = await with_digests(parents, lambda name: self._resolve(session, name, policy), on_event)
            return await publish_folder(
                session,
                self._memory(),
                folder,
                full,
                publisher,
                PublicationDetails(licence, licence_file, card, named, model_key, documents or {}),
                nodes or [publisher.home],
                workers=workers(),
                link=link,
                on_event=on_event,
            )

        return self._with(work)

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
        """Log a warning about an artifact. Raises as `publish` does."""

        async def work(session: Session) -> PublishReceipt:
            resolution = await self._resolve(session, reference, self.policy())
            advisory = Advisory(publisher.inception.author, resolution.artifact, kind, severity, text)
            return await publish_advisory(
                session,
                self._memory(),
                resolution.title,
                advisory,
                publisher,
                nodes or [publisher.home],
                on_event=on_event,
            )

        return self._with(work)

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
        """Log that a key of a publisher was in other hands from an entry of its home log on.

        Args:
            key: the beginning of the key's digest; the one that was last retired, or the present one, if not given.

        Raises NotFound (WHICH-KEY), Conflict (NO-HOME-LOG), and as `publish` does.
        """
        if not publisher.home:
            why = "the notice names an entry of it, from which on the key counts no more"
            raise Conflict(
                f"{publisher.label} has no home log", why=why, hint="comity publisher rotate --help", code="NO-HOME-LOG"
            )
        lost = Compromise(lost_key(publisher, key), publisher.home, since)
        warning = Advisory(publisher.inception.author, publisher.id, KEY_COMPROMISE, severity, text, lost)
        targets = nodes or [publisher.home]
        return self._with(
            lambda session: publish_advisory(
                session, self._memory(), publisher.label, warning, publisher, targets, on_event=on_event
            )
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
        """Log that one rehashed, evaluated or reproduced an artifact: a folder, or what a reference stands for.

        *Rehashed* is logged only after every file that is here was hashed and is as its manifest lists. Raises as
        `vouching.vouch` and `publish` do.

        Args:
            by: a publisher, or a member with its governance keys (`Voice.of_member`).
        """
        voice = OfferSigner.of_publisher(by) if isinstance(by, Publisher) else by
        word = Vouching(statement, text, read_bounded(document, MAX_OBJECT_BYTES) if document else None)

        async def work(session: Session) -> PublishReceipt:
            return await vouch(
                session,
                self._memory(),
                what,
                word,
                voice,
                nodes or [voice.home],
                resolve=lambda reference: self._resolve(session, reference, self.policy()),
                policy=self.policy(),
                workers=workers(),
                on_event=on_event,
            )

        return self._with(work, on_event)


class Descending(Base):
    """What was made from what, and what differs."""

    def lineage(self, what: Path | str, *, check: bool = False, hub_cache: Path | None = None) -> Lineage:
        """What an artifact comes from: a folder by its pack alone, a reference by what all nodes say.

        Args:
            check: make the weights of each edge again whose two sides are on this machine.

        Raises as `resolve` and `lineage.of_folder` do.
        """

        async def work(session: Session) -> Lineage:
            policy = self.policy()
            return await of_resolution(session, await self._resolve(session, str(what), policy), policy)

        folder = Path(what) if Path(what).is_dir() else None
        found = of_folder(folder, self.policy()) if folder else self._with(work)
        if not check:
            return found
        places = {found.graph.root.digest: folder} if folder else {}

        def derivation(child: Digest, parent: Digest) -> Derivation:
            sides = (self.held(places.get(d) or f"sha256:{d}", hub_cache=hub_cache) for d in (child, parent))
            return self.derive(*sides)

        return check_edges(found, derivation)

    def held(
        self, what: Path | str, *, hub_cache: Path | None = None, on_hashed: Callable[[int], None] | None = None
    ) -> LocalCopy:
        """An artifact whose bytes are here, hashed now: a folder, or what a reference was pulled to. Uses no network.
        Raises as `held.held` does."""
        return held(what, workers=workers(), hub_cache=hub_cache, on_hashed=on_hashed)

    def derive(
        self, child: LocalCopy, parent: LocalCopy, *, on_read: Callable[[int], None] = lambda _: None
    ) -> Derivation:
        """Whether `child` was made from `parent`, tensor by tensor. Uses no network. Raises as `derivations.derive`
        does."""
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
        """What differs between two artifacts, each a folder or a reference.

        Raises as `resolve` and `held.held` do; what could not be compared of them is in the result.
        """
        judged_by = policy or self.policy()

        def hold(what: Path | str) -> LocalCopy:
            return self.held(what, hub_cache=hub_cache, on_hashed=lambda count: on_event(Progress("", count)))

        async def side(session: Session, what: Path | str) -> ComparedArtifact:
            if isinstance(what, Path) or Path(what).exists():
                return side_of_folder(await asyncio.to_thread(hold, what), judged_by)
            resolution = await self._resolve(session, what, judged_by)
            here = held_of(f"sha256:{resolution.artifact}", hub_cache, hold)
            return await side_of_resolution(session, self._memory(), resolution, judged_by, on_event, here)

        async def work(session: Session) -> Differences:
            return await compare_sides(session, await side(session, before), await side(session, after))

        return self._with(work, on_event)

    def log_derivation(
        self,
        derivation: Derivation,
        *,
        publisher: Publisher,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore_event,
    ) -> PublishReceipt:
        """Sign what was found, and log it. Raises as `publish` does."""
        entry = sign_derived(derivation.said_by(publisher.inception.author), publisher.signer())
        title, where = derivation.child.title, nodes or [publisher.home]
        return self._with(
            lambda session: publish_statement(
                session, self._memory(), title, entry, {}, publisher, where, on_event=on_event
            ),
            on_event,
        )


class Reporting(Descending, Looking):
    """What is in an artifact, written down: looks into its files, bills of material, signed reports."""

    def scan(self, what: Path | str, *, policy: Policy | None = None, hub_cache: Path | None = None) -> Census:
        """Look into the files of any folder, or of what a reference was pulled to; nothing is loaded or hashed. Without
        a policy the default one says what is refused. Raises NotFound, Unavailable, Malformed."""
        rule = policy.safety if policy else SafetyRule()
        return take_census(folder_of(what, hub_cache), rule, workers=workers())

    def scan_pickles(self, census: Census) -> PickleScan:
        """What picklescan says of the files that it may know something about. Raises as `scan_pickles` does."""
        return scan_pickles(census.folder, [each.file.path for each in census.files if each.may_hold_pickles])

    def bom(self, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> str:
        """A CycloneDX ML-BOM of a folder, hashed now, or of what a reference stands for at the nodes. Raises as `held`
        and `show` do."""
        if isinstance(what, Path):
            here = self.held(what, on_hashed=on_hashed)
            return bom.write_bom(bom.bom_of_folder(here, self.policy()))
        return bom.write_bom(bom.bom_of_artifact(self.show(what)))

    def sign_report(self, report: VerdictReport, publisher: Publisher) -> Entry:
        """`publisher` says that they came to this report now. Raises as `reports.signed.sign_report` does."""
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
        """Log what `sign_report` gave, the report with it. Raises as `publish` does."""
        data, title = report.encode(), report.verdict.name or f"sha256:{entry.statement.subject}"
        where = nodes or [publisher.home]
        return self._with(
            lambda session: publish_statement(
                session, self._memory(), title, entry, {sha256(data): data}, publisher, where, on_event=on_event
            ),
            on_event,
        )

    def check_report(self, path: Path, *, by: str = "") -> CheckedReport:
        """The report in a file and the signature beside it, which holds and is of somebody whom this user knows, or of
        `by`. Uses no network. Raises as `reports.signed.read_signed` and `reports.signers.check_signer` do."""
        trust = self._trust()
        return check_signer(read_signed(path), by, self.publishers(), list(trust.pins()), trust.bindings())


class Trusting(Base):
    """What the owner trusts: pins, bindings, rotations."""

    def pin(self, file: Path | bytes, *, branch: bool = False) -> TrustPin:
        """Hold on to a federation file, after proving it; `branch`: see `TrustStore.pin`. Raises Malformed, Untrusted,
        NotFound, Conflict."""
        return self._trust().pin(_federation_bytes(file), branch=branch)

    def pins(self) -> list[TrustPin]:
        return list(self._trust().pins())

    def unpin(self, federation: Digest) -> None:
        """Raises NotFound."""
        self._trust().unpin(federation)

    def diff(self, file: Path | bytes) -> CharterDiff:
        """What pinning this file would change. Raises Malformed, Untrusted, NotFound."""
        return self._trust().diff(_federation_bytes(file))

    def bindings(self) -> Bindings:
        return self._trust().bindings()

    def bind(self, name: str, to: str) -> None:
        """Decide what a name means to this user: a namespace an identity, `namespace/name[@version]` an artifact.
        Raises Malformed."""
        target = parse_digest(to)
        if "/" in name:
            self._trust().bind_artifact(name, target)
        else:
            self._trust().bind_publisher(name, target)

    def pin_rotation(self, identity: str, rotation: str) -> None:
        """Hold an identity to its newer keys: what retired ones signed counts only if it was logged before `rotation`.
        Raises Malformed."""
        self._trust().pin_rotation(parse_digest(identity), parse_digest(rotation))

    def unbind(self, name: str) -> None:
        """Forget what a name was bound to, and what it meant when it was resolved first. Raises NotFound."""
        forgotten = "/" in name and self._names().forget(name)
        try:
            self._trust().unbind(name)
        except NotFound:
            if not forgotten:
                raise


def _federation_bytes(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_bounded(file, MAX_FEDERATION)


class Client(Trusting, Mirroring, Reporting, Publishing):
    """A user's client.

    Args:
        home: where it remembers; `Home.default()` where not given.
        limits: patience and bounds of transfers.
    """

    def chamber(self, federation: str = "") -> GovernanceClient:
        """Governance of a pinned federation: of the one whose id begins with `federation`, or of the only one.
        Raises NotFound."""
        pins = [pin for pin in self._trust().pins() if pin.id.startswith(federation)]
        if len(pins) != 1:
            why = f"{len(pins)} pinned federations are meant"
            raise NotFound("which federation?", why=why, hint="comity trust show", code="WHICH-FEDERATION")
        return GovernanceClient(pins[0].federation, self._with)

    def market(self) -> OfferClient:
        """Offers, requests and grants, by all pinned federations."""
        return OfferClient(tuple(pin.federation for pin in self._trust().pins()), self._with)

    def model(self, what: Path | str, pattern: str = "", hub_cache: Path | None = None) -> Model:
        """How much memory a model takes, for `compute.fitting.fit`: of a folder, of the copy in a Hub cache, or of what
        nodes have, of which headers alone are fetched. Raises as `resolve` does; NotFound without weights, Malformed
        (WHICH-WEIGHTS) where `pattern` has to choose one of several models."""
        folder = Path(what)
        if isinstance(what, str) and not folder.is_dir():
            try:
                folder = cached(hub_cache or default_cache(), reference_of(what))
            except NotFound:
                return self._with(lambda session: self._model(session, what, pattern))
        return model_in(folder, pattern)

    async def _model(self, session: Session, reference: str, pattern: str) -> Model:
        return await model_of(session, await self._resolve(session, reference, self.policy()), pattern)
