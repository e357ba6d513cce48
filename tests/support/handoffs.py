"""Redemptions for hand-off files, and hostile texts to fill into them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from comity.trust.encoding import sha256
from comity_client.offers.handoff import HandOff, Part
from hypothesis import strategies as st

H100: Final = Part(
    name="big", vendor="NVIDIA", accelerator="H100", count=8, nodes=2, start=1_796_112_000, end=1_796_198_400,
    amount=300, cpus=96, ram_gib=1000, disk_gib=4000,
)  # fmt: skip
PLAIN: Final = HandOff(
    grant=sha256(b"grant"), title="Spare nodes", provider="Example Institute Zurich",
    grantee="Example Centre Barcelona", measure="accelerator-hours", engine="slurm", target="gpu", parts=(H100,),
    endpoint="https://models.example.org:8443", artifact=sha256(b"model"), model="swiss-ai/apertus-8b@v1",
    user="guest1", note="user: alice",
)  # fmt: skip

HOSTILE: Final = (
    "'; touch pwned; '",
    "$(touch pwned)",
    "`touch pwned`",
    '"\ntouch pwned\n"',
    "a\\",
    "#",
    "!!python/object:os.system",
    "&a *a",
    "| >",
    "{a: b}",
    "%",
    "- a",
    "\x00\x1b[31m",
    "\u2028\u0085",
    "ünï – \U0001f980",
    "on",
    "null",
    "",
    "~",
    "=",
    "'\"'\"'",
    "\\\ntouch pwned",
    "\r\ntouch pwned",
)

words = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), max_size=40))


def hostile_with(word: str, **changes: Any) -> HandOff:
    """A redemption in which `word` is every text that a stranger chooses."""
    attributes = (("label/zone", "a"), (word or "x", word))
    part = replace(H100, attributes=tuple(sorted(attributes)))
    named = dict.fromkeys(("title", "provider", "grantee", "target", "endpoint", "model", "note"), word)
    return replace(PLAIN, **{"parts": (part,), **named, **changes})
