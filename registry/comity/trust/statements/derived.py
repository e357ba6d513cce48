"""`derived`: somebody made the child's weights again from the parent's, and says how much came out the same.

    {"parent":"9f2c…","relation":"quantized","result":"exact",
     "method":{"id":"comity/tensors/v1","steps":{"copy":62,"q8_0":39},"tools":{"comity":"0.1.0","gguf":"0.19.0"}},
     "files":{"child":1,"parent":1},"tensors":{"total":101,"equal":101,"left_out":3},
     "bytes":{"total":24065952,"equal":24065952}}

The subject is the child's artifact digest. `exact` says that every tensor of the child follows from the parent by the
steps that are counted; `share` says how many tensors do, and claims nothing of the rest. Like any statement it is the
word of whoever signed it: anybody who holds both can do the same and compare. Source: protocol, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from comity.trust.digest import Digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement

PREDICATE: Final = "derived"
METHOD: Final = "comity/tensors/v1"
RELATIONS: Final = ("same-weights", "converted", "quantized", "overlap")
"""The same tensors, however dealt out over files; cast to another width; quantised; or only partly the same."""
MAX_STEPS: Final = 16
MAX_TOOLS: Final = 8
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_+./-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Extent:
    """Of `total` how many (tensors, bytes) are what the parent gives."""

    total: int
    equal: int


@dataclass(frozen=True, slots=True)
class Derived:
    """What somebody found. `left_out` counts tensors of the parent that the child has not."""

    by: Author
    child: Digest
    parent: Digest
    relation: str
    result: Literal["exact", "share"]
    steps: Mapping[str, int]
    tools: Mapping[str, str]
    files: int
    parent_files: int
    tensors: Extent
    left_out: int
    bytes: Extent

    @property
    def exact(self) -> bool:
        return self.result == "exact"

    def statement(self) -> Statement:
        body: dict[str, Json] = {
            "parent": self.parent,
            "relation": self.relation,
            "result": self.result,
            "method": {"id": METHOD, "steps": dict(self.steps), "tools": dict(self.tools)},
            "files": {"child": self.files, "parent": self.parent_files},
            "tensors": {"total": self.tensors.total, "equal": self.tensors.equal, "left_out": self.left_out},
            "bytes": {"total": self.bytes.total, "equal": self.bytes.equal},
        }
        return Statement(PREDICATE, (Subject("", self.child),), self.by, body)


def sign_derived(derived: Derived, *signers: Signer) -> Entry:
    """Raises Malformed for a claim that contradicts itself."""
    statement = derived.statement()
    parse_derived(statement)
    return sign_statement(statement, *signers)


def parse_derived(statement: Statement) -> Derived:
    """Raises Malformed, also for a claim that contradicts itself."""
    if statement.predicate != PREDICATE or statement.by is None:
        raise Malformed("derived is malformed", why="not a derived statement")
    fields = statement.fields()
    parent, relation = fields.digest("parent"), fields.choice("relation", RELATIONS)
    exact = fields.choice("result", ("exact", "share")) == "exact"
    steps, tools = _method(fields.object("method"))
    files, tensors = fields.object("files"), fields.object("tensors")
    left_out = tensors.integer("left_out")
    derived = Derived(
        by=statement.by,
        child=statement.sole_subject(),
        parent=parent,
        relation=relation,
        result="exact" if exact else "share",
        steps=steps,
        tools=tools,
        files=files.integer("child"),
        parent_files=files.integer("parent"),
        tensors=_extent(tensors),
        left_out=left_out,
        bytes=_extent(fields.object("bytes")),
    )
    files.done()
    fields.done()
    _check(derived)
    return derived


def _method(fields: Fields) -> tuple[dict[str, int], dict[str, str]]:
    fields.constant("id", METHOD)
    steps, tools = fields.take("steps"), fields.take("tools")
    fields.done()
    return (
        {name: Fields(steps, "derived.steps").integer(name, least=1) for name in _words(steps, MAX_STEPS)},
        {name: Fields(tools, "derived.tools").text(name, most=64) for name in _words(tools, MAX_TOOLS)},
    )


def _words(value: Json, most: int) -> list[str]:
    if not isinstance(value, Mapping) or len(value) > most or not all(map(_WORD.match, value)):
        raise Malformed("derived is malformed", why=f"steps and tools are at most {most} named by short words")
    return list(value)


def _extent(fields: Fields) -> Extent:
    made = Extent(fields.integer("total"), fields.integer("equal"))
    fields.done()
    return made


def _check(derived: Derived) -> None:
    contradictions = {
        "an artifact is not derived from itself": derived.child == derived.parent,
        "more is equal than there is": derived.tensors.equal > derived.tensors.total
        or derived.bytes.equal > derived.bytes.total,
        "its steps are not as many as its equal tensors": sum(derived.steps.values()) != derived.tensors.equal,
        "an exact result is of all tensors, and of one at least": derived.exact
        and (derived.tensors.total == 0 or derived.tensors.equal != derived.tensors.total),
        "an exact result is of all bytes": derived.exact and derived.bytes.equal != derived.bytes.total,
        "a share is an overlap, and nothing else is": derived.exact == (derived.relation == "overlap"),
    }
    for why, holds in contradictions.items():
        if holds:
            raise Malformed("derived is malformed", why=why)
