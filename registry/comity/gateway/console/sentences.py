"""Sentences of a verdict in the language of a page.

A verdict is English text with values in it, and the same for every reader, because its bytes are signed and compared. A
page finds the sentence again by its template, and writes the translation with the same values. A sentence whose values
are sentences of their own, such as a message about a file, is left as it is, and so is all that no template fits. Only
what somebody wrote may have the separator of sentences in it, and a number is digits: no other sentence is taken for a
value.

A test reads what the rows of a verdict can say from their source, and fails for a sentence without a template.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from markupsafe import Markup

from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.words import Translations, marked

MAX_SUMMARY: Final = 2_000
"""Characters of a longer summary are not searched."""
MAX_PARTS: Final = 16
"""Parts of a summary between separators, each of which is searched, and joined with those after it."""

INTRODUCTIONS: Final = (
    marked("short of cosigners: %(sentences)s"),
    marked("no fresh cosignature: %(sentences)s"),
    marked("unknown: %(sentences)s"),
)
"""What stands before the sentences of a verdict in a notice of the gateway (`PolicyJudge.judge`)."""

SENTENCES: Final = (
    # content
    marked("sha256:%(digest)s, %(count)s files, %(size)s bytes"),
    marked("sha256:%(digest)s, %(count)s file, %(size)s bytes"),
    marked("%(count)s members mirrored it from its upstream, %(needed)s required"),
    marked("%(count)s member mirrored it from its upstream, %(needed)s required"),
    marked("no manifest"),
    marked("%(count)s/%(all)s files hashed here, %(size)s bytes"),
    marked("%(count)s/%(all)s files hashed here"),
    marked("%(count)s/%(all)s files as model.sig lists them, but the policy does not list the signer"),
    marked("%(count)s/%(all)s files as model.sig lists them"),
    marked("there is no list of files"),
    marked("partial by request, %(count)s missing"),
    marked("partial by request"),
    marked("the files were not read"),
    marked("%(count)s of %(all)s files were not inspected"),
    marked("%(count)s files are missing"),
    marked("no active content"),
    marked("allowed: %(what)s"),
    marked("the policy requires none"),
    marked("named by the publisher: none"),
    marked("named by the publisher: %(what)s"),
    marked("the publisher names no parent"),
    marked("the publisher names no %(what)s"),
    marked("named but missing: %(what)s"),
    marked("present: %(what)s"),
    marked("%(kind)s, by %(count)s members"),
    marked("%(kind)s, by %(count)s member"),
    marked("no publication names its parents"),
    marked("its parent %(name)s is named without a digest"),
    marked("the claims about %(name)s form a cycle"),
    marked("no statement about %(name)s is here"),
    marked("%(relation)s of %(name)s (claimed)"),
    marked("%(name)s is named without a digest"),
    marked("the policy lists no licences"),
    marked("claimed: %(what)s"),
    marked("%(licence)s, as %(publisher)s claims"),
    marked("%(licence)s is not an accepted licence"),
    marked("its text, sha256 %(digest)s, is present"),
    marked("its text, sha256 %(digest)s, is missing"),
    # publication
    marked("the policy requires a model.sig"),
    marked("there is none"),
    marked("published by %(publisher)s, %(least)s of %(all)s keys (%(kinds)s)"),
    marked("signed by %(publisher)s, which is not the publisher that the policy names"),
    marked("no published statement about this artifact verifies"),
    marked("the inception of publisher %(digest)s is missing"),
    marked("no published statement about it"),
    marked("no publisher to judge"),
    marked("%(publisher)s is not the publisher that the policy names"),
    marked("%(publisher)s is the publisher that the policy names"),
    marked("%(publisher)s says that its key was stolen"),
    marked("no proof here that this statement is older"),
    marked("%(publisher)s made more statements than were read"),
    marked("one of them may say that its key was stolen"),
    marked("no publisher is pinned for namespace %(name)s"),
    marked("the signer is %(publisher)s"),
    marked("entry %(index)s of %(log)s, the log of %(member)s"),
    marked("%(count)s (%(needed)s required): nobody"),
    marked("%(count)s (%(needed)s required): %(members)s"),
    marked("%(count)s counted, %(needed)s required in %(places)s jurisdictions outside %(outside)s"),
    marked("%(count)s counted, %(needed)s required in %(places)s jurisdictions"),
    marked("%(count)s counted, %(needed)s required outside %(outside)s"),
    marked("%(count)s counted, %(needed)s required"),
    marked("have: nobody"),
    marked("have: %(members)s"),
    marked("no charter is pinned"),
    marked("no statement by the publisher that the policy names"),
    marked("none of the proofs is about this statement"),
    marked("no proof that it was logged"),
    marked("no proven claim of a full copy here"),
    marked("claimed by %(members)s"),
    marked("none here"),
    marked("their absence cannot be proven offline"),
    marked("%(count)s in all, for information"),
    marked("%(count)s in all"),
    marked("the policy sets no time.as_of"),
    marked("too few cosignatures with a time"),
    marked("%(count)s cosigners saw it at most %(days)s days before as_of"),
    marked("%(count)s cosigner saw it at most %(days)s days before as_of"),
    marked("%(count)s cosigners saw it after as_of, by their clocks on %(day)s"),
    marked("%(count)s cosigner saw it after as_of, by their clocks on %(day)s"),
    marked("no logged signature to judge"),
    marked("classical only: %(what)s"),
    marked("publisher hybrid, cosigners with ML-DSA-44: %(count)s"),
    marked("the log's own signature is Ed25519"),
    # approvals, notes and the policy
    marked("the policy asks for no approval"),
    marked("%(count)s of %(needed)s required for %(scope)s: nobody"),
    marked("%(count)s of %(needed)s required for %(scope)s: %(officers)s"),
    marked("until %(time)s"),
    marked("at %(time)s, of %(codes)s"),
    marked("that of %(officer)s does not count: %(why)s"),
    marked("such nodes do not count"),
    marked("all evidence verified"),
    marked("an issuer in refuse_from advises against it: %(kind)s"),
    marked("not met: %(rows)s"),
    marked("more statements of %(issuer)s, an issuer in refuse_from, than were read"),
    marked("required and passed: %(rows)s"),
    # facts of the rows
    marked("signed by its current keys, by the evidence here"),
    marked("signed by keys that are now retired, before the cut"),
    marked("signed by keys that are now retired: after the cut, or unknown"),
    marked("the rotation that the policy pins is missing"),
    marked("not retired before the rotation that the policy pins"),
    marked("the policy pins a later rotation"),
    marked("the publisher's id is %(id)s"),
    marked("tree of %(count)s entries"),
    marked("no parent is named"),
    marked("no %(kind)s is named"),
    marked("%(kind)s, sha256 %(digest)s, %(size)s bytes: named"),
    marked("%(kind)s, sha256 %(digest)s, %(size)s bytes: present"),
    marked("%(kind)s, sha256 %(digest)s, %(size)s bytes: missing"),
    marked("%(kind)s (%(severity)s): %(text)s, says its publisher"),
    marked("%(kind)s (%(severity)s): %(text)s, says %(who)s"),
    marked("%(kind)s (%(severity)s): %(text)s says its publisher"),
    marked("%(kind)s (%(severity)s): %(text)s says %(who)s"),
    marked("%(member)s (%(place)s) as %(name)s"),
    marked("more statements about it than were read"),
)
"""The first that fits counts: one with more words stands before one with fewer."""

_PLACE: Final = re.compile(r"%\\\((\w+)\\\)s")
"""A place in a template that was escaped."""
_NUMBER: Final = "[0-9]+"
_VALUES: Final = {
    **dict.fromkeys(("count", "all", "least", "needed", "places", "days", "size", "index"), _NUMBER),
    "severity": r"\w+",
    "text": ".+?",
}
"""What a place may have in it, where that is not any text without the separator."""
_OTHER_VALUE: Final = "(?:(?!; ).)+?"
_COUNTS: Final = re.compile(r"[0-9]+ [\w.+-]+(?:, [0-9]+ [\w.+-]+)*", re.ASCII)
"""Counts of files by their formats, `1 json, 2 safetensors`: nothing in it is translated."""
_SEPARATOR: Final = "; "
_PUBLISHER: Final = marked("the publisher’s jurisdiction")
"""What a policy calls `publisher` in `outside`, among codes of jurisdictions."""


def in_language(summary: str, words: Translations) -> Markup | None:
    """Return the sentences of a verdict in another language; None if one of them has no template or translation."""
    if len(summary) > MAX_SUMMARY:
        return None
    for introduction in INTRODUCTIONS:
        before = introduction.removesuffix("%(sentences)s")
        if summary.startswith(before) and introduction in words.messages:
            rest = _sentences(summary.removeprefix(before), words)
            return rest and words.filled(words.gettext(introduction), {"sentences": rest})
    return _sentences(summary, words)


def template_of(sentence: str) -> str | None:
    """Return the template that fits a sentence, if any."""
    found = _fitting(sentence)
    return found[0] if found else None


def _sentences(summary: str, words: Translations) -> Markup | None:
    parts = summary.split(_SEPARATOR)
    if len(parts) > MAX_PARTS:
        return None
    found, start = list[Markup](), 0
    while start < len(parts):
        joined = ((end, _SEPARATOR.join(parts[start:end])) for end in range(len(parts), start, -1))
        translated = ((end, _translated(sentence, words)) for end, sentence in joined)
        start, sentence = next((each for each in translated if each[1] is not None), (0, None))
        if sentence is None:
            return None
        found.append(sentence)
    return Markup(LANGUAGES[words.language].semicolon).join(found)


def _translated(sentence: str, words: Translations) -> Markup | None:
    if _COUNTS.fullmatch(sentence):
        return words.filled("%(counts)s", {"counts": sentence})
    found = _fitting(sentence)
    if found is None or found[0] not in words.messages:
        return None
    template, values = found
    if "outside" in values:
        named = (words.gettext(_PUBLISHER) if each == "publisher" else each for each in values["outside"].split(", "))
        values["outside"] = LANGUAGES[words.language].comma.join(named)
    return words.filled(words.gettext(template), values)


def _fitting(sentence: str) -> tuple[str, dict[str, str]] | None:
    for template, pattern in _patterns(quotes=_SEPARATOR in sentence):
        if (fits := pattern.fullmatch(sentence)) is not None:
            return template, fits.groupdict()
    return None


@cache
def _patterns(*, quotes: bool) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each template with its pattern, in which a place is as short as it can be; with `quotes`, those with a text."""
    return tuple(
        (each, re.compile(_PLACE.sub(_place, re.escape(each)), re.DOTALL))
        for each in SENTENCES
        if not quotes or "%(text)s" in each
    )


def _place(place: re.Match[str]) -> str:
    return f"(?P<{place[1]}>{_VALUES.get(place[1], _OTHER_VALUE)})"
