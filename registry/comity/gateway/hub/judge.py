"""Whether this node serves an artifact here, by its own policy, and what it tells those to whom it does.

The policy is the one that `[gateway] policy` names; without one, an artifact is served that its publisher signed. The
charter that the node pinned decides who is who in either case. What is short of the charter's own standard is told:
cosignatures that are missing or old, and every advisory.


Answers that many clients ask for at once and that change with the ledger only: worked out once, then remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from comity.node.context import NodeContext
from comity.trust.charter.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, PolicyNotMet, Unavailable, Untrusted
from comity.trust.evidence import OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED, Evidence, Verdict
from comity.trust.policy import MAX_BYTES as MAX_POLICY
from comity.trust.policy import CosignerRule, Freshness, Policy, UpstreamRule, parse_policy
from comity.trust.verify import verify
from comity.verifier import read_bounded

DAY: Final = 86_400
STALE_DAYS: Final = 30
MAX_NOTICES: Final = 8
_SERVED: Final = ("artifact", "signatures")


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """`refusal` is why it is not served, None where it is; `notices` are (topic, text) for whoever gets it."""

    refusal: ComityError | None
    notices: tuple[tuple[str, str], ...]


class PolicyJudge:
    """Judges by the policy of this node's owner.

    Raises NotFound, Malformed and Untrusted for the policy file, when it is made.
    """

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        file = core.config.gateway.policy
        self._own: Policy | None = None
        if file is not None:
            self._own = parse_policy(
                read_bounded(file, MAX_POLICY), lambda name: read_bounded(file.parent / name, MAX_FEDERATION)
            )

    @property
    def looks_into_files(self) -> bool:
        """Whether the owner asks for it: a node is no scanner unless somebody wants one."""
        return self._own is not None and "file safety" in self._own.require

    @property
    def by_own_policy(self) -> bool:
        """Whether the owner named a policy."""
        return self._own is not None

    @property
    def policy(self) -> Policy:
        """What is demanded now: the charter's newest body decides who counts, and the node's clock what is old."""
        body = self._core.membership.body
        pins = (body,) if body else ()
        if self._own is not None:
            return replace(self._own, pins=self._own.pins or pins)
        promised = body.policy.cosigner_quorum if body else 0
        fresh = Freshness(int(self._core.clock()), STALE_DAYS * DAY)
        return Policy(pins=pins, cosigners=CosignerRule(at_least=promised), freshness=fresh, require=_SERVED)

    def judge_mirrored(self, evidence: Evidence, title: str, observed: Digest) -> PolicyDecision:
        """The same for what is served because a node observed it: without a policy of the owner's own, a node of a
        member has to say that it fetched these bytes from its upstream.

        Args:
            observed: the line that says so. The same bytes may be mirrored from other repositories too, and the notice
                must not name one of those.
        """
        policy = self.policy
        if self._own is None:
            policy = replace(policy, require=("artifact",), upstream=UpstreamRule(1))
        verdict = verify(evidence, policy)
        said = next((fact for fact in verdict.row("artifact").facts if fact.evidence == observed), None)
        signed = verdict.row("signatures").state == "pass"
        author = "a publisher signed the same bytes, under a name of its own" if signed else "no publisher signed it"
        told = [("mirrored", f"{said.text}, says {said.by}; {author}")] if said else []
        return PolicyDecision(_refusal(verdict, title), (*told, *_advisories(verdict))[:MAX_NOTICES])

    def advisories(self, evidence: Evidence) -> tuple[tuple[str, str], ...]:
        """What is warned of an artifact that nobody has vouched for yet."""
        return tuple(_advisories(verify(evidence, self.policy))[:MAX_NOTICES])

    def judge(self, evidence: Evidence, title: str) -> PolicyDecision:
        """Whether `evidence` satisfies the policy. Raises nothing for what is in it."""
        policy = self.policy
        verdict = verify(evidence, policy)
        return PolicyDecision(_refusal(verdict, title), _notices(verdict, policy))


def _refusal(verdict: Verdict, title: str) -> ComityError | None:
    if verdict.exit_status in (OK, PARTIAL):
        return None
    failing = [row for row in verdict.rows if row.name in verdict.required and row.state != "pass"]
    why = "; ".join(f"{row.name}: {row.summary}" for row in failing) or verdict.row("policy").summary
    if verdict.exit_status == VERIFICATION_FAILED:
        return Untrusted(f"{title} does not verify", why=why, code="VERIFICATION-FAILED")
    if verdict.exit_status == POLICY_NOT_MET:
        return PolicyNotMet(f"{title} is authentic, but this node's policy is not met", why=why)
    return Unavailable(f"evidence about {title} is missing here", why=why, code="EVIDENCE-MISSING")


def _advisories(verdict: Verdict) -> list[tuple[str, str]]:
    return [("advisory", f"{fact.text}, says {fact.by}") for fact in verdict.row("disputes and advisories").facts]


def _notices(verdict: Verdict, policy: Policy) -> tuple[tuple[str, str], ...]:
    found = _advisories(verdict)
    cosigners, time = verdict.row("cosigners"), verdict.row("time")
    if policy.pins and cosigners.state != "pass":
        found.append(("cosigners", f"short of cosigners: {cosigners.summary}"))
    elif time.state == "fail":
        found.append(("stale", f"no fresh cosignature: {time.summary}"))
    return tuple(found[:MAX_NOTICES])


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LOOK_EVERY: Final = 1.0
LONGEST: Final = 30.0
"""Seconds after which an answer is worked out anew though no log has grown: cosignatures and blobs come and go too."""


class Generations:
    """Numbers the states of the ledger: the same number, the same answers."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._sizes: dict[str, int] = {}
        self._number = 0
        self._looked = self._began = float("-inf")

    async def now(self) -> int:
        clock = asyncio.get_running_loop().time
        if clock() - self._looked < LOOK_EVERY:
            return self._number
        self._looked = clock()
        logs = await self._core.pools.ledger(self._core.ledger.logs.all)
        sizes = {log.vkey: log.size for log in logs}
        if sizes != self._sizes or clock() - self._began > LONGEST:
            self._sizes, self._began = sizes, clock()
            self._number += 1
        return self._number


class AnswerCache(Generic[K, V]):
    """The most recent answers, each made by one task however many wait for it.

    An answer outlives the client that asked first. A failure is an answer too.

    Args:
        most: what all answers together may weigh; those longest unused give way.
        weigh: what an answer weighs, in any unit that bounds its memory.
    """

    def __init__(
        self, generation: Callable[[], Awaitable[int]], most: int, weigh: Callable[[V], int] = lambda answer: 1
    ) -> None:
        self._generation = generation
        self._most = most
        self._weigh = weigh
        self._answers: OrderedDict[K, tuple[int, asyncio.Task[V]]] = OrderedDict()

    async def get(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        generation = await self._generation()
        known = self._answers.get(key)
        if known is None or (known[0] != generation and known[1].done()):
            task = asyncio.create_task(make())
            task.add_done_callback(self._made)
            known = self._answers[key] = generation, task
        self._answers.move_to_end(key)
        return await asyncio.shield(known[1])

    async def close(self) -> None:
        """End what is still being worked out."""
        tasks = [task for _, task in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, task: asyncio.Task[V]) -> None:
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of a failure
        weights = [self._weight(task) for _, task in self._answers.values()]
        total = sum(weights)
        for weight in weights[:-1]:
            if total <= self._most:
                return
            self._answers.popitem(last=False)
            total -= weight

    def _weight(self, task: asyncio.Task[V]) -> int:
        failed = not task.done() or task.cancelled() or task.exception() is not None
        return 1 if failed else self._weigh(task.result())
