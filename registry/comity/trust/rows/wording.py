"""How rows say who somebody is, so that all of them say it alike."""

from __future__ import annotations

from comity.trust.digest import Digest
from comity.trust.identity import Inception
from comity.trust.judging.witnessing import Witnessed
from comity.trust.remark import Remark
from comity.trust.rotation import KeyState
from comity.trust.verdict import Fact


def here(text: str, evidence: Digest | None = None) -> Fact:
    return Fact(text, "verified here", evidence=evidence)


def noted(remark: Remark) -> Fact:
    return here(remark.text, remark.evidence)


def who(identity: Inception) -> str:
    return f"{identity.display} [{identity.id[:12]}]"


def member(seen: Witnessed) -> str:
    return f"{seen.writer.name} ({seen.writer.jurisdiction})"


def algorithms(signer: KeyState) -> str:
    algorithms = sorted({half.alg for key in signer.keys.keys for half in key.halves})
    return f"{signer.keys.threshold} of {len(signer.keys.keys)} keys ({' + '.join(algorithms)})"
