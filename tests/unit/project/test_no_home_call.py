"""No node fetches or installs a version of the product, only a command that a person runs does; and no address in it is
one of its makers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from support import product

_URL: Final = re.compile(r"\b(?:https?|wss?|grpcs?)://([A-Za-z0-9][A-Za-z0-9.\-]*\.[A-Za-z]{2,})")
_EXAMPLE: Final = re.compile(r"(?:.*\.)?example(?:\.org|\.com)?\Z")
_INSTALLER: Final = re.compile(r"""["'](?:pip3?|uv)["']|\bensurepip\b""")
NAMED: Final[Mapping[str, str]] = {
    "cyclonedx.org": "the name of a schema",
    "data.europa.eu": "the name of a vocabulary",
    "docs.oasis-open.org": "the name of a schema",
    "git-lfs.github.com": "the name of a format",
    "huggingface.co": "the hub from which an operator asks to import, unless they name another one",
    "in-toto.io": "names of formats",
    "sigstore.dev": "the name of a format",
    "spdx.org": "the name of a vocabulary",
    "slsa.dev": "the name of a format",
    "purl.org": "the name of a vocabulary",
    "www.iana.org": "names of formats",
    "www.modelscope.cn": "the hub of `ms:` names, from which an operator asks to import, unless they name another one",
    "www.w3.org": "names of formats",
    "xmlns.com": "the name of a vocabulary",
}
"""Hosts in the sources, but those of examples, and for what. None is of the makers of the product."""


def texts() -> dict[str, str]:
    return {name: path.read_text("utf-8") for name, path in product.modules().items()}


def test_every_host_that_the_product_names_has_a_reason() -> None:
    found = {host for text in texts().values() for host in _URL.findall(text) if not _EXAMPLE.match(host)}
    assert found == NAMED.keys()


def test_only_the_command_of_a_person_fetches_a_release() -> None:
    users = {name for name, text in texts().items() if re.search(r"\bcomity_client\.releases\b", text)}
    assert users == {"comity_cli.commands.upgrade"}


def test_nothing_of_a_node_runs_an_installer() -> None:
    found = {name for name, text in texts().items() if name.startswith("comity.") and _INSTALLER.search(text)}
    assert found == set()
