"""Where settings come from, and what nobody knows as a setting.

    flag  >  COMITY_<SECTION>_<KEY> in the environment  >  node.toml  >  default

An unknown key or variable is an error that suggests the closest one; variables that are no settings (`COMITY_HOME`, and
what Kubernetes sets for a service called `comity`) are ignored.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from comity.bounded_file import read_at_most
from comity.node.settings.origins import SettingOrigin, file_origin, setting_lines
from comity.node.settings.sections import SECTIONS, known_settings
from comity.trust.errors import Malformed

MAX_FILE: Final = 1024 * 1024
PREFIX: Final = "COMITY_"


@dataclass(frozen=True, slots=True)
class SettingSources:
    """Where settings may come from, read and not yet checked: the file, the environment, and the command line."""

    file: Path
    document: Mapping[str, Any]
    lines: Mapping[str, int]
    environ: Mapping[str, str]
    flags: Mapping[str, str]

    @classmethod
    def read(cls, file: Path, environ: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None) -> Self:
        """Raises NotFound, Unavailable, and Malformed (CONFIG) if the file is not TOML."""
        text, document = _read(file)
        return cls(file, document, setting_lines(text), environ, flags or {})

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
        known = known_settings()
        for path in _paths(self.document):
            if path not in known:
                close = difflib.get_close_matches(path, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "see the comments in a fresh node.toml"
                why = f"in {file_origin(self.file, self.lines, path)}"
                yield Malformed(f"unknown setting {path!r}", why=why, hint=hint, code="CONFIG-UNKNOWN-KEY")


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
            hint = f"did you mean {close[0]!r}?" if close else "unset it, or see the settings in docs/operations.md"
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
