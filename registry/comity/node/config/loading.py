"""From `node.toml`, the environment and flags to one `NodeConfig`."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from comity.node.config.sections import (
    S3,
    Advertise,
    FederationFile,
    Gateway,
    Limits,
    Listen,
    Naming,
    Publishing,
    ReadThrough,
    Replication,
    Section,
    Storage,
    Tlog,
)
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable

MAX_FILE: Final = 1024 * 1024
PREFIX: Final = "COMITY_"


class NodeConfig(Section):
    """A node's settings. `load` makes one; every path in it is absolute."""

    home: Path
    node: Naming
    listen: Listen
    advertise: Advertise = Advertise()
    storage: Storage = Storage()
    federation: FederationFile = FederationFile()
    replication: Replication = Replication()
    publishing: Publishing = Publishing()
    gateway: Gateway = Gateway()
    upstream: ReadThrough = ReadThrough()
    tlog: Tlog = Tlog()
    limits: Limits = Limits()

    @classmethod
    def load(
        cls,
        file: Path,
        environ: Mapping[str, str] = os.environ,
        flags: Mapping[str, str] | None = None,
    ) -> Self:
        """Read a node's configuration.

        Args:
            flags: values from the command line, by `section.key`.

        Raises NotFound, Unavailable, and Malformed (codes CONFIG, CONFIG-UNKNOWN-KEY) naming the key and its source.
        """
        home = file.absolute().parent
        merged = _read(file)
        for path, value in (*_from_environment(environ), *(flags or {}).items()):
            _put(merged, path.split("."), value)
        _refuse_unknown(merged, file)
        try:
            config = cls.model_validate({**merged, "home": home})
        except ValidationError as error:
            raise _invalid(error, file) from error
        return config.model_copy(update=_absolute(config, home))

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    def path(self, name: str) -> Path:
        return self.home / name


_SECTIONS: Final[Mapping[str, type[Section]]] = {
    "node": Naming,
    "listen": Listen,
    "advertise": Advertise,
    "storage": Storage,
    "federation": FederationFile,
    "replication": Replication,
    "publishing": Publishing,
    "gateway": Gateway,
    "upstream": ReadThrough,
    "tlog": Tlog,
    "limits": Limits,
}


def _known() -> list[str]:
    """Every key that there is, as `section.key`, those of storage.s3 included."""
    keys = [f"{section}.{key}" for section, model in _SECTIONS.items() for key in model.model_fields]
    keys.remove("storage.s3")
    return [*keys, *(f"storage.s3.{key}" for key in S3.model_fields)]


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as source:
            data = source.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"no configuration {file}", hint="comity init --help") from error
    except OSError as error:
        raise Unavailable(f"{file} cannot be read", why=error.strerror or "") from error
    if len(data) > MAX_FILE:
        raise Malformed(f"{file} is too large", why=f"at most {MAX_FILE} bytes are read", code="CONFIG")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except ValueError as error:  # TOML and UTF-8 alike
        raise Malformed(f"{file} is not TOML", why=str(error), code="CONFIG") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path in _known():
        name = PREFIX + path.replace(".", "_").upper()
        if name in environ:
            yield path, environ[name]


def _put(document: dict[str, Any], path: list[str], value: str) -> None:
    for section in path[:-1]:
        document = document.setdefault(section, {})
    document[path[-1]] = value


def _refuse_unknown(document: Mapping[str, Any], file: Path) -> None:
    known = _known()
    for path in _paths(document):
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the comments in a fresh node.toml"
            raise Malformed(f"unknown setting {path!r}", why=f"in {file}", hint=hint, code="CONFIG-UNKNOWN-KEY")


def _paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _invalid(error: ValidationError, file: Path) -> ComityError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    return Malformed(f"setting {where!r} is not usable", why=f"{first['msg']}, in {file}", code="CONFIG")


def _absolute(config: NodeConfig, home: Path) -> dict[str, Section]:
    storage, s3 = config.storage, config.storage.s3
    if s3 is not None:
        s3 = s3.model_copy(update={"credentials_file": home / s3.credentials_file})
    gateway = config.gateway
    files = {name: home / path for name in ("certificate", "key", "policy") if (path := getattr(gateway, name))}
    paths = {"blobs": home / storage.blobs, "ledger": home / storage.ledger, "s3": s3}
    if storage.password_file is not None:
        paths["password_file"] = home / storage.password_file
    return {
        "listen": config.listen.model_copy(update={"operator": home / config.listen.operator}),
        "storage": storage.model_copy(update=paths),
        "gateway": gateway.model_copy(update=files),
        "tlog": config.tlog.model_copy(update={"witness_key": home / config.tlog.witness_key}),
        "federation": config.federation.model_copy(update={"file": home / config.federation.file}),
    }
