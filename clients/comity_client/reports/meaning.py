"""What a verdict means to whoever has to decide, in sentences: the same on a terminal and on paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.policy import ROWS
from comity.trust.verdict import EVIDENCE_MISSING, OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED, Row, Verdict

STATES: Final = {"pass": "pass", "fail": "fail", "unknown": "unknown", "not-checked": "not checked"}
STATE_MEANS: Final = {
    "pass": "checked here, and it holds",
    "fail": "checked here, and it does not hold or is too little",
    "unknown": "it cannot be told from what is here",
    "not-checked": "nobody asked: the policy has no rule for it",
}
BASIS_MEANS: Final = {
    "verified here": "this program computed it from the files and the evidence",
    "claimed": "somebody said so and signed it; that they said it is verified, that it is true is not",
    "stale or absent": "it is too old, or not here",
}
QUESTIONS: Final = dict(
    zip(
        ROWS,
        (
            "What is it?",
            "Are these the bytes that were published?",
            "Did somebody sign that they published it?",
            "Is that the publisher whom we expect?",
            "Does it stand in a public log?",
            "Who else saw it there?",
            "Who says that they keep a copy?",
            "What was it made from?",
            "Under which licence is it?",
            "What in it would run, and are its files what they seem?",
            "Which documents come with it?",
            "Did anything here not verify?",
            "Does anybody warn of it?",
            "How fresh is what was seen?",
            "What would be left without classical cryptography?",
            "Is our policy met?",
        ),
        strict=True,
    )
)
_HEADLINES: Final = {
    OK: "ACCEPTED: every row that your policy requires passes",
    VERIFICATION_FAILED: "the bytes or signatures are not what they should be",
    POLICY_NOT_MET: "what is here is authentic, your policy is not met",
    EVIDENCE_MISSING: "evidence is missing",
    PARTIAL: "some files were left out on request; those here are as published",
}
_ADVICE: Final = {
    OK: "The files may be used as far as your policy is concerned. It says who published them and who saw it, "
    "not that the model is good, safe or lawful.",
    VERIFICATION_FAILED: "Do not use these files. Keep them for an inquiry, and get the artifact again from other "
    "nodes.",
    POLICY_NOT_MET: "Nothing speaks against the bytes. Get what the policy asks for, or let its owner decide "
    "whether it asks for the right things.",
    EVIDENCE_MISSING: "Nothing speaks against the bytes, and too little for them. Carry more evidence: pull again "
    "where there is a network.",
    PARTIAL: "Fine for whoever knows that it is partial; a loader that needs the rest will fail.",
}
_STEPS: Final = {
    VERIFICATION_FAILED: ("comity pull REF --to ELSEWHERE",),
    POLICY_NOT_MET: ("comity policy explain FILE",),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A headline, what to make of it, the rows that decided, those worth a look although nobody required them, and
    the exact next commands."""

    headline: str
    advice: str
    deciding: tuple[Row, ...]
    notable: tuple[Row, ...]
    steps: tuple[str, ...]


def meaning(verdict: Verdict) -> Meaning:
    status = verdict.exit_status
    headline = _HEADLINES.get(status, f"exit status {status}")
    if not verdict.accepted:
        headline = f"NOT ACCEPTED (exit {status}): {headline}"
    required = {"artifact", *verdict.required}
    if status == VERIFICATION_FAILED:
        required.add("bytes")
    deciding = tuple(row for row in verdict.rows if row.name in required and row.state != "pass")
    notable = tuple(row for row in verdict.rows[:-1] if row.name not in required and row.state == "fail")
    hints = [row.hint for row in deciding if row.hint]
    return Meaning(
        headline, _ADVICE.get(status, ""), deciding, notable, tuple(dict.fromkeys([*hints, *_STEPS.get(status, ())]))
    )
