"""What an OpenSSF signature beside the artifact says: facts that join the row *signatures*."""

from __future__ import annotations

from comity.trust.rows.findings import Findings
from comity.trust.verdict import Fact


def model_signing_facts(found: Findings) -> tuple[Fact, ...]:
    return ()
