"""Whether all that the wheels of a lock need is in it, for each Python and machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from comity.rules.kits.description import KitPlatform
from comity_client.kits.lock import LockedDistribution
from comity_client.kits.wheels import KitWheel, closure_problems, read_wheel
from support.kit_recipes import make_wheel

TWO_PYTHONS = KitPlatform("linux", "x86_64", "", ("3.11", "3.12"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def problems(*wheels: KitWheel, extras: Iterable[str] = (), platform: KitPlatform = TWO_PYTHONS) -> tuple[str, ...]:
    """Of a lock that has exactly these wheels; the first distribution with extras."""
    names = dict.fromkeys(wheel.name for wheel in wheels)
    locked = [
        LockedDistribution(name, "1.0", tuple(extras) if not number else (), ()) for number, name in enumerate(names)
    ]
    return closure_problems(locked, wheels, platform)


def wheel(folder: Path, name: str, *requires: str, tag: str = "py3-none-any", version: str = "1.0") -> KitWheel:
    return read_wheel(make_wheel(folder, name, version, tag=tag, requires=requires))


def test_wheels_that_need_each_other_are_closed(folder: Path) -> None:
    assert problems(wheel(folder, "a", "b>=1"), wheel(folder, "b", "A")) == ()


def test_a_distribution_that_is_not_locked_is_named(folder: Path) -> None:
    assert problems(wheel(folder, "a", "b>=1")) == ("a 1.0 needs b>=1, which is not locked",)


def test_a_version_that_does_not_fit_is_named(folder: Path) -> None:
    assert problems(wheel(folder, "a", "b>=2"), wheel(folder, "b")) == ("a 1.0 needs b>=2; locked is 1.0",)


def test_a_development_version_fits_if_it_is_in_the_range(folder: Path) -> None:
    assert problems(wheel(folder, "a", "b>=1"), wheel(folder, "b", version="1.1rc1")) == ()


@pytest.mark.parametrize(
    "condition",
    ['python_version < "3.9"', 'sys_platform == "win32"', 'extra == "test"', 'platform_machine == "aarch64"'],
)
def test_what_is_needed_elsewhere_only_is_not_needed(folder: Path, condition: str) -> None:
    assert problems(wheel(folder, "a", f"b; {condition}")) == ()


def test_what_one_of_the_pythons_needs_is_needed(folder: Path) -> None:
    assert problems(wheel(folder, "a", 'b; python_version < "3.12"')) == ("a 1.0 needs b, which is not locked",)


def test_extras_are_followed(folder: Path) -> None:
    first = wheel(folder, "a", 'b[fast]; extra == "all"')
    second = wheel(folder, "b", 'c; extra == "fast"')
    assert problems(first, second) == ()
    assert problems(first, second, extras=["all"]) == ("b 1.0 needs c, which is not locked",)


def test_extras_that_name_each_other_end(folder: Path) -> None:
    assert problems(wheel(folder, "a", 'a[y]; extra == "x"', 'a[x]; extra == "y"'), extras=["x"]) == ()


def test_a_requirement_with_a_place_is_refused(folder: Path) -> None:
    (problem,) = problems(wheel(folder, "a", "b @ https://evil.example/b.whl"), wheel(folder, "b"))
    assert "from a place of its own" in problem


def test_each_python_needs_a_wheel(folder: Path) -> None:
    one = wheel(folder, "a", tag="cp311-cp311-manylinux_2_17_x86_64")
    assert problems(one) == ("a 1.0 has no wheel for CPython 3.12 on x86_64",)
    assert problems(one, wheel(folder, "a", tag="cp312-cp312-manylinux_2_17_x86_64")) == ()


def test_a_wheel_for_other_machines_is_named(folder: Path) -> None:
    other = wheel(folder, "a", tag="cp311-cp311-win_amd64")
    assert problems(wheel(folder, "a"), other) == (
        f"{other.file} is for other machines than CPython 3.11, 3.12 on linux x86_64",
    )


def test_a_kit_for_all_machines_needs_what_each_needs(folder: Path) -> None:
    everywhere = KitPlatform("any", "any", "", ("3.11",))
    assert problems(wheel(folder, "a"), platform=everywhere) == ()
    needs = wheel(folder, "a", 'b; platform_machine == "aarch64"')
    assert problems(needs, platform=everywhere) == ("a 1.0 needs b, which is not locked",)
    one = wheel(folder, "a", tag="cp311-cp311-manylinux_2_17_x86_64")
    assert problems(one, platform=everywhere) == ("a 1.0 has no wheel for CPython 3.11 on aarch64",)
    assert problems(one, wheel(folder, "a", tag="py3-none-linux_aarch64"), platform=everywhere) == ()
