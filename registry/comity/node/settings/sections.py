"""The sections of `node.toml`: each setting with its type, default and meaning.

A path is relative to the folder of `node.toml`. Secrets are not settings: keys and passwords are in files of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, model_validator

from comity.node.settings.value_types import (
    Accepted,
    Addresses,
    Aliases,
    Bandwidth,
    Globs,
    Hours,
    HubEndpoint,
    Listening,
    LogKeys,
    MaybeDigest,
    MaybeFile,
    MaybeGatewayUrl,
    MaybeIssuer,
    MaybeListening,
    MaybeName,
    Origins,
    Repositories,
    Strings,
    Wanted,
    Witnesses,
)
from comity.trust.audit import MAX_CHALLENGED
from comity.upstream.hub_api import HUB_ENDPOINT
from comity.wire.messages import GatewayUrl

GIB: Final = 1024**3


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Naming(Section):
    """Display names; the authoritative names are in the node record."""

    name: str
    member: str = ""


class Listen(Section):
    """The listeners. `metrics` is for a local Prometheus; empty means none."""

    mutual: Listening
    open: Listening
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
    """

    blobs: Path = Path("data/blobs")
    ledger: Path = Path("data/ledger.sqlite")
    database: str = ""
    password_file: MaybeFile = None
    scrub_bytes_per_second: Annotated[int, Field(ge=0)] = 16 * 1024**2
    scrub_hours: Hours = ""
    reserve_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
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
    """

    interval_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 5.0
    first_answer_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    hold_batch: Annotated[int, Field(ge=1, le=64)] = 32
    mirror: Wanted = "all"
    rules: MaybeFile = None
    stop_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    resume_free_bytes: Annotated[int, Field(ge=0)] = 1024**3
    bandwidth: Bandwidth = ()

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

    `console` serves pages for browsers: at `/`, below `/-/`, and at the addresses of the repositories.
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
    aliases: Aliases = ()
    policy: MaybeFile = None
    cors_origins: Origins = ()
    cold: Literal["off", "peers", "upstream"] = "off"
    calls_per_second: Annotated[float, Field(gt=0)] = 500.0

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


def known_settings() -> list[str]:
    """Every setting, as `section.key`, those of storage.s3 included."""
    classes = get_type_hints(AllSections)
    keys = [f"{section}.{key}" for section in SECTIONS for key in classes[section].model_fields]
    keys.remove("storage.s3")
    return [*keys, *(f"storage.s3.{key}" for key in S3.model_fields)]
