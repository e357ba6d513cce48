"""Configuration and tokenizer: JSON files of two sides, key by key, and the tokens of their vocabularies.

These are strangers' files: bounded before they are read, parsed and never run; what does not parse is said to differ as
a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_TEXT: Final = 32 * 1024 * 1024
MAX_KEYS: Final = 2_000
MAX_DEPTH: Final = 12
_SHOWN: Final = 80
KEYED: Final = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
VOCABULARY: Final = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key, dots between its parts, and the values before and after in short; None where it is absent."""

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class TokenChanges:
    """Tokens that one vocabulary has and the other has not, and those whose number is another."""

    added: int
    removed: int
    renumbered: int
    examples: tuple[str, ...]


def compare_keys(before: bytes, after: bytes) -> tuple[KeyChange, ...] | None:
    """The keys of two JSON objects that differ, at most MAX_KEYS; None where one of them is no such object."""
    one, other = _flat(before), _flat(after)
    if one is None or other is None:
        return None
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys[:MAX_KEYS])


def compare_vocabularies(before: bytes, after: bytes) -> TokenChanges | None:
    """Of two `tokenizer.json`; None where one has no vocabulary that can be read."""
    one, other = _tokens(before), _tokens(after)
    if one is None or other is None:
        return None
    added, removed = other.keys() - one.keys(), one.keys() - other.keys()
    renumbered = [token for token in one.keys() & other.keys() if one[token] != other[token]]
    examples = tuple(sorted(added)[:3] + sorted(removed)[:3])
    return TokenChanges(len(added), len(removed), len(renumbered), examples)


def _flat(data: bytes) -> dict[str, str] | None:
    document = _parsed(data)
    if not isinstance(document, dict):
        return None
    return {key: json.dumps(value, sort_keys=True)[:_SHOWN] for key, value in _leaves(document, "", 0)}


def _leaves(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item and depth < MAX_DEPTH:
            yield from _leaves(item, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", item


def _tokens(data: bytes) -> dict[str, Any] | None:
    match _parsed(data):
        case {"model": {"vocab": dict(vocabulary)}}:
            return vocabulary
        case {"model": {"vocab": [*pairs]}} if all(isinstance(pair, list) and pair for pair in pairs):
            return {str(pair[0]): number for number, pair in enumerate(pairs)}  # Unigram: [token, score]
    return None


def _parsed(data: bytes) -> Any:
    if len(data) > MAX_TEXT:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
