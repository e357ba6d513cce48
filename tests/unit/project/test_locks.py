"""The hash-pinned lock files: each has what pyproject.toml asks for, pinned to one release whose files have known
hashes.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"node.txt": ("node", "oidc", "postgres", "s3"), "dev.txt": ("dev",)}


def asked(extras: tuple[str, ...]) -> list[Requirement]:
    """The project's requirements with these extras, and with the extras that those name."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            found += asked(tuple(requirement.extras)) if requirement.name == PROJECT["name"] else [requirement]
    return found


def pinned(name: str) -> dict[str, list[Requirement]]:
    """The pins of a lock, by name; there are several where they differ by platform."""
    text = re.sub(r"\\\n\s+--hash=sha256:[0-9a-f]{64}", "", (ROOT / "requirements" / name).read_text())
    pins: dict[str, list[Requirement]] = defaultdict(list)
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pins[canonicalize_name(Requirement(line).name)].append(Requirement(line))
    return pins


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_pins_all_that_the_project_asks_for_within_its_ranges(name: str, extras: tuple[str, ...]) -> None:
    pins = pinned(name)
    for requirement in asked(extras):
        found = pins[canonicalize_name(requirement.name)]
        assert found, f"run requirements/renew.sh: {requirement.name} is not in {name}"
        for pin in found:
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert requirement.specifier.contains(exact.version), f"run requirements/renew.sh: {pin} in {name}"


@pytest.mark.parametrize("name", [*LOCKS, "build.txt"])
def test_every_pin_of_a_lock_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    entries = [part for part in re.split(r"\n(?=\S)", text) if part and not part.startswith("#")]
    assert len(entries) > 5
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_builds_a_release_is_pinned_within_the_range_of_the_build_system() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pins = pinned("build.txt")
    for requirement in map(Requirement, required):
        ((exact,),) = (pin.specifier for pin in pins[requirement.name])
        assert requirement.specifier.contains(exact.version)
    assert "build" in pins


def test_the_container_and_ci_install_from_the_locks() -> None:
    assert "--require-hashes -r requirements/node.txt" in (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--require-hashes -r requirements/dev.txt" in (ROOT / ".ci" / "run").read_text()
