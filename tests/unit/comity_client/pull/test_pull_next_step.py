"""What a pull that the policy refuses says about the next step: the one that helps against this refusal."""

from __future__ import annotations

import pytest
from comity.trust.evidence import Row
from comity.trust.rows.publication import AFTER_LOSS, SIGNED_AGAIN
from comity_client.pull.pull import _next_step

TITLE = "swiss-ai/tiny@v1"
UNPINNED = Row("transparency", "unknown", "no charter is pinned", 6, "short")
UNSAFE = Row("file safety", "fail", "evil.pkl: pickle", 9, "false")
OLD = Row("time", "fail", "2 cosigners saw it at most 184 days before as_of", 12, "short")
LOST = Row("key policy", "fail", AFTER_LOSS, 4, "short", hint=SIGNED_AGAIN)
UNNAMED = Row("key policy", "unknown", "no publisher is pinned", 4, "short", hint="comity trust bind swiss-ai 51aa")
FEW = Row("cosigners", "fail", "1 (2 required)", 7, "short")


@pytest.mark.parametrize(
    ("failing", "step"),
    [
        ([UNPINNED, FEW], "comity policy new --out FILE"),
        ([UNSAFE], f"comity pull {TITLE} --exclude PATTERN"),
        ([OLD], "comity policy explain FILE"),
        ([FEW], "wait for more cosignatures"),
        ([LOST, FEW], f"comity show {TITLE}"),
        ([UNNAMED], "comity trust bind swiss-ai"),
    ],
)
def test_the_next_step_helps_against_the_row_that_failed(failing: list[Row], step: str) -> None:
    assert step in _next_step(failing, TITLE)
