"""Whether the wheels of a kit are all that its engine needs: for each Python and machine, every distribution that
another one requires is locked, in a version that it accepts, and has a wheel that installs there.

This is decided from the metadata of the wheels, before anything is installed; `comity kit check` installs them, without
a network. Source: PyPA specification "Dependency specifiers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from comity.rules.kits.description import KitPlatform
from packaging.markers import Environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from comity_client.kits.lock import LockedDistribution
from comity_client.kits.wheels import KitWheel, installs_on


def closure_problems(
    locked: Sequence[LockedDistribution], wheels: Sequence[KitWheel], platform: KitPlatform
) -> tuple[str, ...]:
    """What is missing or too much, a line for each; empty if the wheels are closed."""
    machines = (
        [platform] if platform.arch != "any" else [replace(platform, arch=arch) for arch in ("x86_64", "aarch64")]
    )
    places = [(machine, python) for machine in machines for python in platform.python]
    problems = dict[str, None]()
    for wheel in wheels:
        if not any(installs_on(wheel, *place) for place in places):
            pythons = ", ".join(platform.python)
            problems[f"{wheel.file} is for other machines than CPython {pythons} on {platform.os} {platform.arch}"] = (
                None
            )
    for place in places:
        problems |= dict.fromkeys(_problems_at(locked, wheels, *place))
    return tuple(problems)


def _problems_at(
    locked: Sequence[LockedDistribution], wheels: Sequence[KitWheel], machine: KitPlatform, python: str
) -> Iterator[str]:
    chosen = {wheel.name: wheel for wheel in wheels if installs_on(wheel, machine, python)}
    for each in locked:
        if each.name not in chosen:
            yield f"{each.name} {each.version} has no wheel for CPython {python} on {machine.arch}"
    environment = _environment(machine, python)
    waiting = [(each.name, extra) for each in locked for extra in ("", *each.extras)]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        wheel = chosen.get(name)
        for needed in wheel.requires if wheel else ():
            if needed.marker is not None and not needed.marker.evaluate({**environment, "extra": extra}):
                continue
            if problem := _problem(chosen, wheel, needed):
                yield problem
                continue
            further = {(canonicalize_name(needed.name), each) for each in map(canonicalize_name, needed.extras)} - seen
            seen |= further
            waiting += sorted(further)


def _problem(chosen: Mapping[str, KitWheel], wheel: KitWheel | None, needed: Requirement) -> str:
    """Why a requirement is not met; empty if it is."""
    assert wheel is not None
    who = f"{wheel.name} {wheel.version}"
    if needed.url:
        return f"{who} needs {needed.name} from a place of its own, which a kit has not"
    found = chosen.get(canonicalize_name(needed.name))
    if found is None:
        return f"{who} needs {needed.name}{needed.specifier}, which is not locked"
    if not needed.specifier.contains(found.version, prereleases=True):
        return f"{who} needs {needed.name}{needed.specifier}; locked is {found.version}"
    return ""


def _environment(machine: KitPlatform, python: str) -> Mapping[str, str]:
    """The values of conditions on a machine with CPython and Linux."""
    environment: Environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine.arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    return {name: str(value) for name, value in environment.items()}
