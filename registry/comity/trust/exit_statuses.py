"""The exit statuses of commands. They are API: scripts depend on them, and none is given another meaning.

What a status means for one command, its help says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
VERIFICATION_FAILED: Final = 3
POLICY_NOT_MET: Final = 4
EVIDENCE_MISSING: Final = 5
REFUSED: Final = 6
NO_ROOM: Final = 7
PARTIAL: Final = 8
NOBODY_KNOWS: Final = 9
WARNED: Final = 10
INTERRUPTED: Final = 130

MEANINGS: Final[Mapping[int, str]] = {
    OK: "done",
    FAILED: "it failed, and may work when tried again",
    USAGE: "the command line, a reference, a policy or a settings file was wrong",
    VERIFICATION_FAILED: "verification failed: bytes, a signature or a proof do not hold",
    POLICY_NOT_MET: "authentic, but short of your policy",
    EVIDENCE_MISSING: "not to be had now: a node, a piece of evidence, the thing itself",
    REFUSED: "refused: a certificate, a permission, a rate",
    NO_ROOM: "disk or quota",
    PARTIAL: "partial: as you asked, or because a part was refused, is missing, or needs a look",
    NOBODY_KNOWS: "no node that answered knows these bytes",
    WARNED: "look at it now: newly warned about, not accepted, or altered",
    INTERRUPTED: "interrupted",
}
"""What docs/errors.md says of each."""
