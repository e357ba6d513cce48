"""Verdicts: rows of pass / fail / unknown / not-checked, and the one exit status that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from comity.trust.digest import Digest
from comity.trust.encoding import Json

State = Literal["pass", "fail", "unknown", "not-checked"]
Basis = Literal["verified here", "claimed", "stale or absent"]
Cause = Literal["", "false", "short", "missing", "partial"]

STATES: Final[tuple[State, ...]] = get_args(State)
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

SCHEMA: Final = "comity.dev/verdict/v1"
OK: Final = 0
VERIFICATION_FAILED: Final = 3
POLICY_NOT_MET: Final = 4
EVIDENCE_MISSING: Final = 5
PARTIAL: Final = 8


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact and what it rests on: verified here, claimed by `by`, or stale/absent. Never mixed."""

    text: str
    basis: Basis
    by: str = ""
    evidence: Digest | None = None

    def to_json(self) -> dict[str, Json]:
        return {"text": self.text, "basis": self.basis, "by": self.by, "evidence": self.evidence}


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer.

    `cause` says why a row is not `pass`: `false` (what is here does not hold), `short` (it holds and is too little),
    `missing` (it is not here), `partial`. `step` is the numbered step of `verify` that decided.
    """

    name: str
    state: State
    summary: str
    step: int
    cause: Cause = ""
    facts: tuple[Fact, ...] = ()
    hint: str = ""

    def joined(self, facts: tuple[Fact, ...]) -> Row:
        """This row with more facts, which do not change its state."""
        return replace(self, facts=self.facts + facts) if facts else self

    def to_json(self) -> dict[str, Json]:
        return {
            "row": self.name,
            "state": self.state,
            "summary": self.summary,
            "step": self.step,
            "cause": self.cause,
            "facts": [fact.to_json() for fact in self.facts],
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rows in their fixed order, and what they amount to under the policy.

    `inputs` are the SHA-256 of the claim lines that facts of the rows rest on.
    """

    artifact: Digest | None
    name: str
    rows: tuple[Row, ...]
    exit_status: int
    policy: Digest | None = None
    required: tuple[str, ...] = field(default=())
    inputs: tuple[Digest, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        return self.exit_status == OK

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "artifact": self.artifact,
            "name": self.name,
            "exit_status": self.exit_status,
            "accepted": self.accepted,
            "policy": self.policy,
            "required": list(self.required),
            "inputs": list(self.inputs),
            "rows": [row.to_json() for row in self.rows],
        }


def exit_status(rows: tuple[Row, ...], required: tuple[str, ...]) -> int:
    """The exit status, in the order of precedence of protocol section 10.

    3  a file differs from the manifest, or a required row has nothing but material that fails
    4  authentic, policy not met
    5  evidence missing or unreachable
    8  partial
    0  every required row passes; `artifact` is always required, for all else is about it
    """
    judged = {row.name: row for row in rows}
    broken = any(row.state == "fail" for row in rows if row.name in ("artifact", "bytes"))
    needed = [judged.get(name) for name in ("artifact", *required)]
    causes = {row.cause if row else "" for row in needed if row is None or row.state != "pass"}
    if broken or "false" in causes:
        return VERIFICATION_FAILED
    if "short" in causes:
        return POLICY_NOT_MET
    if causes - {"partial"}:  # missing, or not checked at all
        return EVIDENCE_MISSING
    if any(row.cause == "partial" for row in rows):
        return PARTIAL
    return OK
