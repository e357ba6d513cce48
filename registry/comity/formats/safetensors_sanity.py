"""Sanity of a safetensors header. Source: the format's README, and its `Metadata::validate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comity.formats.safetensors import MAX_HEADER, MAX_VALUES
from comity.formats.sanity import MAX_FINDINGS, Looked, Range, count_elements, tile
from comity.formats.source import Source
from comity.formats.tensors import BITS
from comity.trust.errors import Malformed

_BITS = {**BITS, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def look_at_safetensors(source: Source) -> Looked:
    """Raises OSError where the file does."""
    looked = Looked()
    try:
        start, tensors, twice = _safetensors_header(source)
        for name in twice:
            looked.say(f"the header gives {name[:80]!r} twice")
        ranges = []
        for name, described in tensors.items():
            if name != "__metadata__":
                ranges.append(_described(looked, name, described))
        tile(looked, [r for r in ranges if r is not None], source.size - start, tight=True)
    except Malformed as error:
        looked.say(str(error))
    return looked


def _safetensors_header(source: Source) -> tuple[int, Mapping[str, Any], list[str]]:
    length = int.from_bytes(source.exactly(0, 8), "little")
    if length > MAX_HEADER:
        raise Malformed("header too large", why=f"{length} bytes, at most {MAX_HEADER} are looked at")
    text, twice = source.exactly(8, length), list[str]()
    if sum(text.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before memory is spent on them
        raise Malformed("header too large", why=f"more than {MAX_VALUES} values")

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in members:
            if name in made and len(twice) < MAX_FINDINGS:
                twice.append(name)
            made[name] = value
        return made

    try:
        tensors = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise Malformed("header is not JSON", why=str(error)[:120]) from error
    if not isinstance(tensors, dict):
        raise Malformed("header is not a JSON object")
    metadata = tensors.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("__metadata__ holds something else than texts")
    return 8 + length, tensors, twice


def _described(looked: Looked, name: str, described: object) -> Range | None:
    match described:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            looked.say(f"{name[:80]!r} has no dtype, shape and data_offsets")
            return None
    elements = count_elements(looked, name, shape)
    if dtype not in _BITS:
        looked.say(f"{name[:80]!r} is of the unknown type {dtype[:20]!r}")
    elif elements is not None and elements * _BITS[dtype] != (end - begin) * 8:
        looked.say(f"{name[:80]!r}: {end - begin} bytes for {elements} elements of {dtype}")
    return Range(name, begin, end)
