"""By when an artifact existed, as far as cosigners prove it: moments at which its signatures were there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from comity.trust.judging.standing import Standing
from comity.trust.judging.witnessing import Cosigner
from comity.trust.model_signing import Moment
from comity.trust.policy import CosignerRule


def cosigned_moments(standings: Iterable[Standing], rule: CosignerRule) -> list[Moment]:
    """Moments by which as many cosigners as `rule` asks for, and at least one, had seen some statement that names the
    artifact, earliest first.

    Whose statement it is does not matter. Whatever evidence is added, a moment that is in this list stays in it (I4).
    """
    times: set[int] = set()
    for standing in standings:
        for seen in standing.witnessed:
            of_each = {cosigner: cosigner.times(rule) for cosigner in seen.counted(rule, standing.jurisdictions)}
            times.update(at for at in chain(*of_each.values()) if _enough(rule, of_each, at))
    return [Moment(at, "by when enough cosigners had seen it") for at in sorted(times)]


def _enough(rule: CosignerRule, of_each: Mapping[Cosigner, tuple[int, ...]], at: int) -> bool:
    """Whether those who had cosigned by `at` satisfy the rule among themselves."""
    by_then = [cosigner.member for cosigner, times in of_each.items() if any(time <= at for time in times)]
    jurisdictions = {member.jurisdiction for member in by_then}
    return len(by_then) >= max(rule.at_least, 1) and len(jurisdictions) >= rule.jurisdictions
