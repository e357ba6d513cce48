"""Statements and documents: every valid one reads back; changed bytes raise nothing but ComityError."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from comity.federation_file import Federation
from comity.rules.charter_drafts import genesis
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout, encode_records, tensor_pieces
from comity.rules.signing import sign_content
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE, FileEntry, Manifest, PieceRecord, parse_records
from comity.trust.charter.document import Body, CharterPolicy, Member, _folded, quorum
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import MAX_INTEGER, Digest, b64encode, canonical, check_visible, parse_canonical, parse_json
from comity.trust.errors import ComityError, Malformed
from comity.trust.identity import KINDS, Inception, KeySet
from comity.trust.keys import RAW_SIZES, PublicKey, VerifyingKey
from comity.trust.names import Name, Reference
from comity.trust.node_records import Addresses, NodeRecord
from comity.trust.places import Place
from comity.trust.statement import (
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    Author,
    Envelope,
    EnvelopeSignature,
    SideObject,
    Statement,
    Subject,
    parse_entry,
)
from comity.trust.statement_kinds import STATEMENT_KINDS
from comity.trust.statements import (
    ADVISORIES,
    DOCUMENTS,
    LINEAGE_RELATIONS,
    SEVERITIES,
    VOUCH_KINDS,
    Advisory,
    Compromise,
    Derived,
    Extent,
    Licence,
    Parent,
    Published,
    Vouched,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.case import advisory, case, nodes
from support.derivations import derived_line
from support.examples import examples
from support.world import identity, signer

GOOD = case()

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
words = lines.filter(bool)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | integers | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
objects = st.builds(SideObject, digests, st.integers(0, MAX_OBJECT_BYTES // MAX_OBJECTS))
authors = st.builds(Author, st.sampled_from(["identity", "node"]), digests)
segments = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.\-]{0,20}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda text: "--" not in text and ".." not in text and not text.endswith(".git")
)
names = st.builds(Name, segments, segments, segments)
keys = st.lists(st.sampled_from(sorted(RAW_SIZES)), min_size=1, max_size=2, unique=True).flatmap(
    lambda algs: st.tuples(*(st.binary(min_size=8, max_size=8).map(_public(alg)) for alg in algs))
)
jurisdictions = st.from_regex(r"[A-Z]{2}|[a-z][a-z0-9-]{2,30}", fullmatch=True)


def _public(alg: str) -> Callable[[bytes], PublicKey]:
    return lambda seed: PublicKey(alg, (seed * RAW_SIZES[alg])[: RAW_SIZES[alg]])


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    made = [VerifyingKey.of(halves) for halves in draw(st.lists(keys, min_size=1, max_size=7))]
    halves = [half for key in made for half in key.halves]
    assume(len(set(halves)) == len(halves))
    return KeySet(tuple(made), draw(st.integers(len(made) // 2 + 1, len(made))))


statements = st.builds(
    Statement,
    st.sampled_from(sorted(kind.predicate for kind in STATEMENT_KINDS.values() if kind.objects)),
    st.lists(st.builds(Subject, lines, digests), min_size=1, max_size=3).map(tuple),
    authors,
    st.dictionaries(words.filter(lambda word: word not in ("by", "objects")), json_values, max_size=4),
    st.lists(objects, max_size=16, unique_by=lambda item: item.digest).map(tuple),
)
recoveries = st.lists(digests, max_size=7, unique=True).map(tuple)
inceptions = st.builds(
    Inception, st.sampled_from(KINDS), key_sets(), recoveries, lines, st.just("") | jurisdictions, lines
)


def _visible(name: str) -> bool:
    with suppress(Malformed):
        return bool(check_visible(name, "the name"))
    return False


members = st.builds(
    Member,
    digests,
    words.filter(_visible),
    jurisdictions,
    key_sets(),
    recoveries,
    st.sampled_from(["active", "observer"]),
)
paths = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
).map("/".join)
layouts = st.builds(PieceLayout, st.sampled_from([FIXED_LAYOUT, TENSOR_LAYOUT]), st.integers(0, MAX_PIECES), digests)
publications: st.SearchStrategy[Published] = st.builds(
    lambda manifest, **rest: Published(artifact=manifest.digest, manifest=manifest, **rest),
    by=digests,
    name=names,
    manifest=objects,
    pieces=objects,
    licence=st.builds(Licence, words, st.none() | objects),
    lineage=st.lists(st.builds(Parent, st.sampled_from(LINEAGE_RELATIONS), words, st.none() | digests), max_size=3).map(
        tuple
    ),
    documents=st.dictionaries(st.sampled_from(DOCUMENTS), objects),
).filter(lambda published: len({item.digest for item in published.objects()}) == len(published.objects()))


@given(json_values)
def test_json_round_trips_through_its_one_spelling(value: Any) -> None:
    data = canonical(value)
    assert parse_canonical(data, limit=len(data)) == value
    assert json.loads(data) == value


@given(statements)
def test_statements_round_trip(statement: Statement) -> None:
    assert Statement.parse(statement.encode()) == statement


@given(inceptions)
def test_inceptions_round_trip_and_keep_their_id(inception: Inception) -> None:
    read = Inception.from_json(json.loads(json.dumps(inception.to_json())))
    assert read == inception
    assert read.id == inception.id


@given(
    st.lists(members, min_size=1, max_size=4, unique_by=lambda member: member.id),
    st.dictionaries(segments, digests, max_size=3),
)
@settings(max_examples=examples(40))
def test_charters_round_trip(seats: list[Member], namespaces: dict[str, Digest]) -> None:
    active = sum(seat.active for seat in seats)
    halves = [half for seat in seats for key in seat.keys.keys for half in key.halves]
    assume(active and len(set(halves)) == len(halves))
    assume(len({name.lower() for name in namespaces}) == len(namespaces))
    assume(len({_folded(seat.name) for seat in seats}) == len(seats))
    body = genesis(seats, CharterPolicy(quorum(active), 1, 1, 0), namespaces)
    assert Body.parse(body.data) == body
    assert set(body.members) == set(seats)
    assert body.namespaces == namespaces


@given(st.dictionaries(paths, st.tuples(st.integers(0, 2**40), digests), max_size=6))
def test_manifests_round_trip_or_are_refused_for_a_path(files: dict[str, tuple[int, Digest]]) -> None:
    try:
        manifest = Manifest.of(FileEntry(path, size, digest) for path, (size, digest) in files.items())
    except Malformed as error:
        assert error.code == "BAD-PATH"
        return
    assert Manifest.parse(manifest.encode()) == manifest
    assert {entry.path for entry in manifest.files} == set(files)


@given(st.dictionaries(segments, layouts, max_size=5))
def test_piece_indices_round_trip(files: dict[str, PieceLayout]) -> None:
    index = PieceIndex(tuple(sorted(files.items())))
    assert PieceIndex.parse(index.encode()) == index


@given(st.lists(st.builds(PieceRecord, st.integers(1, PIECE_SIZE), st.binary(min_size=32, max_size=32)), max_size=8))
def test_piece_records_round_trip(records: list[PieceRecord]) -> None:
    size = sum(record.length for record in records)
    assert parse_records(encode_records(records), size=size) == records


@given(
    st.lists(st.integers(0, 3 * PIECE_SIZE), min_size=1, max_size=12, unique=True).map(sorted),
    st.integers(1, 2 * PIECE_SIZE),
)
def test_tensor_pieces_tile_the_file_and_start_where_large_tensors_do(offsets: list[int], last: int) -> None:
    header_end, *starts = offsets
    size = offsets[-1] + last
    lengths = tensor_pieces(size, header_end, starts)
    assert sum(lengths) == size
    assert all(1 <= length <= PIECE_SIZE for length in lengths)
    cuts = {0, *(sum(lengths[: at + 1]) for at in range(len(lengths)))}
    assert header_end in cuts
    for start, end in itertools.pairwise([*starts, size]):
        assert start in cuts or end - start < 256 * 1024


@given(names)
def test_names_round_trip(name: Name) -> None:
    assert Name.parse(str(name)) == name
    assert Reference.parse(str(name)) == Reference(name.repository, name.version, None)


@given(publications)
def test_publications_round_trip(published: Published) -> None:
    assert Published.parse(Statement.parse(published.statement().encode())) == published


@given(authors, digests, st.sampled_from(ADVISORIES), st.sampled_from(SEVERITIES), lines)
@settings(max_examples=examples(30))
def test_advisories_round_trip(by: Author, artifact: Digest, kind: str, severity: str, text: str) -> None:
    said = Advisory(by, artifact, kind, severity, text)
    assert Advisory.parse(parse_entry(sign_content(said, signer("a")).line).statement) == said


origins = words.filter(lambda word: not any(char.isspace() or char == "+" for char in word))


@given(authors, digests, digests, origins, st.integers(0, MAX_INTEGER))
@settings(max_examples=examples(30))
def test_notices_of_lost_keys_round_trip(by: Author, identity: Digest, key: Digest, origin: str, index: int) -> None:
    said = Advisory(by, identity, "key-compromise", "high", "", Compromise(key, origin, index))
    assert Advisory.parse(parse_entry(sign_content(said, signer("a")).line).statement) == said


@given(st.builds(Vouched, authors, digests, st.sampled_from(VOUCH_KINDS), lines, st.none() | objects))
@settings(max_examples=examples(30))
def test_vouches_round_trip(said: Vouched) -> None:
    assert Vouched.parse(parse_entry(sign_content(said, signer("a")).line).statement) == said


tool_words = st.from_regex(r"[a-z0-9][a-z0-9_+./-]{0,63}", fullmatch=True)


@st.composite
def derivations(draw: st.DrawFn) -> Derived:
    exact = draw(st.booleans())
    steps = draw(st.dictionaries(tool_words, st.integers(1, 1000), min_size=int(exact), max_size=4))
    equal, equal_bytes = sum(steps.values()), draw(st.integers(0, 2**40))
    more, more_bytes = (0, 0) if exact else draw(st.tuples(st.integers(0, 99), st.integers(0, 2**40)))
    child, parent = draw(st.lists(digests, min_size=2, max_size=2, unique=True))
    return Derived(
        by=draw(authors),
        child=child,
        parent=parent,
        relation=draw(st.sampled_from(["same-weights", "converted", "quantized"])) if exact else "overlap",
        result="exact" if exact else "share",
        steps=steps,
        tools=draw(st.dictionaries(tool_words, words, max_size=3)),
        files=draw(st.integers(0, 400)),
        parent_files=draw(st.integers(0, 400)),
        tensors=Extent(equal + more, equal),
        left_out=draw(st.integers(0, 99)),
        bytes=Extent(equal_bytes + more_bytes, equal_bytes),
    )


@given(derivations())
@settings(max_examples=examples(60))
def test_derivations_round_trip(derived: Derived) -> None:
    assert Derived.parse(parse_entry(sign_content(derived, signer("a")).line).statement) == derived


def read_inception(data: bytes) -> object:
    return Inception.from_json(parse_json(data, limit=100_000))


def read_published(data: bytes) -> object:
    return Published.parse(Statement.parse(data))


def read_record(data: bytes) -> object:
    return NodeRecord.parse(parse_entry(Envelope("application/vnd.in-toto+json", data, (ANY,)).encode()).statement)


ANY = EnvelopeSignature(GOOD.artifact, bytes(64))
NODE = nodes(1)[0]
PLACE = Place("Example Hosting", "Example Cloud", ("CH", "US"))
DOCUMENTS_AND_READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "manifest": (GOOD.manifest, Manifest.parse),
    "piece index": (GOOD.pieces, PieceIndex.parse),
    "inception": (
        canonical(identity("Swiss AI", "CH").inception.to_json()),
        read_inception,
    ),
    "charter": (GOOD.federation.body.data, Body.parse),
    "federation": (GOOD.federation.encode(), Federation.parse),
    "published": (GOOD.publication.envelope.payload, read_published),
    "hold": (parse_entry(GOOD.claims[-1]).envelope.payload, lambda d: HeldArtifact.parse(Statement.parse(d))),
    "advisory": (parse_entry(advisory(GOOD)[1]).envelope.payload, lambda d: Advisory.parse(Statement.parse(d))),
    "derived": (
        parse_entry(derived_line(GOOD.artifact)).envelope.payload,
        lambda d: Derived.parse(Statement.parse(d)),
    ),
    "addresses": (
        Statement(
            "addresses", (Subject("", NODE.record.node.id),), NODE.record.node, {"mutual": ["a:1"], "open": []}
        ).encode(),
        lambda d: Addresses.parse(Statement.parse(d)),
    ),
    "node record": (NODE.entry.envelope.payload, read_record),
    "placed node record": (replace(NODE.record, place=PLACE).statement().encode(), read_record),
    "envelope": (GOOD.publication.line, Envelope.parse),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The positions of all values in a JSON document, the document itself first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


oddities = (
    json_values
    | st.sampled_from(["", "\x1b", "a\nb", "0" * 64, "sha256:" + "0" * 64, 2**53, 1.5, -1, [[]], {"": 0}])
    | st.binary(max_size=40).map(b64encode)
)


@pytest.mark.parametrize("name", DOCUMENTS_AND_READERS)
@given(data=st.data())
@settings(max_examples=examples(60))
def test_a_document_with_anything_in_any_place_raises_only_our_errors(name: str, data: st.DataObject) -> None:
    good, read = DOCUMENTS_AND_READERS[name]
    read(good)
    document = json.loads(good)
    changed = replaced(document, data.draw(st.sampled_from(places(document))), data.draw(oddities))
    with suppress(ComityError):
        read(json.dumps(changed, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode())


@pytest.mark.parametrize("name", DOCUMENTS_AND_READERS)
@given(at=st.integers(0), mask=st.integers(1, 255), cut=st.none() | st.integers(0, 200))
@settings(max_examples=examples(60))
def test_a_document_with_bytes_changed_raises_only_our_errors(name: str, at: int, mask: int, cut: int | None) -> None:
    good, read = DOCUMENTS_AND_READERS[name]
    at %= len(good)
    changed = good[:at] + bytes([good[at] ^ mask]) + good[at + 1 : None if cut is None else at + cut]
    with suppress(ComityError):
        read(changed)
