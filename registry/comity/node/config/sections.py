"""The sections of `node.toml`: every setting, its bounds and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from comity.node.config.spelling import (
    Accepted,
    Addresses,
    Aliases,
    Globs,
    HubEndpoint,
    Listening,
    LogKeys,
    MaybeDigest,
    MaybeFile,
    MaybeGatewayUrl,
    MaybeListening,
    MaybeName,
    Wanted,
    Witnesses,
    Words,
)
from comity.upstream.reach import HUB_ENDPOINT
from comity.wire.gateway_url import GatewayUrl

GIB: Final = 1024**3


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Naming(Section):
    """What people call it; what counts is in the node record."""

    name: str
    member: str = ""


class Listen(Section):
    """The doors. `metrics` is for a local Prometheus; empty means none."""

    mutual: Listening
    open: Listening
    operator: Path = Path("operator.sock")
    metrics: MaybeListening = ""


class Advertise(Section):
    """Where others reach the doors: hints, logged as `addresses`."""

    mutual: Addresses = ()
    open: Addresses = ()


class S3(Section):
    """A bucket in place of the folder. `credentials_file` holds the secret, mode 0600.

    With `presigned`, whoever may read here gets URLs at which the service itself gives a blob for ten minutes: for a
    service that strangers can reach. They show its address and the access key's id, never the secret.
    """

    endpoint: str
    bucket: str
    credentials_file: Path
    prefix: str = ""
    region: str = "us-east-1"
    presigned: bool = False


class Storage(Section):
    """Where bytes lie. All of them are read again and again, at `scrub_bytes_per_second`; 0 for never.

    `database` names a database of PostgreSQL in place of the file `ledger`, in whose folder small files stay. It holds
    no password: that is in `password_file`, in libpq's format and mode 0600.
    """

    blobs: Path = Path("data/blobs")
    ledger: Path = Path("data/ledger.sqlite")
    database: str = ""
    password_file: MaybeFile = None
    scrub_bytes_per_second: Annotated[int, Field(ge=0)] = 16 * 1024**2
    s3: S3 | None = None


class FederationFile(Section):
    """Where the charter begins. `branch`, the digest of a certified body, decides a fork; else the first stands."""

    file: Path = Path("federation.json")
    branch: MaybeDigest = ""


class Replication(Section):
    """`mirror` chooses artifacts, not logs: members' logs are always mirrored.

    `first_answer_seconds` is how long a starting node waits to hear from a peer what it last signed, before it signs.
    """

    interval_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 5.0
    first_answer_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    mirror: Wanted = "all"

    def wants(self, repository: str) -> bool:
        """Whether artifacts called `namespace/name` are copied here."""
        if isinstance(self.mirror, str):
            return self.mirror == "all"
        namespace = repository.partition("/")[0]
        return repository in self.mirror or f"{namespace}/*" in self.mirror


class Publishing(Section):
    """Who may publish through the open port; operators always may."""

    accept: Accepted = "none"


class Gateway(Section):
    """The HTTP face: a Hub for unmodified clients, and the logs for outsiders. `http` empty means none.

    With `certificate` and `key` (PEM) it is HTTPS. `url` is how clients reach it, and all that the node tells of it.
    `public` false asks every reader for a token. `aliases` are other names of repositories. `policy` says what is
    served; none asks for signatures alone.

    `files` is a second address for the same clients, at which large files leave at a file server's speed; `ranges` is
    one for other nodes and `comity pull`, always under the node's own certificate. Both open what a signed URL names,
    and nothing else; `files_url` and `ranges_url` are how others reach them.

    `cold = "peers"` fetches a file that is known and not here when a reader asks for it; it stays, as any copy does.
    `cold = "upstream"` also imports what nobody has, as far as `[upstream]` goes.
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
    aliases: Aliases = ()
    policy: MaybeFile = None
    cold: Literal["off", "peers", "upstream"] = "off"
    calls_per_second: Annotated[float, Field(gt=0)] = 500.0

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together")
        return self

    def told(self) -> GatewayUrl | None:
        """What the node tells of it. Where it listens is no more than a guess at how others reach it."""
        return GatewayUrl.parse(self.url) if self.http and self.url else None

    def renamed(self) -> dict[str, str]:
        """The repository that each alias stands for, by the alias in lower case."""
        pairs = (alias.partition("=") for alias in self.aliases)
        return {alias.lower(): name for alias, _, name in pairs}


class ReadThrough(Section):
    """What readers may have mirrored here by asking for it (`gateway.cold = "upstream"`): `allow` names repositories,
    none by default, `endpoint` the Hub that is asked. `hosts` are others from which its files may come, as for
    `comity import --allow-host`."""

    allow: Globs = ()
    endpoint: HubEndpoint = HUB_ENDPOINT
    hosts: Words = ()
    largest_bytes: Annotated[int, Field(ge=1)] = 1024 * GIB


class Tlog(Section):
    """Logs beyond the federation, by verifier key: those that are pushed here, and who is shown our own.

    `mirror` names outside logs whose entries are taken and cosigned, `witness` those that the plain witness signs, with
    a name and a key of its own. `submit` names outside witnesses that cosign our log, as "KEY URL".
    """

    mirror: LogKeys = ()
    witness: LogKeys = ()
    witness_name: MaybeName = ""
    witness_key: Path = Path("keys/witness.pem")
    submit: Witnesses = ()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.witness and not self.witness_name:
            raise ValueError("a witness needs a name of its own: witness_name")
        return self


class Limits(Section):
    """Beyond the first two a log is no longer mirrored or cosigned. Bytes count entries and their side objects. Of what
    one log says of compute offers, so many lines are kept in memory; beyond, its offers are not known here."""

    entries_per_origin: Annotated[int, Field(ge=1)] = 10_000_000
    bytes_per_origin: Annotated[int, Field(ge=1)] = 16 * GIB
    open_calls_per_second: Annotated[float, Field(gt=0)] = 50.0
    upload_bytes: Annotated[int, Field(ge=1)] = 4096 * GIB
    offer_lines_per_origin: Annotated[int, Field(ge=1)] = 262_144
