"""`derived` statements: those that contradict themselves are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Statement, Subject, parse_entry
from comity.trust.statements import Derived, Extent
from support.derivations import derived_line
from support.world import identity

CHILD = sha256(b"child")
EXACT = Derived.parse(parse_entry(derived_line(CHILD)).statement)
SHARE = Derived.parse(parse_entry(derived_line(CHILD, exact=False)).statement)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (replace(EXACT, parent=CHILD), "child and parent are the same"),
        (replace(EXACT, tensors=Extent(101, 100)), "not the number of equal tensors"),
        (replace(EXACT, tensors=Extent(102, 101)), "all tensors equal"),
        (replace(EXACT, tensors=Extent(0, 0), steps={}), "at least one tensor"),
        (replace(EXACT, bytes=Extent(10, 9)), "all bytes equal"),
        (replace(EXACT, relation="overlap"), "require each other"),
        (replace(SHARE, relation="quantized"), "require each other"),
        (replace(SHARE, tensors=Extent(49, 50)), "is larger than"),
        (replace(SHARE, bytes=Extent(1, 2)), "is larger than"),
        (replace(SHARE, relation="sibling"), "must be one of"),
        (replace(SHARE, steps={"Copy": 50}), "short names"),
        (replace(SHARE, steps={"copy": 51, "none": -1}), "must be an integer"),
        (replace(SHARE, steps={"copy": 50, "none": 0}), "must be an integer"),
        (replace(SHARE, steps={f"s{n}": 1 for n in range(17)}), "at most 16"),
        (replace(SHARE, tools={f"t{n}": "1" for n in range(9)}), "at most 8"),
        (replace(SHARE, tools={"gguf": "x" * 65}), "1 to 64 characters"),
        (replace(SHARE, tools={"gguf": ""}), "1 to 64 characters"),
        (replace(SHARE, left_out=-1), "must be an integer"),
    ],
)
def test_a_claim_that_contradicts_itself_is_not_signed(said: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        sign_content(said, identity("Checking lab", "ES").signer)


@pytest.mark.parametrize("part", ["", "method", "files", "tensors", "bytes"])
def test_an_unknown_member_is_refused_in_every_part(part: str) -> None:
    statement = EXACT.statement()
    body: dict[str, Any] = dict(statement.body)
    change = {part: {**body[part], "note": 1}} if part else {"note": 1}
    with pytest.raises(Malformed, match="unknown member"):
        Derived.parse(replace(statement, body={**body, **change}))


@pytest.mark.parametrize("labels", [[], "", 5, None])
def test_steps_and_tools_are_objects(labels: Any) -> None:
    statement = replace(SHARE, tensors=Extent(50, 0), steps={}, tools={}).statement()
    assert Derived.parse(statement).steps == {}
    method: Any = statement.body["method"]
    for part in ("steps", "tools"):
        with pytest.raises(Malformed, match="must be an object"):
            Derived.parse(replace(statement, body={**statement.body, "method": {**method, part: labels}}))


def test_the_most_steps_and_tools_read_back() -> None:
    most = replace(
        SHARE,
        tensors=Extent(50, 16),
        steps={f"s{n}" + "x" * 61: 1 for n in range(10, 26)},
        tools={f"t{n}": "x" * 64 for n in range(8)},
    )
    assert Derived.parse(sign_content(most, identity("Checking lab", "ES").signer).statement) == most


def test_a_derived_statement_has_one_subject_and_its_own_type() -> None:
    statement = EXACT.statement()
    for changed in (
        replace(statement, subjects=(*statement.subjects, Subject("", sha256(b"x")))),
        Statement("vouched", statement.subjects, statement.by, statement.body),
        replace(statement, by=None),
    ):
        with pytest.raises(Malformed):
            Derived.parse(changed)
