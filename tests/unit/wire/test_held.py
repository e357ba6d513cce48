"""What an asker has is not sent: which lines an answer leaves out, and how it refers to the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.v1 import artifact_pb2, types_pb2
from comity.wire import limits
from comity.wire.held import HELD, REFERENCE, SALT, Held, LineReference, read_selected, reference_to
from comity.wire.messages import LocatedEntry
from hypothesis import given
from hypothesis import strategies as st
from support.asked_nodes import selected

SALTS = st.binary(min_size=SALT, max_size=SALT)
ENTRIES = st.lists(
    st.builds(
        LocatedEntry,
        st.sampled_from(["one.example/log", "two.example/log"]),
        st.integers(0, limits.INTEGER),
        st.sampled_from([b"line %d" % number for number in range(12)]),
        st.booleans(),
        attached=st.booleans(),
    ),
    max_size=40,
)


def told(salt: bytes, *lines: bytes, brief: bool = False) -> Held:
    return Held(salt, b"".join(reference_to(salt, sha256(line)) for line in lines), brief)


def in_full(entry: LocatedEntry | LineReference, salt: bytes) -> LocatedEntry:
    if isinstance(entry, LocatedEntry):
        return entry
    (line,) = (line for line in (b"line %d" % n for n in range(12)) if reference_to(salt, sha256(line)) == entry.line)
    return LocatedEntry(entry.origin, entry.index, line, entry.more, entry.others)


@given(entries=ENTRIES, salt=SALTS, held=st.sets(st.integers(0, 11)), brief=st.booleans(), others=st.booleans())
async def test_an_answer_says_the_same_with_fewer_lines(
    entries: list[LocatedEntry], salt: bytes, held: set[int], brief: bool, others: bool
) -> None:
    """In the same order, with the same marks; only unmarked lines that come along and are held are left out."""
    if entries and others:
        last = entries[-1]
        entries[-1] = LocatedEntry(last.origin, last.index, last.line, last.more, others=True, attached=last.attached)
    has = {b"line %d" % number for number in held}
    answer = await selected(entries, told(salt, *has, brief=brief))
    kept = [e for e in entries if not (e.line in has and e.attached and not e.more and not e.others)]
    assert [in_full(entry, salt) for entry in answer] == kept
    assert not any(isinstance(entry, LocatedEntry) and (brief or entry.line in has) for entry in answer)
    assert brief or all(isinstance(entry, LocatedEntry) or in_full(entry, salt).line in has for entry in answer)


async def test_who_says_nothing_gets_all_lines() -> None:
    entries = [LocatedEntry("one.example/log", number, b"line", attached=True) for number in range(3)]
    assert await selected(entries, None) == tuple(entries)


async def test_the_digest_that_a_node_knows_is_used() -> None:
    entry = LocatedEntry("one.example/log", 1, b"line", digest=sha256(b"other"))
    (answer,) = await selected([entry], told(bytes(SALT), b"other"))
    assert answer == LineReference("one.example/log", 1, reference_to(bytes(SALT), sha256(b"other")))


def test_a_reference_depends_on_the_salt() -> None:
    line = sha256(b"line")
    assert reference_to(bytes(SALT), line) != reference_to(bytes([1] * SALT), line)
    assert len(reference_to(bytes(SALT), line)) == REFERENCE


@pytest.mark.parametrize(
    "held",
    [
        artifact_pb2.Held(),
        artifact_pb2.Held(salt=bytes(SALT - 1)),
        artifact_pb2.Held(salt=bytes(SALT + 1)),
        artifact_pb2.Held(salt=bytes(SALT), lines=bytes(REFERENCE + 1)),
        artifact_pb2.Held(salt=bytes(SALT), lines=bytes((limits.HELD + 1) * REFERENCE)),
    ],
)
def test_what_is_held_has_bounds(held: artifact_pb2.Held) -> None:
    with pytest.raises(Malformed):
        HELD.decode(held)


def test_as_many_lines_as_a_question_may_name_fit_beside_all_named_authors() -> None:
    held = artifact_pb2.Held(salt=bytes(SALT), lines=bytes(limits.HELD * REFERENCE), brief=True)
    assert HELD.encode(HELD.decode(held)) == held
    named = [bytes(32)] * limits.NAMED
    text = "x" * limits.NAME
    resolve = artifact_pb2.ResolveRequest(name=text, version=text, publisher=bytes(32), named=named, held=held)
    claims = artifact_pb2.GetClaimsRequest(artifact=bytes(32), named=named, held=held)
    assert max(resolve.ByteSize(), claims.ByteSize()) <= 16 * 1024, "what a node of the version before accepts"


def _set(name: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda fields: fields.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        _set("lines", b""),
        _set("lines", bytes(REFERENCE)),
        _set("lines", bytes(2 * REFERENCE - 1)),
        _set("logs", [0]),
        _set("logs", [0, 2]),
        _set("indexes", [0, 1, 2]),
        _set("indexes", [0, limits.INTEGER + 1]),
        _set("origins", []),
        _set("origins", ["a b", "c"]),
        _set("origins", ["a"] * (limits.REFERENCES + 1)),
    ],
)
def test_references_that_do_not_fit_together_are_refused(change: Callable[[dict[str, object]], None]) -> None:
    fields: dict[str, object] = {"origins": ["a", "b"], "logs": [0, 1], "indexes": [3, 4], "lines": bytes(16)}
    good = types_pb2.Located(references=types_pb2.References(**fields), others=True)  # type: ignore[arg-type]
    assert read_selected(good) == (LineReference("a", 3, bytes(8)), LineReference("b", 4, bytes(8), others=True))
    change(fields)
    with pytest.raises(Malformed):
        read_selected(types_pb2.Located(references=types_pb2.References(**fields)))  # type: ignore[arg-type]


def test_too_many_references_in_one_message_are_refused() -> None:
    count = limits.REFERENCES + 1
    many = types_pb2.References(origins=["a"], logs=[0] * count, indexes=[0] * count, lines=bytes(count * REFERENCE))
    with pytest.raises(Malformed):
        read_selected(types_pb2.Located(references=many))


async def test_a_line_is_sent_with_its_time_and_a_reference_without_one() -> None:
    entry = LocatedEntry("one.example/log", 1, b"line", known_since=1_700_000_000)
    (full,), (brief,) = await selected([entry], None), await selected([entry], told(bytes(SALT), brief=True))
    assert isinstance(full, LocatedEntry) and full.known_since == 1_700_000_000
    assert isinstance(brief, LineReference)


def test_a_node_of_the_version_before_says_no_time_and_none_beyond_the_last_is_read() -> None:
    (old,) = read_selected(types_pb2.Located(origin="one.example/log", index=1, line=b"1"))
    assert isinstance(old, LocatedEntry) and old.known_since == 0
    with pytest.raises(Malformed):
        read_selected(types_pb2.Located(origin="one.example/log", index=1, line=b"1", known_since=2**60))
