"""The kinds of values that settings have, each with what makes it refused."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from comity.trust.digest import parse_digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import ED25519, VerifierKey, check_name
from comity.trust.upstream.naming import check_endpoint
from comity.upstream.reach import Origin
from comity.wire.address import Address
from comity.wire.gateway_url import GatewayUrl

_URL: Final = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?\Z")


def _listening(text: str) -> str:
    """`127.0.0.1:7443`; port 0 lets the system choose."""
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
    """`name+id+key https://witness.example/prefix`."""
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


def _listed(value: object) -> object:
    """In the environment a list is written with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _word_or_list(value: object) -> object:
    return value if value in ("all", "none", "any") else _listed(value)


Listening = Annotated[str, AfterValidator(_listening)]
MaybeListening = Annotated[str, AfterValidator(lambda text: _listening(text) if text else text)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_listed)]
Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]

MaybeName = Annotated[str, AfterValidator(_maybe_name)]
"""A log's or witness's name; empty for none."""
MaybeFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A file; empty for none."""
MaybeDigest = Annotated[str, AfterValidator(lambda text: _identity(text) if text else text)]
"""64 hex digits; empty for none."""
MaybeGatewayUrl = Annotated[str, AfterValidator(_gateway_url)]
"""Where clients reach a gateway; empty for nowhere."""
HubEndpoint = Annotated[str, AfterValidator(_endpoint)]

LogKeys = Annotated[tuple[Annotated[str, AfterValidator(_log_key)], ...], BeforeValidator(_listed)]
Witnesses = Annotated[tuple[Annotated[str, AfterValidator(_witness)], ...], BeforeValidator(_listed)]
"""Each "KEY URL"."""
Accepted = Annotated[
    Literal["none", "any"] | tuple[Annotated[str, AfterValidator(_identity)], ...], BeforeValidator(_word_or_list)
]
"""Identities, or a word for nobody or everybody."""

Alias = Annotated[str, Field(pattern=r"^[^=\s]+=[^/=\s]+/[^/=\s]+$")]
Aliases = Annotated[tuple[Alias, ...], BeforeValidator(_listed)]
Pattern = Annotated[str, Field(pattern=r"^[^/\s*]+/(\*|[^/\s*]+)$")]
Wanted = Annotated[Literal["all", "none"] | tuple[Pattern, ...], BeforeValidator(_word_or_list)]
"""Repositories, or a word for none or all of them."""
Glob = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
"""`org/name`, with `*` and `?` for what is left open."""
Globs = Annotated[tuple[Glob, ...], BeforeValidator(_listed)]
