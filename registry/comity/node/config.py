"""A node's configuration: its settings from all sources, checked together and with absolute paths.

    flag  >  COMITY_<SECTION>_<KEY> in the environment  >  node.toml  >  default

An unknown key or variable is an error that suggests the closest one; variables that are no settings (`COMITY_HOME`, and
what Kubernetes sets for a service called `comity`) are ignored. Each value has an origin, which errors and `comity
config` show.

TOML's parser does not tell lines. `setting_lines` feeds it the file statement by statement instead: a statement is the
smallest run of lines that parses. So a value over several lines, a dotted key or an inline table is found as the parser
reads it, and no second grammar exists.
"""

from __future__ import annotations

import copy
import difflib
import functools
import itertools
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import ValidationError, model_validator

from comity.bounded_file import read_at_most
from comity.node.settings import SECTIONS, AllSections, Section, known_settings
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_STATEMENT_LINES: Final = 1000
"""Lines of one statement that are tried. Settings behind a longer one have no known line."""
MAX_FILE: Final = 1024 * 1024
PREFIX: Final = "COMITY_"
_AnySection = TypeVar("_AnySection", bound=Section)


@frozen
class SettingOrigin:
    """The source of a value. `where` names the variable, or the file with the line if it is known."""

    kind: Literal["default", "file", "environment", "flag"]
    where: str = ""

    def __str__(self) -> str:
        return {
            "default": "default",
            "file": self.where,
            "environment": f"the variable {self.where} in the environment",
            "flag": "the command line",
        }[self.kind]


def file_origin(file: Path, lines: Mapping[str, int], setting: str) -> SettingOrigin:
    """The origin of a setting in `file`, or of the table above it if the setting itself has no line."""
    parts = setting.split(".")
    above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    line = next((lines[name] for name in above if name in lines), None)
    return SettingOrigin("file", str(file) if line is None else f"{file}:{line}")


@functools.lru_cache(1)
def setting_lines(text: str) -> Mapping[str, int]:
    """The line, from 1, of each key and each table header in valid TOML, by `section.key`. It takes longer than all
    else that is done to read settings, and is remembered for who asks where each setting of one file comes from."""
    lines, table = dict[str, int](), ""
    for number, statement, document in _statements(text):
        paths = list(_stated_paths(document))
        if statement.lstrip().startswith("["):
            table = paths[0] if paths else ""
            lines.setdefault(table, number)
        else:
            for path in paths:
                lines.setdefault(f"{table}.{path}" if table else path, number)
    return MappingProxyType(lines)


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with the number of its first line, and what it says alone."""
    pending, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            first = number
        pending += line + "\n"
        try:
            document = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            if number - first >= MAX_STATEMENT_LINES:
                return
            continue
        yield first, pending, document
        pending = ""


def _stated_paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The path of each value, and of each empty table."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _stated_paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@frozen
class SettingSources:
    """Where settings may come from, read and not yet checked: the file (its `text`, and the `document` that it is), the
    environment, and the command line."""

    file: Path
    text: str
    document: Mapping[str, Any]
    environ: Mapping[str, str]
    flags: Mapping[str, str]

    @classmethod
    def read(cls, file: Path, environ: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None) -> Self:
        """Raises NotFound, Unavailable, and Malformed (CONFIG) if the file is not TOML."""
        text, document = _read(file)
        return cls(file, text, document, environ, flags or {})

    @property
    def lines(self) -> Mapping[str, int]:
        """The line of each setting in the file: asked for only where a source is told."""
        return setting_lines(self.text)

    def origin(self, setting: str) -> SettingOrigin:
        """Where the value of a setting comes from."""
        if setting in self.flags:
            return SettingOrigin("flag")
        if _variable(setting) in self.environ:
            return SettingOrigin("environment", _variable(setting))
        if setting in self.lines or setting in _paths(self.document):
            return file_origin(self.file, self.lines, setting)
        return SettingOrigin("default")

    def merged(self) -> dict[str, Any]:
        """The values of all sources in one document. A flag wins over a variable, and that over the file."""
        merged = copy.deepcopy(dict(self.document))
        for path, value in (*_from_environment(self.environ), *self.flags.items()):
            _put(merged, path.split("."), value)
        return merged

    def problems(self) -> Iterator[Malformed]:
        """Everything that no setting has as its name (CONFIG-UNKNOWN-KEY, CONFIG)."""
        yield from _unknown_variables(self.environ)
        yield from self._unknown_settings()

    def invalid(self, error: ValidationError) -> Iterator[Malformed]:
        """The values that are not usable, each with its source."""
        for each in error.errors():
            setting = ".".join(str(part) for part in each["loc"] if not isinstance(part, int))
            what = f"setting {setting!r} is not usable" if setting else "the settings do not fit together"
            source = self.origin(setting) if setting else SettingOrigin("default")
            shown = self.file if source.kind == "default" else source
            yield Malformed(what, why=f"{each['msg']}, in {shown}", code="CONFIG")

    def _unknown_settings(self) -> Iterator[Malformed]:
        """Each unknown section, and each unknown setting of a known one."""
        known = known_settings()
        for name, value in self.document.items():
            if isinstance(value, Mapping) and name not in SECTIONS:
                yield self._unknown("section", name, SECTIONS)
                continue
            for path in _paths({name: value}):
                if path not in known:
                    yield self._unknown("setting", path, known)

    def _unknown(self, kind: str, path: str, known: Collection[str]) -> Malformed:
        close = difflib.get_close_matches(path, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see the comments in a fresh node.toml"
        why = f"in {file_origin(self.file, self.lines, path)}"
        return Malformed(f"unknown {kind} {path!r}", why=why, hint=hint, code="CONFIG-UNKNOWN-KEY")


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and what it says."""
    data = read_at_most(file, MAX_FILE + 1, hint="comity init --help")
    if len(data) > MAX_FILE:
        raise Malformed(f"{file} is too large", why=f"more than {MAX_FILE} bytes", code="CONFIG")
    try:
        text = data.decode("utf-8")
        return text, tomllib.loads(text)
    except ValueError as error:  # invalid TOML or UTF-8
        raise Malformed(f"{file} is not TOML", why=str(error), code="CONFIG") from error


_SERVICE_LINK: Final = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?)\Z")
"""Variables that Kubernetes sets in every container for a service, whose name may be `comity-gateway`."""
_CLOSE: Final = 0.8
"""How close to the name of a setting a variable is taken for one that was mistyped, from 0 to 1."""


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[Malformed]:
    """Each variable that looks like a setting and is none."""
    known = [_variable(path) for path in known_settings()]
    sections = tuple(_variable(section) + "_" for section in SECTIONS)
    for name in environ:
        if not name.startswith(PREFIX) or name in known or _SERVICE_LINK.match(name):
            continue
        close = difflib.get_close_matches(name[:200], known, n=1, cutoff=_CLOSE)
        if close or name.startswith(sections):
            hint = f"did you mean {close[0]!r}?" if close else "unset it, or see docs/operations/settings.md"
            why = "it is in the environment of this process"
            yield Malformed(f"unknown setting {name[:200]!r}", why=why, hint=hint, code="CONFIG-UNKNOWN-KEY")


def _variable(path: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + path.replace(".", "_").upper()


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for path in known_settings():
        name = _variable(path)
        if name in environ:
            yield path, environ[name]


def _put(document: dict[str, Any], path: list[str], value: str) -> None:
    for section in path[:-1]:
        document = document.setdefault(section, {})
    document[path[-1]] = value


def _paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


class NodeConfig(AllSections):
    """A node's settings, made by `load`; every path is absolute."""

    home: Path

    @model_validator(mode="after")
    def _distinct_listeners(self) -> Self:
        for (name, address), (other, taken) in itertools.combinations(self.listeners.items(), 2):
            if overlap(address, taken):
                raise ValueError(f"{name} = {address} and {other} = {taken} are the same port: change one of them")
        return self

    @model_validator(mode="after")
    def _fitting_role(self) -> Self:
        front = self.node.role == "front-end"
        if not front and not self.listen.open:
            raise ValueError("listen.open is empty: only a front end may have no open port")
        if (front or self.is_standby) and not self.storage.database:
            kind = "front end" if front else "standby"
            raise ValueError(f"a {kind} needs storage.database: an SQLite file has one process")
        if front and not self.listen.open and not self.gateway.http:
            raise ValueError("a front end needs listen.open or gateway.http: it would serve nothing")
        return self

    @property
    def is_front_end(self) -> bool:
        """Whether this process only reads what the node's writer writes."""
        return self.node.role == "front-end"

    @property
    def is_standby(self) -> bool:
        """Whether this process waits until no other one writes the ledger, and then does."""
        return self.node.role == "standby"

    @property
    def listeners(self) -> dict[str, str]:
        """The TCP address of every listener that this process opens, by `section.key`."""
        listen, gateway = self.listen, self.gateway
        if self.is_front_end:
            served = {"listen.open": listen.open, "listen.metrics": listen.metrics, "gateway.http": gateway.http}
            return {name: address for name, address in served.items() if address}
        addresses = {
            "listen.mutual": listen.mutual,
            "listen.open": listen.open,
            "listen.metrics": listen.metrics,
            "gateway.http": gateway.http,
            "gateway.files": gateway.files,
            "gateway.ranges": gateway.ranges,
        }
        return {name: address for name, address in addresses.items() if address}

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

        Raises NotFound, Unavailable, and Malformed (CONFIG, CONFIG-UNKNOWN-KEY) with the key and its source.
        """
        sources = SettingSources.read(file, environ, flags or {})
        if (problem := next(sources.problems(), None)) is not None:
            raise problem
        home = file.absolute().parent
        try:
            config = cls.model_validate({**sources.merged(), "home": home})
        except ValidationError as error:
            raise next(sources.invalid(error)) from error
        return _below(home, config)

    @property
    def keys(self) -> Path:
        """The folder with the node's own keys."""
        return self.storage.keys

    def path(self, name: str) -> Path:
        return self.home / name


def overlap(first: str, second: str) -> bool:
    """Whether two IP addresses with ports cannot both be listened on: one port, and one host or any host. Port 0 is
    chosen by the system, and never the same."""
    hosts, ports = zip(*(address.rpartition(":")[::2] for address in (first, second)), strict=True)
    any_host = {"0.0.0.0", "[::]"}
    return ports[0] == ports[1] != "0" and (hosts[0] == hosts[1] or bool(any_host & {*hosts}))


def _below(home: Path, section: _AnySection) -> _AnySection:
    """The section with every path of it, and of the sections in it, below `home` unless it is absolute."""
    values = {name: getattr(section, name) for name in type(section).model_fields}
    changed = {name: home / value for name, value in values.items() if isinstance(value, Path)}
    inner = {name: _below(home, value) for name, value in values.items() if isinstance(value, Section)}
    return section.model_copy(update={**changed, **inner})
