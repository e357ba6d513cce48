"""Why an answer rests on what an earlier pull left here."""

from __future__ import annotations

from comity.trust.frozen import frozen


@frozen
class CacheBasis:
    """Why an answer rests on the copy here: the error of the nodes. `cosigned_at`: since when enough cosigners have
    seen a log head that proves the publication, in seconds since 1970, by their clocks; None without a cosigner.
    `answered`: nodes answered, and none of them knows it."""

    why: str
    cosigned_at: int | None
    answered: bool = False

    @property
    def text(self) -> str:
        nodes = "no node that answered knows it" if self.answered else "no node answered"
        return f"{nodes}: this rests on the copy that was pulled before"
