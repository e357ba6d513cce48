"""The types of values in `node.toml`, and what is checked of each: addresses, names, keys, hours, patterns.

A value is text in the file, in the environment and on the command line alike; a list is separated by commas there.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from comity.trust.encoding import parse_digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import ED25519, VerifierKey, check_name
from comity.trust.upstream import check_endpoint
from comity.upstream.hub_api import Origin
from comity.wire.messages import GatewayUrl
from comity.wire.tls import Address

MIN_RATE: Final = 100_000
"""Bytes a second below which a copy would look as if its source had failed."""
MAX_RATE_DIGITS: Final = 16
_URL: Final = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?\Z")


def _listening(text: str) -> str:
    """Check an address such as `127.0.0.1:7443`; port 0 lets the system choose."""
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if not 0 <= int(port) < 65_536:
            raise ValueError
    except ValueError as error:
        raise ValueError(f"expected an IP address and a port, got {text[:80]!r}") from error
    return text


def _address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except Malformed as error:
        raise ValueError(str(error)) from error


def _gateway_url(text: str) -> str:
    try:
        return text and str(GatewayUrl.parse(text))
    except Malformed as error:
        raise ValueError(f"expected {error.hint}: {error.why}") from error


def _issuer(text: str) -> str:
    """Check an https URL, or an http URL of this machine."""
    parts = urlsplit(text)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if text and not (_URL.match(text.rstrip("/")) and "@" not in text and (parts.scheme == "https" or local)):
        raise ValueError(f"expected https://host[/path], got {text[:80]!r}")
    return text


def _endpoint(text: str) -> str:
    try:
        Origin.of(check_endpoint(text))
        return text
    except Malformed as error:
        raise ValueError(f"{error.what}: {error.why}") from error


def _identity(text: str) -> str:
    try:
        return parse_digest(text)
    except Malformed as error:
        raise ValueError("expected 64 hex digits") from error


def _log_key(text: str) -> str:
    try:
        key = VerifierKey.parse(text)
    except Malformed as error:
        raise ValueError(f"expected a verifier key, origin+id+key: {error}") from error
    if key.type != ED25519:
        raise ValueError("expected a log's Ed25519 key, not a cosigner's")
    return text


def _witness(text: str) -> str:
    """Check `name+id+key https://witness.example/prefix`."""
    key, _, url = text.partition(" ")
    try:
        known = VerifierKey.parse(key).type != ED25519
    except Malformed as error:
        raise ValueError(f"expected a witness's verifier key and its URL: {error}") from error
    if not known or not _URL.match(url):
        raise ValueError("expected a witness's verifier key, a space, and the URL of its submission prefix")
    return text


def _maybe_name(text: str) -> str:
    try:
        if text:
            check_name(text)
    except Malformed as error:
        raise ValueError(str(error)) from error
    return text


def _hours(text: str) -> str:
    first, _, last = text.partition("-")
    if text and not (first.isdecimal() and last.isdecimal() and int(first) < 24 and int(last) < 24 and first != last):
        raise ValueError(f"expected two hours from 0 to 23 such as 22-6, got {text[:40]!r}")
    return text


def within_hours(hours: str, now: float) -> bool:
    """Whether the POSIX time `now` is within hours of the day in UTC, such as "22-6"; always if there are none."""
    if not hours:
        return True
    first, last = map(int, hours.split("-"))
    hour = int(now) // 3600 % 24
    return first <= hour < last if first < last else hour >= first or hour < last


def _bandwidth(text: str) -> str:
    hours, _, rate = text.partition(" ")
    if not (_hours(hours) and rate.isdecimal() and len(rate) < MAX_RATE_DIGITS):
        raise ValueError(f"expected hours and bytes a second such as '6-22 20000000', got {text[:40]!r}")
    if 0 < int(rate) < MIN_RATE:
        raise ValueError(f"at least {MIN_RATE} bytes a second, or 0 for no copies, not {rate}")
    return text


def _listed(value: object) -> object:
    """Split a comma-separated value from the environment."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _keyword_or_list(value: object) -> object:
    return value if value in ("all", "none", "any") else _listed(value)


Listening = Annotated[str, AfterValidator(_listening)]
MaybeListening = Annotated[str, AfterValidator(lambda text: _listening(text) if text else text)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_listed)]
Strings = Annotated[tuple[str, ...], BeforeValidator(_listed)]

MaybeName = Annotated[str, AfterValidator(_maybe_name)]
"""A log's or witness's name; empty for none."""
MaybeFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A file; empty for none."""
MaybeDigest = Annotated[str, AfterValidator(lambda text: _identity(text) if text else text)]
"""64 hex digits; empty for none."""
MaybeGatewayUrl = Annotated[str, AfterValidator(_gateway_url)]
"""The URL at which clients reach a gateway; empty for none."""
MaybeIssuer = Annotated[str, AfterValidator(_issuer)]
"""The issuer of an OpenID Connect provider; empty for none."""
HubEndpoint = Annotated[str, AfterValidator(_endpoint)]

Hours = Annotated[str, AfterValidator(_hours)]
"""Hours of the day, such as "22-6": from the first until before the second; empty for all."""

Bandwidth = Annotated[tuple[Annotated[str, AfterValidator(_bandwidth)], ...], BeforeValidator(_listed)]
"""Each item is "HOURS BYTES-A-SECOND"."""

LogKeys = Annotated[tuple[Annotated[str, AfterValidator(_log_key)], ...], BeforeValidator(_listed)]
Witnesses = Annotated[tuple[Annotated[str, AfterValidator(_witness)], ...], BeforeValidator(_listed)]
"""Each item is "KEY URL"."""
Accepted = Annotated[
    Literal["none", "any"] | tuple[Annotated[str, AfterValidator(_identity)], ...], BeforeValidator(_keyword_or_list)
]
"""Identities, or "none" or "any"."""

Origins = Annotated[
    tuple[Annotated[str, Field(pattern=r"^https?://[a-z0-9.\-\[\]:]+$", max_length=255)], ...], BeforeValidator(_listed)
]
"""Web origins as browsers send them: scheme and host in lower case, and the port unless it is the default one."""
Alias = Annotated[str, Field(pattern=r"^[^=\s]+=[^/=\s]+/[^/=\s]+$")]
Aliases = Annotated[tuple[Alias, ...], BeforeValidator(_listed)]
Pattern = Annotated[str, Field(pattern=r"^[^/\s*]+/(\*|[^/\s*]+)$")]
Wanted = Annotated[Literal["all", "none"] | tuple[Pattern, ...], BeforeValidator(_keyword_or_list)]
"""Repository patterns, or "all" or "none"."""
Glob = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
"""`org/name`, with the wildcards `*` and `?`."""
Globs = Annotated[tuple[Glob, ...], BeforeValidator(_listed)]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
Repositories = Annotated[tuple[Repository, ...], BeforeValidator(_listed), Field(max_length=1_000)]
"""`org/name` each, without wildcards."""
