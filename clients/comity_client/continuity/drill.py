"""The drill: a service is cut off on purpose, what a plan names replaces it, and a report says what happened.

Nothing of others is touched: the nodes that fall with the cut parties are not asked (`Session`), whatever else runs
goes on. The kit is pulled from the nodes that are left into a folder of its own, installed without a network, and its
engine runs in an empty network namespace. Each phase is timed; the first that fails ends the drill, and names the link
of the plan that does not hold, in the words of the check (`rules.continuity.links`). What the drill started ends with
it, however it ends. A signed report can be logged, with a proof that members cosigned.

The pact that the machines come from is declared only where the user asked for it, marked as a drill
(`offers.pact_drill`). What is declared says neither the service nor the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import comity
from comity.bounded_file import read_bounded
from comity.rules.continuity.drill_report import (
    CHECK,
    CUT,
    DECLARE,
    INSTALL,
    LEAST_COSIGNERS,
    MAX_FAILED,
    MAX_FINDINGS,
    MAX_SAID,
    PLAN,
    PULL,
    RESTORE,
    SAMPLES,
    SELF_TEST,
    SERVE,
    START,
    VERIFY,
    CaseCounts,
    DrillFinding,
    DrillPhase,
    DrillReport,
    LeftOut,
)
from comity.rules.continuity.links import GREEN, Link, describe_link
from comity.rules.continuity.plan import AgreedMachines, ContinuityPlan, Fallback, Service
from comity.rules.cosigned_times import corroborated_time
from comity.rules.kits.cases import KitCases
from comity.rules.kits.contents import kit_problems
from comity.rules.kits.description import KIT_FILE, SAMPLES_FILE, SELFTEST_FILE
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.encoding import Digest, printable, sha256, short
from comity.trust.errors import (
    ComityError,
    Malformed,
    NotFound,
    OutOfSpace,
    PolicyNotMet,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.trust.exit_statuses import EVIDENCE_MISSING, VERIFICATION_FAILED
from comity.trust.frozen import frozen
from comity.trust.statement import Entry
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof

from comity_client.client import Client
from comity_client.continuity.drill_files import cosigned_note
from comity_client.evidence.logs import prove_line
from comity_client.kits.asking import CaseResults, ask_cases
from comity_client.kits.check import KitFolder, in_words, why_not
from comity_client.kits.engine import running_engine
from comity_client.kits.install import install_kit, kit_cache
from comity_client.party_drill import pinned_node
from comity_client.publish import LogTargets, publish_statement
from comity_client.publishers import Publisher
from comity_client.session import RemoteNode, Session

if TYPE_CHECKING:
    from comity.trust.policy import Policy

    from comity_client.events import OnEvent
    from comity_client.kits.engine import RunningEngine
    from comity_client.offers.pact_drill import DeclaredDrill

PASS_RATE: Final = "pass_rate"
"""The metric of an evaluation that samples measure."""
NOT_ASKED: Final = CaseCounts(0, 0)
INSTALL_LINKS: Final = {"KIT-PLATFORM": "platform-other", OutOfSpace.code: "machines-too-small"}
"""The kinds of links that do not hold where a kit is not installed, by the code of the error."""
ASKED_FOR_CHECKPOINT: Final = 8
"""Nodes that are asked for a cosigned checkpoint."""


JudgePlan = Callable[[Client], Sequence[Link]]
"""The links of the plan, of the service and of its fallback, as a client that does not ask the cut nodes finds them."""


def pact_of(fallback: Fallback) -> Digest:
    """The pact by which a fallback has its machines. Raises Refused (DRILL-PACT) if it has them otherwise."""
    machines = fallback.machines
    if isinstance(machines, AgreedMachines) and machines.record == "pact":
        return machines.digest
    has = f"those of {machines.record} {short(machines.digest)}" if isinstance(machines, AgreedMachines) else "own ones"
    raise Refused("there is no pact to declare", why=f"the machines of this fallback are {has}",
                  hint="run the drill without --declare", code="DRILL-PACT")  # fmt: skip


@frozen
class DrillOrder:
    """What is rehearsed.

    Attributes:
        fallback: its number in the plan, from 1.
        judge: what of the plan holds.
        policy: by which the kit is judged; None: by the pins of the user.
        port: where the engine is served; 0: any free one.
        declaration: of the pact of the machines; None where it is not declared.
    """

    plan: ContinuityPlan
    service: Service
    fallback: int
    judge: JudgePlan
    policy: Policy | None = None
    port: int = 0
    declaration: DeclaredDrill | None = None

    @property
    def chosen(self) -> Fallback:
        return self.service.fallbacks[self.fallback - 1]

    @property
    def threshold(self) -> str:
        """The share of samples that must pass; empty where the plan asks for another metric, or none."""
        evaluation = self.chosen.evaluation
        return evaluation.at_least if evaluation is not None and evaluation.metric == PASS_RATE else ""


Serve = Callable[["RunningEngine"], "asyncio.Future[None] | None"]
OnPhase = Callable[[DrillPhase], None]


def order_drill(plan: ContinuityPlan, service: str, fallback: int, judge: JudgePlan) -> DrillOrder:
    """The order for a service of a plan. Raises NotFound (DRILL-SERVICE)."""
    found = plan.service(service)
    if found is None:
        known = ", ".join(each.name for each in plan.services)
        raise NotFound(f"the plan has no service {service!r}", why=f"it has {known}", code="DRILL-SERVICE")
    if not 1 <= fallback <= len(found.fallbacks):
        why = f"it has {len(found.fallbacks)}"
        raise NotFound(f"the service {service!r} has no fallback {fallback}", why=why, code="DRILL-SERVICE")
    return DrillOrder(plan, found, fallback, judge)


def rehearse(
    api: Client, order: DrillOrder, *, serve: Serve | None = None, on_phase: OnPhase, on_event: OnEvent
) -> DrillReport:
    """Run the drill. A failure is in the report; raises only what is not of the drill, such as KeyboardInterrupt.

    Args:
        serve: called when the agreed quality is reached; what it returns is waited for, while the engine serves.
        on_phase: called with each phase when it has ended.
    """
    drill = _Drill(api, order, serve, on_event, _Phases(on_phase))
    drill.run()
    return drill.report()


@dataclass
class _Step:
    """A phase that runs: what was done, and the kind of link that does not hold if it fails now."""

    link: str
    said: list[str] = field(default_factory=list)


@dataclass
class _Phases:
    """The phases of one drill, in milliseconds since its start, and the link at which the first of them failed."""

    on_phase: OnPhase
    done: list[DrillPhase] = field(default_factory=list)
    link: str = ""
    began: float = field(default_factory=time.monotonic)
    started: int = field(default_factory=lambda: int(time.time()))

    def now(self) -> int:
        return int((time.monotonic() - self.began) * 1000)

    @contextlib.contextmanager
    def phase(self, name: str, link: str = "drill-failed") -> Iterator[_Step]:
        """Time a phase. The block appends what was done; what it raises is the reason of the failure."""
        step, began = _Step(link), self.now()
        try:
            yield step
        except ComityError as error:
            self._fail(name, began, step.link, str(error))
            raise
        except BaseException as error:
            self._fail(name, began, "drill-failed", f"{type(error).__name__}: {error}")
            raise
        self._end(name, began, True, "; ".join(step.said))

    def _fail(self, name: str, began: int, link: str, why: str) -> None:
        self.link = self.link or link
        self._end(name, began, False, why if link == "drill-failed" else describe_link(link, why))

    def _end(self, name: str, began: int, passed: bool, said: str) -> None:
        text = printable(said)[:MAX_SAID]
        self.done.append(DrillPhase(name, began, self.now(), passed, text if passed else text or "it failed"))
        self.on_phase(self.done[-1])

    @property
    def reason(self) -> str:
        return next((each.said for each in self.done if not each.passed), "")


@dataclass
class _Drill:
    api: Client
    order: DrillOrder
    serve: Serve | None
    on_event: OnEvent
    phases: _Phases
    asked: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    findings: tuple[DrillFinding, ...] = ()
    declared: DeclaredDrill | None = None
    before: str = ""
    isolation: str = ""
    self_test: CaseCounts = NOT_ASKED
    samples: CaseCounts = NOT_ASKED

    def run(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="comity-drill-")
        try:
            api = self._cut_off()
            self._judge(api)
            self._declare(api)
            folder = Path(scratch.name) / "kit"
            self._pull(api, folder)
            self._verify(api, folder)
            asyncio.run(self._run_engine(self._check(folder)))
        except ComityError:
            pass  # it is the reason of the phase that failed
        finally:
            with contextlib.suppress(ComityError), self.phases.phase(RESTORE) as step:
                self._restore(scratch, step)

    def _restore(self, scratch: tempfile.TemporaryDirectory[str], step: _Step) -> None:
        try:
            _remove(scratch)
            step.said.append("the engine has ended, and its folder is removed; no node was stopped")
        finally:
            if self.declared is not None:
                step.said.append(self.declared.end())

    def report(self) -> DrillReport:
        order, reason = self.order, self.phases.reason
        return DrillReport(
            plan=order.plan.digest,
            owner=order.plan.owner,
            service=order.service.name,
            fallback=order.fallback,
            kit=order.chosen.kit.name,
            kit_artifact=order.chosen.kit.artifact,
            cut_off=order.service.must_survive,
            asked=self.asked,
            left_out=self.left_out,
            findings=self.findings,
            isolation=self.isolation,
            phases=tuple(self.phases.done),
            self_test=self.self_test,
            samples=self.samples,
            threshold=order.threshold,
            passed=not reason,
            link=self.phases.link,
            reason=reason,
            started=self.phases.started,
            ended=max(int(time.time()), self.phases.started + self.phases.now() // 1000),
            before=self.before,
            tool=comity.__version__,
        )

    def _cut_off(self) -> Client:
        """A client that does not ask the nodes that fall with the parties."""
        with self.phases.phase(CUT, "nodes-silent") as step:
            user = replace(self.api.user, left_out=self._why_left_out)
            self.before = user.run(self._look)
            step.said.append(
                f"{len(self.left_out)} of {len(self.left_out) + len(self.asked)} nodes are not asked any more"
            )
            return Client(user=user)

    def _why_left_out(self, node: RemoteNode) -> str:
        party = next(filter(pinned_node(node).lost_with, self.order.service.must_survive), None)
        return str(party) if party is not None else ""

    async def _look(self, session: Session) -> str:
        """Note which nodes are left, and return the newest cosigned checkpoint that some of them give; empty if none
        does. Raises Unavailable if no node is left."""
        nodes = [node for node in session.nodes if not node.former]
        parties = {str(party): party for party in self.order.service.must_survive}
        self.asked = tuple(node.name for node in nodes if not node.left_out)
        self.left_out = tuple(LeftOut(node.name, parties[node.left_out]) for node in nodes if node.left_out)
        if not self.asked:
            why = "every node of the pinned federations falls with a party that was cut off"
            raise Unavailable("no node is left", why=why, code="DRILL-NODES")
        return await newest_checkpoint(session, [node for node in nodes if not node.left_out])

    def _judge(self, api: Client) -> None:
        """Find what of the plan holds now. Raises PolicyNotMet at a link without which there is no use in a drill."""
        with self.phases.phase(PLAN, "nodes-silent") as step:
            links = self.order.judge(api)
            broken = [link for link in links if link.state != GREEN]
            self.findings = tuple(map(DrillFinding.of, broken[:MAX_FINDINGS]))
            if ending := [link for link in broken if link.ends_drill]:
                step.link = ending[0].kind
                others = (
                    f"; these do not hold either: {', '.join(link.kind for link in ending[1:])}" if ending[1:] else ""
                )
                raise PolicyNotMet(f"{ending[0].text}{others}")
            gaps = f"these do not hold: {', '.join(link.kind for link in broken)}" if broken else "all hold"
            step.said.append(f"of {len(links)} links of the plan, {gaps}")

    def _declare(self, api: Client) -> None:
        if self.order.declaration is not None:
            with self.phases.phase(DECLARE) as step:
                self.declared = self.order.declaration
                step.said.append(self.declared.begin(api.offers()))

    def _pull(self, api: Client, folder: Path) -> None:
        with self.phases.phase(PULL, "copies-silent") as step:
            kit = self.order.chosen.kit
            pulled = api.pull(f"sha256:{kit.artifact}", to=folder, policy=self.order.policy, on_event=self.on_event)
            if pulled.cache is not None or pulled.artifact != kit.artifact:
                raise Unavailable("no node that is left gave the kit")
            nodes = ", ".join(sorted(pulled.tally.by_node)) or "no node"
            step.said.append(f"{pulled.files} files, {_megabytes(pulled.bytes)}, from {nodes}")
            if here := pulled.here + pulled.tally.reused + pulled.tally.resumed:
                step.said.append(f"{_megabytes(here)} of them were here already")

    def _verify(self, api: Client, folder: Path) -> None:
        with self.phases.phase(VERIFY, "kit-refused") as step:
            verdict = api.verify(folder, policy=self.order.policy)
            if verdict.exit_status == EVIDENCE_MISSING:
                step.link = "kit-unproven"
            elif verdict.exit_status == VERIFICATION_FAILED or verdict.artifact != self.order.chosen.kit.artifact:
                step.link = "parts-wrong"
            if not verdict.accepted or verdict.artifact != self.order.chosen.kit.artifact:
                raise PolicyNotMet(why_not(verdict))
            step.said.append("every byte, signature and proof, again, without a network")

    def _check(self, folder: Path) -> KitFolder:
        with self.phases.phase(CHECK, "not-a-kit") as step:
            if (folder / KIT_FILE).exists():
                step.link = "kit-unreadable"
            found = KitFolder.read(folder)
            step.link = "parts-wrong"
            manifest = Manifest.parse(read_bounded(folder / ".comity" / "manifest.json", MAX_MANIFEST))
            if problems := kit_problems(found.kit, manifest):
                raise Malformed(in_words(problems))
            step.link = "package-index-in-the-way"
            if problems := found.lock_problems():
                raise Malformed(in_words(problems))
            step.said.append(
                f"{len(found.kit.parts)} parts are those that the kit lists, and its lock names its wheels"
            )
            return found

    async def _run_engine(self, found: KitFolder) -> None:
        folder, kit = found.folder, found.kit
        with self.phases.phase(INSTALL, "check-failed") as step:
            try:
                installed = await asyncio.to_thread(install_kit, folder, kit, kit_cache())
            except ComityError as error:
                step.link = INSTALL_LINKS.get(error.code, step.link)
                raise
            step.said.append(f"in {installed.proof}" + (", as it was installed before" if installed.reused else ""))
        async with contextlib.AsyncExitStack() as stack:
            with self.phases.phase(START, "check-failed") as step:
                engine = await stack.enter_async_context(running_engine(folder, kit, installed, port=self.order.port))
                self.isolation = engine.proof if engine.isolated else ""
                if not engine.isolated:
                    raise Unavailable("the engine has a network", why=engine.proof, code="DRILL-NETWORK")
                step.said.append(f"{kit.engine.name} {kit.engine.version} in {engine.proof}")
            with self.phases.phase(SELF_TEST, "check-failed") as step:
                self.self_test = await _asked(engine.base_url, found.cases(SELFTEST_FILE))
                _require(self.self_test, "1", "self-test", step)
                self._require_in_time(step)
            if self.order.threshold:
                with self.phases.phase(SAMPLES, "parts-wrong") as step:
                    cases, step.link = found.cases(SAMPLES_FILE), "evaluation-below"
                    self.samples = await _asked(engine.base_url, cases)
                    _require(self.samples, self.order.threshold, "samples", step)
            if self.serve is not None:
                with self.phases.phase(SERVE) as step:
                    await _served(engine, self.serve(engine))
                    step.said.append(f"at {engine.base_url}/v1, until it was stopped")

    def _require_in_time(self, step: _Step) -> None:
        """Raises Unavailable if the first verified answer came after the longest outage of the service."""
        cut = next(each for each in self.phases.done if each.phase == CUT)
        minutes, allowed = -(-(self.phases.now() - cut.began) // 60_000), self.order.service.longest_outage
        if minutes > allowed:
            step.link = "drill-slow"
            raise Unavailable(f"{minutes} min, {allowed} min are allowed")


async def _served(engine: RunningEngine, until: asyncio.Future[None] | None) -> None:
    """Wait until it is stopped. Raises Unavailable if the engine ends before."""
    if until is None:
        return
    ended = asyncio.ensure_future(engine.ended())
    try:
        await asyncio.wait((until, ended), return_when=asyncio.FIRST_COMPLETED)
        if not until.done():
            raise await ended
    finally:
        ended.cancel()


async def _asked(base_url: str, cases: KitCases) -> CaseCounts:
    return counts_of(await ask_cases(base_url, cases.cases))


def counts_of(results: CaseResults) -> CaseCounts:
    names = tuple(each.name for each in results.failed)
    return CaseCounts(len(results.results), results.passed, names[:MAX_FAILED])


def _require(counts: CaseCounts, threshold: str, what: str, step: _Step) -> None:
    text = f"{counts.passed} of {counts.asked} answers are as expected"
    if not counts.reaches(threshold):
        names = f": {', '.join(counts.failed[:3])} failed" if counts.failed else ""
        raise Untrusted(f"the {what} failed", why=f"{text}, at least {threshold} of them are needed{names}")
    step.said.append(text)


async def newest_checkpoint(session: Session, nodes: Sequence[RemoteNode]) -> str:
    """Of the newest checkpoints that some nodes give of their own logs, the one that was cosigned last, as its note;
    empty if none is cosigned."""
    records = [node.record for node in session.nodes]
    some = session.soonest(nodes, ASKED_FOR_CHECKPOINT)
    answers = await session.ask_each(
        lambda node: lambda client: client.checkpoint(node.record.origin), some, enough=lambda found: False
    )
    newest, at = "", 0
    for data in answers.found.values():
        with contextlib.suppress(ComityError):  # not a valid note of a known log: as if it had given none
            found = cosigned_note(SignedNote.parse(data), records)
            cosigned = corroborated_time(found.times.values(), time.time()) if found else None
            if cosigned is not None and cosigned > at:
                newest, at = data.decode(), cosigned
    return newest


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _remove(scratch: tempfile.TemporaryDirectory[str]) -> None:
    """Raises Unavailable."""
    for path in Path(scratch.name).rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # what was pulled is read-only
    try:
        scratch.cleanup()
    except OSError as error:
        raise Unavailable("the folder of the drill was not removed", why=f"{scratch.name}: {error}") from error


COSIGN_SECONDS: Final = 30.0
"""Seconds for which cosignatures are waited; the next round of the other nodes brings them."""
POLL_SECONDS: Final = 0.5


def log_drill(
    api: Client, report: DrillReport, entry: Entry, publisher: Publisher, nodes: Sequence[str], on_event: OnEvent
) -> bytes:
    """Log the statement with the report at `nodes`. Returns the proof that most members had cosigned when enough had,
    or after some seconds. Raises as `publish_statement` does."""

    async def work(targets: LogTargets) -> bytes:
        data = report.encode()
        await publish_statement(targets, report.kit, entry, publisher.lines, {sha256(data): data})
        ends = asyncio.get_running_loop().time() + COSIGN_SECONDS
        while True:
            proof, cosigners = await _best_proof(targets.session, entry)
            if cosigners >= LEAST_COSIGNERS or asyncio.get_running_loop().time() > ends:
                return proof
            await asyncio.sleep(POLL_SECONDS)

    return api.log(work, nodes, on_event)


async def _best_proof(session: Session, entry: Entry) -> tuple[bytes, int]:
    """The proof with most members' cosignatures, and how many they are; none before a node gives one."""
    records, best = [node.record for node in session.nodes], (b"", -1)
    try:
        proven = await prove_line(session, entry.digest)
    except ComityError:
        return best  # no node proves it yet
    for each in proven:
        found = cosigned_note(TlogProof.parse(each.proof).checkpoint, records)
        if found is not None and len(found.times) > best[1]:
            best = each.proof, len(found.times)
    return best
