"""By when an artifact existed, as far as cosigners prove it: moments at which its signatures were there already."""

from __future__ import annotations

from collections.abc import Iterable

from comity.trust.model_signing import Moment
from comity.trust.policy import CosignerRule
from comity.trust.standing import Standing


def cosigned_moments(standings: Iterable[Standing], rule: CosignerRule) -> list[Moment]:
    """Moments by which as many cosigners as `rule` asks for, and at least one, had seen some statement that names the
    artifact, earliest first.

    Whose statement it is does not matter. Whatever evidence is added, a moment that is in this list stays in it (I4).
    """
    times: set[int] = set()
    for standing in standings:
        for seen in standing.witnessed:
            if not seen.satisfies(rule, standing.jurisdictions):
                continue
            of_each = [cosigner.times(rule) for cosigner in seen.counted(rule, standing.jurisdictions)]
            firsts = sorted(min(each) for each in of_each if each)
            needed = max(rule.at_least, 1)
            if len(firsts) >= needed:
                times.update(at for each in of_each for at in each if at >= firsts[needed - 1])
    return [Moment(at, "by when enough cosigners had seen it") for at in sorted(times)]
