"""The sections of `node.toml`: each setting with its type, default and meaning, and what is checked of a value.

A value is text in the file, in the environment and on the command line alike; a list is separated by commas there. A
path is relative to the folder of `node.toml`. Secrets are not settings: keys and passwords are in files of their own.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_type_hints
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from comity.rules.audit import MAX_CHALLENGED
from comity.rules.continuation import LEAST_FOLLOWED
from comity.trust.encoding import parse_digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import ED25519, VerifierKey, check_name
from comity.trust.upstream import check_endpoint
from comity.upstream.guarded import HUB_ENDPOINT, Origin
from comity.wire.addresses import Address, GatewayUrl, Network

MIN_RATE: Final = 100_000
"""Bytes a second below which a copy would look as if its source had failed."""
MAX_RATE_DIGITS: Final = 16
_URL: Final = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?\Z")
GIB: Final = 1024**3


def _ip_address(text: str) -> str:
    """The usual spelling of an IP address."""
    return str(ipaddress.ip_address(text))


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


def _corroborating(members: int) -> int:
    """Check a number of members whose word is followed; 0 is off."""
    if 0 < members < LEAST_FOLLOWED:
        raise ValueError(f"expected 0, or at least {LEAST_FOLLOWED} members")
    return members


def _network(text: str) -> str:
    """The usual spelling of a network such as `10.20.0.0/16`."""
    return str(ipaddress.ip_network(text))


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


def _share(text: str) -> str:
    member, _, percent = text.partition(" ")
    if not (percent.isdecimal() and len(percent) <= 3 and 0 <= int(percent) <= 100):
        raise ValueError(f"expected a member and a percentage such as '51aa… 60', got {text[:80]!r}")
    return f"{_identity(member)} {int(percent)}"


def _listed(value: object) -> object:
    """Split a comma-separated value from the environment."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _keyword_or_list(value: object) -> object:
    return value if value in ("all", "none", "any") else _listed(value)


Listening = Annotated[str, AfterValidator(_listening)]
MaybeListening = Annotated[str, AfterValidator(lambda text: _listening(text) if text else text)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_listed)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_listed), Field(max_length=64)
]
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

Shares = Annotated[tuple[Annotated[str, AfterValidator(_share)], ...], BeforeValidator(_listed)]
"""Each item is "MEMBER PERCENT"."""

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
Proxies = Annotated[
    tuple[Annotated[str, AfterValidator(_ip_address)], ...], BeforeValidator(_listed), Field(max_length=64)
]
"""IP addresses."""
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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Naming(Section):
    """Display names; the authoritative names are in the node record.

    With `role = "front-end"` this process only reads the ledger and the blobs that the node's writer writes, has none
    of the node's signing keys, and serves strangers and users. `writer` says where the writer is reached: it is told to
    callers of what only the writer does. With `role = "standby"` this process, on another machine, listens nowhere
    until no other one writes the ledger, and is the writer then.

    When the process is asked to end, it takes no new work, and running transfers have `drain_seconds` to end.
    """

    name: str
    member: str = ""
    role: Literal["writer", "front-end", "standby"] = "writer"
    writer: Annotated[str, Field(max_length=200)] = ""
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0


class Listen(Section):
    """The listeners. `metrics` is for a local Prometheus; empty means none. A front end does not use `mutual` and
    `operator`; with an empty `open` it needs no key of the node and serves HTTP only."""

    mutual: Listening
    open: MaybeListening
    operator: Path = Path("operator.sock")
    metrics: MaybeListening = ""


class Advertise(Section):
    """Addresses at which others reach the listeners: hints, logged as `addresses`."""

    mutual: Addresses = ()
    open: Addresses = ()


class S3(Section):
    """A bucket instead of the blob folder. `credentials_file` holds the secret, mode 0600.

    With `presigned`, callers that may read get URLs at which the service itself serves a blob for ten minutes; the
    service must be reachable by them. The URLs show its address and the access key's id, never the secret.
    """

    endpoint: str
    bucket: str
    credentials_file: Path
    prefix: str = ""
    region: str = "us-east-1"
    presigned: bool = False


class Storage(Section):
    """Where data is stored. All blobs are reread repeatedly, at `scrub_bytes_per_second`; 0 for never. `scrub_hours`
    are the hours of the day in UTC in which that happens, such as "22-6"; empty for all.

    `database` names a PostgreSQL database used instead of the file `ledger`; small files stay in the folder of
    `ledger`. It contains no password: that is in `password_file`, in libpq's format and mode 0600.

    Uploads and imports leave `reserve_bytes` of the disk free; files that are fetched because a reader asks for them
    leave four times as much.

    `keys` is the folder with the node's own keys, such as one in memory that is filled before each start.
    """

    blobs: Path = Path("data/blobs")
    ledger: Path = Path("data/ledger.sqlite")
    database: str = ""
    password_file: MaybeFile = None
    scrub_bytes_per_second: Annotated[int, Field(ge=0)] = 16 * 1024**2
    scrub_hours: Hours = ""
    reserve_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    keys: Path = Path("keys")
    s3: S3 | None = None


class FederationFile(Section):
    """The initial charter. `branch`, the digest of a certified body, selects the branch of a fork; without it the first
    one stays."""

    file: Path = Path("federation.json")
    branch: MaybeDigest = ""


class Replication(Section):
    """`mirror` selects artifacts, not logs: members' logs are always mirrored. `rules` names a file of ordered mirror
    rules, which decide instead.

    `hold_batch` is how many copies one statement claims at most; with 1 each copy is claimed alone, in a form that
    older versions know too.
    `first_answer_seconds` is how long a starting node waits for a peer's copy of its log before it signs.

    Copies stop while the disk has less than `stop_free_bytes` free, and go on when it has `resume_free_bytes`.
    `bandwidth` limits copies in hours of the day in UTC: "6-22 20000000" is at most 20 MB/s, "6-22 0" is no copies. The
    first item whose hours fit decides; without one there is no limit.

    The space for copies is what is free above `stop_free_bytes` and what copies use already. `reserved_percent` of it
    is reserved for the members in equal parts; of the rest a member uses at most as much as it leaves free. `shares`
    sets the most that a member may use: "MEMBER PERCENT", with the identity of the member.

    Nodes may announce new addresses of theirs. One that is not of the public internet is called only if it is in one of
    `private_networks`, such as "10.20.0.0/16"; the addresses in the federation file always are.
    """

    interval_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 5.0
    first_answer_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    hold_batch: Annotated[int, Field(ge=1, le=64)] = 32
    mirror: Wanted = "all"
    rules: MaybeFile = None
    stop_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    resume_free_bytes: Annotated[int, Field(ge=0)] = 1024**3
    bandwidth: Bandwidth = ()
    reserved_percent: Annotated[int, Field(ge=0, le=100)] = 50
    shares: Shares = ()
    private_networks: Networks = ()

    @property
    def shares_by_member(self) -> Mapping[str, int]:
        """`shares`: the percent of each member."""
        items = (item.split(" ") for item in self.shares)
        return {member: int(percent) for member, percent in items}

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(text) for text in self.private_networks)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rules is not None and self.mirror != "all":
            raise ValueError("mirror and rules exclude one another: write the patterns of mirror as rules")
        if self.resume_free_bytes < self.stop_free_bytes:
            raise ValueError("resume_free_bytes must be at least stop_free_bytes")
        return self

    def wants(self, repository: str) -> bool:
        """Whether artifacts named `namespace/name` are copied to this node."""
        if isinstance(self.mirror, str):
            return self.mirror == "all"
        namespace = repository.partition("/")[0]
        return repository in self.mirror or f"{namespace}/*" in self.mirror


class Publishing(Section):
    """Identities that may publish through the open port; operators always may."""

    accept: Accepted = "none"


class Gateway(Section):
    """The HTTP gateway: a Hub for unmodified clients, and the logs for outsiders. `http` empty means none.

    With `certificate` and `key` (PEM) it uses HTTPS. `url` is the URL for clients, and the only one that the node
    announces. If `public` is false, every reader needs a token. `aliases` are other names of repositories. `policy`
    decides what is served; without it, only signatures are required. `cors_origins` are the web origins whose pages may
    read the gateway in a browser: exact, none by default.

    `files` is a second address for the same clients that serves large files fast; `ranges` is one for other nodes and
    `comity pull`, always under the node's own certificate. Both serve only what a signed URL names; `files_url` and
    `ranges_url` are their URLs for others.

    `cold = "peers"` fetches a known file that is missing when a reader asks for it, and keeps it. `cold = "upstream"`
    also imports what no peer has, as `[upstream]` permits.

    With `continuations`, a name that is in none of these places is answered with the artifact that so many members, of
    two jurisdictions, name as its continuation; 0 is off, 2 is the least.

    `console` serves pages for browsers: at `/`, below `/-/`, and at the addresses of the repositories. Its pages take
    prices from `prices_file`, and the laws of those who are no members from `laws_file`, which are files as `comity
    costs` and `comity descent` read them.

    `calls_per_second` and all other limits count by the caller's address. `proxies` are the addresses of proxies at
    `http` whose `X-Forwarded-For` names it.
    """

    http: MaybeListening = ""
    certificate: MaybeFile = None
    key: MaybeFile = None
    url: MaybeGatewayUrl = ""
    files: MaybeListening = ""
    files_url: Annotated[str, Field(pattern=r"^(https?://[^\s/?#]+)?$")] = ""
    ranges: MaybeListening = ""
    ranges_url: Annotated[str, Field(pattern=r"^(https://[^\s/?#]+)?$")] = ""
    public: bool = True
    console: bool = True
    prices_file: MaybeFile = None
    laws_file: MaybeFile = None
    aliases: Aliases = ()
    policy: MaybeFile = None
    cors_origins: Origins = ()
    cold: Literal["off", "peers", "upstream"] = "off"
    continuations: Annotated[int, Field(ge=0, le=1_000), AfterValidator(_corroborating)] = 0
    calls_per_second: Annotated[float, Field(gt=0)] = 500.0
    proxies: Proxies = ()

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be set together")
        return self

    def advertised_url(self) -> GatewayUrl | None:
        """The URL that the node announces. The listen address is not announced: others may not reach it."""
        return GatewayUrl.parse(self.url) if self.http and self.url else None

    def alias_targets(self) -> dict[str, str]:
        """The repository of each alias, by the alias in lower case."""
        pairs = (alias.partition("=") for alias in self.aliases)
        return {alias.lower(): name for alias, _, name in pairs}


class ReadThrough(Section):
    """What readers may cause to be imported (`gateway.cold = "upstream"`): `allow` names repositories, none by default;
    `endpoint` is the Hub; `hosts` are further hosts that may serve its files, as for `comity import --allow-host`.

    `follow` names repositories exactly: the node imports their newest commit every `follow_hours`.
    """

    allow: Globs = ()
    follow: Repositories = ()
    follow_hours: Annotated[int, Field(ge=1, le=8_760)] = 24
    endpoint: HubEndpoint = HUB_ENDPOINT
    hosts: Strings = ()
    largest_bytes: Annotated[int, Field(ge=1)] = 1024 * GIB


class OpenIdConnect(Section):
    """An OpenID Connect provider by which people sign in to the console. `issuer` is exactly the one of the provider's
    metadata, empty for none; `client_id` is this node's name there, and `secret_file` holds the client's secret, mode
    0600. `ca_file` has certificates of a private authority (PEM).

    `claim` is the claim of the ID token with the groups or roles of a person; who has one of `operators` may change
    tokens and sessions, who has one of `viewers` may look. `scopes` are asked for besides `openid`.
    """

    issuer: MaybeIssuer = ""
    client_id: Annotated[str, Field(max_length=200)] = ""
    secret_file: MaybeFile = None
    ca_file: MaybeFile = None
    claim: Annotated[str, Field(min_length=1, max_length=200)] = "groups"
    operators: Strings = ()
    viewers: Strings = ()
    scopes: Strings = ("profile",)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.issuer and not (self.client_id and self.secret_file and (self.operators or self.viewers)):
            raise ValueError("issuer needs client_id, secret_file, and operators or viewers")
        return self


class Tlog(Section):
    """Logs outside the federation, by verifier key: those that are pushed to this node, and witnesses of this node's
    log.

    `mirror` names outside logs whose entries are stored and cosigned, `witness` those that the plain witness cosigns,
    with a name and key of its own. `submit` names outside witnesses that cosign this node's log, as "KEY URL".
    """

    mirror: LogKeys = ()
    witness: LogKeys = ()
    witness_name: MaybeName = ""
    witness_key: Path = Path("keys/witness.pem")
    submit: Witnesses = ()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.witness and not self.witness_name:
            raise ValueError("witness_name is required if witness is set")
        return self


class Limits(Section):
    """A log above one of the first two limits is no longer mirrored or cosigned; bytes count entries and their side
    objects. `offer_lines_per_origin` bounds the lines about compute offers kept in memory for one log; offers above it
    are not known."""

    entries_per_origin: Annotated[int, Field(ge=1)] = 10_000_000
    bytes_per_origin: Annotated[int, Field(ge=1)] = 16 * GIB
    open_calls_per_second: Annotated[float, Field(gt=0)] = 50.0
    upload_bytes: Annotated[int, Field(ge=1)] = 4096 * GIB
    offer_lines_per_origin: Annotated[int, Field(ge=1)] = 262_144


class Audits(Section):
    """Audits of copies. `bytes_per_day` is what this node reads to test copies of others, at its own disk and at
    theirs; 0 for none. `pieces` is the number of pieces of one challenge. `again_minutes` is the least time between two
    audits of one copy, except those that a person asks for. `answer_bytes_per_hour` is what each member may make this
    node read.
    """

    bytes_per_day: Annotated[int, Field(ge=0)] = 32 * GIB
    pieces: Annotated[int, Field(ge=1, le=MAX_CHALLENGED)] = 10
    again_minutes: Annotated[int, Field(ge=0)] = 60
    answer_bytes_per_hour: Annotated[int, Field(ge=0)] = GIB // 2


class AuditLogCopies(Section):
    """Other places for the lines of the audit log, which is always in `audit.log` of the home: `copy_file`, such as one
    on a disk that only appends, and `syslog`, the path of a Unix socket or host:port for UDP."""

    copy_file: MaybeFile = None
    syslog: Annotated[str, Field(pattern=r"^(/\S+|[^\s/]+:[0-9]{1,5})?$", max_length=255)] = ""


class Retention(Section):
    """What `comity gc` removes. `rules` names a file of retention rules. `every_hours`: the node itself removes what
    they let go, so often; 0 for never.
    """

    rules: MaybeFile = None
    every_hours: Annotated[float, Field(ge=0, le=8760)] = 0.0


class WebhooksFile(Section):
    """Who is told what happens at this node: `file` names the webhooks; empty for none."""

    file: MaybeFile = None


class Tracing(Section):
    """Traces for OpenTelemetry: `otlp` is the URL of a collector (OTLP over HTTP) without `/v1/traces`; empty for none.
    `share` of the calls and transfers, from 0 to 1, get a trace. Needs the extra `otel`."""

    otlp: Annotated[str, Field(pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*[^\s?#/])?)?$", max_length=255)] = ""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0


class PinSettings(Section):
    """Pins of artifacts. A peer that gave no answer for `patience_seconds` is taken for lost: its copies count no more
    for this node's pins. It is also the time of one turn in which this node leaves an answer to others.
    """

    patience_seconds: Annotated[float, Field(ge=1, le=30 * 86_400)] = 21_600.0


class AllSections(Section):
    """The sections of a node's settings file."""

    node: Naming
    listen: Listen
    advertise: Advertise = Advertise()
    storage: Storage = Storage()
    federation: FederationFile = FederationFile()
    replication: Replication = Replication()
    publishing: Publishing = Publishing()
    gateway: Gateway = Gateway()
    upstream: ReadThrough = ReadThrough()
    oidc: OpenIdConnect = OpenIdConnect()
    tlog: Tlog = Tlog()
    limits: Limits = Limits()
    audits: Audits = Audits()
    audit_log: AuditLogCopies = AuditLogCopies()
    retention: Retention = Retention()
    webhooks: WebhooksFile = WebhooksFile()
    telemetry: Tracing = Tracing()
    pins: PinSettings = PinSettings()


SECTIONS: Final = tuple(AllSections.model_fields)


@functools.cache
def known_settings() -> tuple[str, ...]:
    """Every setting, as `section.key`, those of storage.s3 included."""
    classes = get_type_hints(AllSections)
    keys = [f"{section}.{key}" for section in SECTIONS for key in classes[section].model_fields]
    keys.remove("storage.s3")
    return (*keys, *(f"storage.s3.{key}" for key in S3.model_fields))
