"""Canonical encodings: JSON, base64, decimal numbers, SHA-256 digests, and ids for display.

Each value has exactly one valid encoding; other encodings of it are refused. Documents named by their hash (manifest,
charter body, inception record) are RFC 8785 JSON, in the subset without fractions: null, true, false, integers within
+-(2**53 - 1), strings, arrays, objects. In this subset RFC 8785 means: members sorted by UTF-16 code units, no white
space, the shortest escapes.

`Fields` reads a JSON object member by member, with types and limits, and refuses unknown members. `format_id` and
`syllables` show a 256-bit id to people; `names` reads the first form back, and nothing the second. `syllables`
carries only the first 64 bits of the id: nobody finds another id with the same syllables by chance, but they do not
replace the full id in a file.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Final, NewType, TypeAlias

from comity.trust.errors import Malformed

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32

_DUMPER = json.JSONEncoder(ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":"))
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
LAST_TIME: Final = 253_402_300_799
"""The end of the year 9999 in seconds since 1970: later times have no date that programs can show."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM: Final = re.compile(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")


def b64encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def b64decode(text: object, *, size: int | None = None) -> bytes:
    """Decode standard base64 with padding. Raises Malformed, also for a non-canonical encoding of the same bytes."""
    if not isinstance(text, str):
        raise Malformed("not base64", why="expected a string")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Malformed("not base64", why=str(error)) from error
    last = (len(data) - 1) % 3 + 1  # bytes in the last group, the only one with unused bits
    if len(text) != -(-len(data) // 3) * 4 or text[-4:] != b64encode(data[len(data) - last :]):
        raise Malformed("not base64", why="not the canonical encoding (non-zero trailing bits)")
    if size is not None and len(data) != size:
        raise Malformed("wrong length", why=f"expected {size} bytes, got {len(data)}")
    return data


def parse_decimal(text: str, *, limit: int = 2**63 - 1) -> int:
    """Parse ASCII digits without leading zeros, at most `limit`. Raises Malformed."""
    if not _DECIMAL.match(text) or int(text) > limit:
        raise Malformed("not a number", why=f"expected canonical decimal digits up to {limit}, got {text[:24]!r}")
    return int(text)


def canonical(value: Json) -> bytes:
    """RFC 8785 bytes of `value`. Raises Malformed for values outside the subset (fractions, big integers)."""
    try:
        return (_DUMPER.encode(value) if _std_is_canonical(value) else _encode(value, 0)).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("not encodable as JSON", why="a lone surrogate") from error


def parse_json(
    data: bytes,
    *,
    limit: int,
    what: str = "document",
    whole_fractions: bool = False,
    text_fractions: bool = False,
) -> Json:
    """Parse JSON strictly: at most `limit` bytes, UTF-8, no duplicate member, no fraction, depth at most 32.

    Args:
        whole_fractions: read `12.0`, which some programs write for integers, as 12.
        text_fractions: read a fraction as its text, for documents of others with which nothing is computed.

    Raises Malformed. White space is allowed; use `parse_canonical` where the encoding must be canonical.
    """
    decoder = _WITH_WHOLE_FRACTIONS if whole_fractions else _WITH_TEXT_FRACTIONS if text_fractions else _STRICT
    value = _parse(data, limit, what, decoder)
    escapes = b"\\u" in data
    if escapes or data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check(value, 0, escapes)
    return value


def parse_canonical(data: bytes, *, limit: int, what: str = "document") -> Json:
    """Parse JSON that must be in RFC 8785 form. Raises Malformed."""
    value = _parse(data, limit, what, _STRICT)
    if canonical(value) != data:
        raise Malformed(f"{what} is not in canonical form", why="its RFC 8785 encoding differs")
    return value


def _parse(data: bytes, limit: int, what: str, decoder: json.JSONDecoder) -> Json:
    if len(data) > limit:
        raise Malformed(f"{what} too large", why=f"{len(data)} bytes, at most {limit} are allowed")
    try:
        value: Json = decoder.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON", why=str(error)[:200]) from error
    return value


def _check(value: Json, depth: int, escapes: bool) -> None:
    """Check the depth of parsed JSON. With `escapes` also refuse lone surrogates, which need `\\u` escapes."""
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        for name, item in value.items():
            if escapes:
                _check(name, depth, escapes)
            _check(item, depth + 1, escapes)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1, escapes)
    elif escapes and isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Malformed("not encodable as JSON", why="a lone surrogate") from error


def _std_is_canonical(value: Json) -> bool:
    """Whether the standard library encodes `value` as RFC 8785 does: built-in types, integers in range, and names
    that sort the same by UTF-16 code units and by characters. `_encode` handles all other values, and the errors."""
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Json] = []
        for item in level:
            kind = type(item)
            if kind is str or item is None or kind is bool:
                continue
            if kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:  # type: ignore[operator]
                    return False
            elif kind is dict:
                names = "".join(item)  # type: ignore[arg-type]
                if not names.isascii() and max(names) >= "\ud800":
                    return False
                inner += item.values()  # type: ignore[union-attr]
            elif kind is list or kind is tuple:
                inner += item  # type: ignore[arg-type]
            else:
                return False
        if not inner:
            return True
        level = inner
    return False


def _too_deep() -> Malformed:
    return Malformed("JSON nested too deeply", why=f"more than {MAX_DEPTH} levels")


def _encode(value: Json, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise Malformed("integer out of range", why="JSON integers are exact only to 2**53 - 1")
        return str(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Mapping):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(encode_basestring(k) + ":" + _encode(v, depth + 1) for k, v in members) + "}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "[" + ",".join(_encode(item, depth + 1) for item in value) + "]"
    raise Malformed("not encodable as JSON", why=f"a {type(value).__name__}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_fraction(text: str) -> Json:
    raise ValueError(f"a fraction or constant: {text[:20]!r}")


def _whole_fraction(text: str) -> Json:
    whole, _, zeros = text.partition(".")
    return _bounded_int(whole) if zeros and not zeros.strip("0") else _no_fraction(text)


def _bounded_int(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError("integer out of range")
    return int(text)


def _decoder(parse_fraction: Callable[[str], Json]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=parse_fraction, parse_constant=_no_fraction, parse_int=_bounded_int
    )


_STRICT = _decoder(_no_fraction)
_WITH_WHOLE_FRACTIONS = _decoder(_whole_fraction)
_WITH_TEXT_FRACTIONS = _decoder(lambda text: text)


Digest = NewType("Digest", str)

_HEX = re.compile(r"[0-9a-f]{64}\Z")


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def bare_digest(text: object) -> Digest:
    """Parse a digest in the form that documents use: 64 lower-case hex digits. Raises Malformed."""
    if isinstance(text, str) and _HEX.match(text):
        return Digest(text)
    raise Malformed("not a sha256 digest", why=f"expected 64 lower-case hex digits, got {str(text)[:80]!r}")


def parse_digest(text: object) -> Digest:
    """Parse a digest that a user typed, bare or as `sha256:<hex>`. Raises Malformed."""
    return bare_digest(text.removeprefix("sha256:") if isinstance(text, str) else text)


def short(digest: Digest) -> str:
    """`9f2c41…e01a`, for display only; never parse it back."""
    return f"{digest[:6]}…{digest[-4:]}"


MAX_TEXT = 4096
CONTROLS = ("Cc", "Zl", "Zp")  # characters that can break one line into two


class Fields:
    """Reads a JSON object member by member; `done` refuses the members that were not read.

    Args:
        value: the parsed JSON.
        what: the document's name, for errors.

    Every reader raises Malformed if the member is absent, of another type, or out of bounds.
    """

    def __init__(self, value: Json, what: str) -> None:
        if not isinstance(value, Mapping):
            raise Malformed(f"{what} is malformed", why="expected a JSON object")
        self._members = dict(value)
        self._what = what

    def has(self, name: str) -> bool:
        return name in self._members

    def is_null(self, name: str) -> bool:
        """Whether the member is null; then it is read."""
        return self._members.get(name, True) is None and self._members.pop(name) is None

    def alone(self, name: str = "", value: Json = None) -> Fields:
        """Reads one other member, or none, in the name of this document."""
        return Fields({name: value} if name else {}, self._what)

    def take(self, name: str) -> Json:
        if name not in self._members:
            raise self.error(f"member {name!r} is missing")
        return self._members.pop(name)

    def text(self, name: str, *, most: int = MAX_TEXT, least: int = 1, lines: bool = False) -> str:
        """A string of `least` to `most` characters without control characters; `lines` allows line feeds and tabs."""
        value = self.take(name)
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise self.error(f"member {name!r} must be a string of {least} to {most} characters")
        allowed = "\n\t" if lines else ""
        if not value.isprintable() and any(unicodedata.category(c) in CONTROLS and c not in allowed for c in value):
            raise self.error(f"member {name!r} holds a control character")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.text(name)
        if value not in choices:
            raise self.error(f"member {name!r} must be one of {', '.join(choices)}, not {value[:40]!r}")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = MAX_INTEGER) -> int:
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(f"member {name!r} must be an integer from {least} to {most}")
        return value

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.error(f"member {name!r} must be true or false")
        return value

    def digest(self, name: str) -> Digest:
        return bare_digest(self.take(name))

    def digest_or_none(self, name: str) -> Digest | None:
        """None for null."""
        value = self.take(name)
        return None if value is None else bare_digest(value)

    def items(self, name: str, *, most: int, least: int = 0) -> Sequence[Json]:
        value = self.take(name)
        if isinstance(value, str) or not isinstance(value, Sequence) or not least <= len(value) <= most:
            raise self.error(f"member {name!r} must be a list of {least} to {most} items")
        return value

    def digests(self, name: str, *, most: int, least: int = 0) -> tuple[Digest, ...]:
        return tuple(bare_digest(item) for item in self.items(name, most=most, least=least))

    def object(self, name: str) -> Fields:
        return self.within(name, self.take(name))

    def within(self, name: str, value: Json) -> Fields:
        """Reads the object `value`, which is or was the member `name`."""
        return Fields(value, f"{self._what}.{name}")

    def constant(self, name: str, expected: str) -> None:
        value = self.take(name)
        if value != expected:
            raise self.error(f"member {name!r} must be {expected!r}, not {str(value)[:60]!r}")

    def done(self) -> None:
        """Raise Malformed if a member was not read: a document named by its hash must not carry unknown members."""
        if self._members:
            raise self.error(f"unknown member {sorted(self._members)[0][:60]!r}")

    def error(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=why)


SYLLABLE_BITS: Final = 64
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"


def format_time(time: int) -> str:
    """`2026-11-25T15:04:05Z` for seconds since 1970."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(_TIME)


def format_moment(time: float, form: str) -> str:
    """Seconds since 1970 in a form of `strftime`, in UTC; beyond `LAST_TIME` as they are: peers may say
    such times."""
    if time > LAST_TIME:
        return f"second {int(time)}"
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime(form)


def read_time(fields: Fields, name: str) -> int:
    """The member `name`, a time as `format_time` writes it, in seconds since 1970. Raises Malformed."""
    text = fields.text(name)
    try:
        if _TIME_FORM.match(text):
            return int(datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        pass
    raise fields.error(f"{name!r} must be a time in UTC, such as 2026-11-25T15:04:05Z")


def format_id(identifier: Digest) -> str:
    """`MFZWI3D-…`: 52 base32 digits and 4 check digits (CRC-32, 20 bits) in groups of seven."""
    raw = bytes.fromhex(identifier)
    check = (zlib.crc32(raw) & 0xFFFFF) << 4
    text = base64.b32encode(raw).decode().rstrip("=") + base64.b32encode(check.to_bytes(3, "big")).decode()[:4]
    return "-".join(text[at : at + 7] for at in range(0, len(text), 7))


def syllables(identifier: Digest) -> str:
    """Four groups of five letters, 16 bits each, for the first 64 bits of an id."""
    raw = bytes.fromhex(identifier)[: SYLLABLE_BITS // 8]
    return "-".join(_five_letters(int.from_bytes(raw[at : at + 2], "big")) for at in range(0, len(raw), 2))


_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U00016fe4"
    "\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing, or change the direction of others: the code points that Unicode has as default
ignorable (DerivedCoreProperties), separators of lines, annotations, and blank glyphs (Braille, a filler, a
null notehead). A list and no property of this Python's tables, so that every version refuses the same names."""


def check_visible(name: str, what: str) -> str:
    """Return the name of somebody, as people read it, if every character of it can be seen. Raises Malformed
    (INVISIBLE-NAME): a name that begins with U+3164 looks like another one."""
    found = _INVISIBLE.search(name)
    if found or not name.strip():
        why = f"it has U+{ord(found[0]):04X}, which cannot be seen" if found else "it is blank"
        hint = "write it with visible characters"
        raise Malformed(f"{what} {printable(name)[:80]!r} cannot be used", why=why, hint=hint, code="INVISIBLE-NAME")
    return name


def printable(text: str) -> str:
    """`text` on one line, with control characters and those that cannot be seen escaped: file names and claims may come
    from an attacker."""
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(
        c if c.isprintable() and not _INVISIBLE.match(c) else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _five_letters(value: int) -> str:
    letters = (
        _CONSONANTS[value >> 12 & 15],
        _VOWELS[value >> 10 & 3],
        _CONSONANTS[value >> 6 & 15],
        _VOWELS[value >> 4 & 3],
        _CONSONANTS[value & 15],
    )
    return "".join(letters)
