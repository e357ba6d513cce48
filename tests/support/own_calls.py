"""Counts what product code does in a test: calls of its functions, and how deep these are on the stack."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import pytest
from comity import verifier
from comity.trust.keys import PublicKey
from comity_client import client

OWN: Final = tuple(str(Path(each.__file__ or "").parent) for each in (verifier, client))


@dataclass
class OwnCalls:
    """Calls of product code in one thread. `parsed` counts the parsing of each log line, `included` the computing of
    each inclusion proof by (leaf, index, root), and `signatures` the checks of each signature by (key, signature,
    message). `calls` are those of functions, comprehensions, generator expressions and lambdas; `stacks` is the sum
    over all of them of the number of product functions on the stack, without comprehensions and the like."""

    named: Counter[str] = field(default_factory=Counter)
    parsed: Counter[bytes] = field(default_factory=Counter)
    included: Counter[tuple[bytes, int, bytes]] = field(default_factory=Counter)
    signatures: Counter[tuple[str, bytes, bytes]] = field(default_factory=Counter)
    calls: int = 0
    stacks: int = 0

    @property
    def mean_stack(self) -> float:
        return self.stacks / self.calls

    def see(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`."""
        if event != "call" or not frame.f_code.co_filename.startswith(OWN):
            return
        found, name = frame.f_locals, frame.f_code.co_name
        self.named[name] += 1
        self.calls += 1
        self.stacks += _own_functions(frame)
        if name == "parse_entry":
            self.parsed[found["line"]] += 1
        elif name == "verify_inclusion":
            self.included[found["leaf"], found["index"], found["root"]] += 1


def _own_functions(frame: FrameType | None) -> int:
    count = 0
    while frame is not None:
        count += _is_function(frame.f_code)
        frame = frame.f_back
    return count


@cache
def _is_function(code: CodeType) -> bool:
    return code.co_filename.startswith(OWN) and not code.co_name.startswith("<")


@contextmanager
def own_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnCalls]:
    """Count in this thread until the block ends."""
    seen, verify = OwnCalls(), PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> None:
        seen.signatures[key.id, signature, message] += 1
        verify(key, signature, message)

    with monkeypatch.context() as patched:
        patched.setattr(PublicKey, "verify", counted)
        sys.setprofile(seen.see)
        try:
            yield seen
        finally:
            sys.setprofile(None)
