"""Licence expressions of publications: checked against the SPDX list, and written as SPDX spells them.

The list and the grammar are those of the package `license-expression`. A licence that is not on the list has three
forms: `LicenseRef-NAME`, the Hub's word `other`, and any text that the publisher marks as unlisted. Source: SPDX 2.3,
annex D.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING, Final

from comity.trust.errors import Malformed

if TYPE_CHECKING:
    from license_expression import LicenseSymbol, Licensing

OTHER: Final = "other"
MAX_LENGTH: Final = 200
"""Characters of a licence in a statement."""
_OWN_NAME: Final = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+\Z", re.IGNORECASE)
_PREFIXES: Final = ("DocumentRef-", "LicenseRef-")


def canonical_licence(text: str, *, unlisted: bool = False) -> str:
    """Return a licence in its canonical spelling: `mit or apache-2.0` is `MIT OR Apache-2.0`.

    Args:
        unlisted: return text that is no SPDX expression as it is, instead of refusing it.

    Raises Malformed (BAD-LICENCE).
    """
    text = text.strip()
    if not text or len(text) > MAX_LENGTH or not text.isprintable():
        why = f"a licence is 1 to {MAX_LENGTH} printable characters on one line"
        raise Malformed("the licence cannot be used", why=why, code="BAD-LICENCE")
    if text.lower() == OTHER:
        return OTHER
    try:
        return _spelled(text)
    except Malformed:
        if unlisted:
            return text
        raise


def is_listed(text: str) -> bool:
    """Whether the text is an SPDX expression."""
    try:
        return canonical_licence(text) != OTHER
    except Malformed:
        return False


def _spelled(text: str) -> str:
    from license_expression import ExpressionError

    licensing = _licensing()
    try:
        expression = licensing.parse(text, strict=True, simple=True)
        unknown: list[LicenseSymbol] = licensing.unknown_license_symbols(expression)
    except (ExpressionError, AssertionError, IndexError, TypeError, AttributeError) as error:  # such as for "( )"
        raise _refused(text, (str(error).splitlines() or [""])[0][:120], text) from error
    for symbol in unknown:
        symbol.key = _own_name(text, symbol.key)
    return str(expression.render("{symbol.key}"))


def _own_name(text: str, name: str) -> str:
    """Return the spelling of a name that the parser does not know: an older name of a listed licence, a listed one with
    `+`, or `LicenseRef-…`. Raises Malformed (BAD-LICENCE)."""
    if _OWN_NAME.match(name):
        for prefix in _PREFIXES:
            name = re.sub(prefix, prefix, name, count=1, flags=re.IGNORECASE)
        return name
    listed = _listed()
    if name.lower() in listed:
        return listed[name.lower()]
    base = name.removesuffix("+").lower()
    if name.endswith("+") and base in listed:
        return f"{listed[base]}+"
    raise _refused(text, f"{name[:60]!r} is not on the SPDX list", name)


def _refused(text: str, why: str, name: str) -> Malformed:
    listed = _listed()
    close = difflib.get_close_matches(name.lower(), listed, 1)
    guess = f"--licence {listed[close[0]]}, or " if close else ""
    hint = f"{guess}--licence LicenseRef-NAME, or --unlisted-licence beside it to publish the text as it is"
    return Malformed(f"{text[:80]!r} is not an SPDX licence expression", why=why, hint=hint, code="BAD-LICENCE")


@functools.cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.cache
def _listed() -> dict[str, str]:
    """The spelling of each listed licence, by its lower-case names: the listed one, and older ones (`GPL-3.0`)."""
    symbols = [symbol for symbol in _licensing().known_symbols.values() if not symbol.is_exception]
    older = {alias.lower(): symbol.key for symbol in symbols for alias in symbol.aliases if " " not in alias}
    return older | {symbol.key.lower(): symbol.key for symbol in symbols}
