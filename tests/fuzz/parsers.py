"""Every parser of hostile bytes, each with valid samples to start from. A new format is one line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comity.trust.checkpoint import Checkpoint
from comity.trust.encoding import canonical, parse_canonical
from comity.trust.note import NoteSignature, SignedNote, VerifierKey
from comity.trust.tiles import decode_entries, encode_entries, parse_tile_path
from comity.trust.tlog_policy import TlogPolicy
from comity.trust.tlog_proof import TlogProof


@dataclass(frozen=True)
class Target:
    """`parse` raises nothing but ComityError; `printed`, where given, is its exact inverse for all that it accepts."""

    parse: Callable[[bytes], Any]
    samples: tuple[bytes, ...]
    printed: Callable[[Any], bytes] | None = None


def of_text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A parser of text as one of bytes; what is not UTF-8 reaches it as lone surrogates."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def to_text(printed: Callable[[Any], str]) -> Callable[[Any], bytes]:
    return lambda value: printed(value).encode("utf-8", "surrogateescape")


def _vectors(name: str) -> Any:
    return json.loads((Path(__file__).parents[1] / "vectors" / name).read_text("utf-8"))


def _encoded(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


_NOTES: Final = _encoded(*(case["note"] for case in _vectors("note.json")["accepted"]))
_LINES: Final = tuple(line for note in _NOTES for line in note.splitlines() if line.startswith("— ".encode()))
_KEYS: Final = _encoded(*_vectors("note.json")["vkeys"], _vectors("cosignature.json")["ml-dsa-44"]["vkey"])
_CHECKPOINTS: Final = _encoded(*(case["text"] for case in _vectors("checkpoint.json")["accepted"]))
_PROOFS: Final = _encoded(*_vectors("tlog-proof.json")["accepted"])
_POLICIES: Final = _encoded(*(case["policy"] for case in _vectors("tlog-policy.json")["satisfied"]))
_TILES: Final = _encoded(*(case["path"] for case in _vectors("tiles.json")["paths"]))
_BUNDLES: Final = tuple(bytes.fromhex(case["data_hex"]) for case in _vectors("tiles.json")["bundles"])
_JSON: Final = (b'{"a":[1,-2,null,true,"\xc3\xa9\\n"],"b":{"c":9007199254740991}}',)

PARSERS: Final[dict[str, Target]] = {
    "canonical-json": Target(lambda data: parse_canonical(data, limit=1 << 20), _JSON, canonical),
    "checkpoint": Target(of_text(Checkpoint.parse), _CHECKPOINTS, to_text(lambda checkpoint: checkpoint.text)),
    "entry-bundle": Target(decode_entries, _BUNDLES, encode_entries),
    "note": Target(SignedNote.parse, _NOTES, SignedNote.encode),
    "note-key": Target(of_text(VerifierKey.parse), _KEYS, to_text(str)),
    "note-signature": Target(of_text(NoteSignature.parse), _LINES, to_text(str)),
    "tile-path": Target(of_text(parse_tile_path), _TILES, to_text(lambda tile: tile.path)),
    "tlog-policy": Target(of_text(TlogPolicy.parse), _POLICIES),
    "tlog-proof": Target(TlogProof.parse, _PROOFS, TlogProof.encode),
}
