"""A node's configuration: its sections, checked together and with absolute paths."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError, model_validator

from comity.node.settings.sections import AllSections, Section
from comity.node.settings.sources import SettingSources

_AnySection = TypeVar("_AnySection", bound=Section)


class NodeConfig(AllSections):
    """A node's settings, made by `load`; every path is absolute."""

    home: Path

    @model_validator(mode="after")
    def _distinct_listeners(self) -> Self:
        for (name, address), (other, taken) in itertools.combinations(self.listeners.items(), 2):
            if overlap(address, taken):
                raise ValueError(f"{name} = {address} and {other} = {taken} are the same port: change one of them")
        return self

    @property
    def listeners(self) -> dict[str, str]:
        """The TCP address of every listener that is set, by `section.key`."""
        listen, gateway = self.listen, self.gateway
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
        return self.home / "keys"

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
