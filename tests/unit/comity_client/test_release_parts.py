"""Releases: their description, their lock, and which machines their wheels are for."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity_client.kits.lock import LockedDistribution
from comity_client.release_parts import (
    InstallingMachine,
    ProductRelease,
    Wheel,
    check_lock,
    product_wheel,
    read_release_lock,
    unfit,
    wheels_of,
)
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag
from support.releases import make_release

MACHINE = InstallingMachine("x86_64", 11, ("glibc", 2, 28))
DIGESTS = tuple(Digest(f"{number:064x}") for number in range(1, 9))


def manifest(*paths: str) -> Manifest:
    files = ("release.json", "requirements.lock", *paths)
    return Manifest.of(FileEntry(path, 1, digest) for path, digest in zip(files, DIGESTS, strict=False))


def locked(name: str, version: str, *digests: Digest) -> LockedDistribution:
    return LockedDistribution(name, version, (), digests)


def test_a_release_is_read_as_it_was_written() -> None:
    release = ProductRelease("0.2.0", "a" * 40, 1_764_000_000, ("node", "s3"))
    assert ProductRelease.parse(release.encode()) == release


@pytest.mark.parametrize(
    "change", [{"commit": "main"}, {"extras": ["node", "node"]}, {"name": "another"}, {"version": ""}, {"more": 1}]
)
def test_a_release_with_another_member_is_refused(change: dict[str, object]) -> None:
    said = parse_canonical(ProductRelease("0.2.0", "a" * 40, 1, ()).encode(), limit=10_000, what="release")
    assert isinstance(said, dict)
    with pytest.raises(Malformed):
        ProductRelease.parse(canonical(said | change))


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp311-cp311-linux_x86_64", True),
        ("cp311-cp311-manylinux_2_31_x86_64.manylinux_2_5_x86_64", True),
        ("cp312-cp312-manylinux_2_28_x86_64", False),
        ("cp310-cp310-manylinux_2_28_x86_64", False),
        ("cp312-abi3-manylinux_2_28_x86_64", False),
        ("cp311-cp311-manylinux_2_31_x86_64", False),
        ("cp311-cp311-manylinux_2_28_aarch64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp311-cp311-win_amd64", False),
        ("cp313-cp313t-manylinux_2_28_x86_64", False),
        ("pp311-pypy311_pp73-manylinux_2_28_x86_64", False),
        ("py2-none-any", False),
    ],
)
def test_a_wheel_is_for_the_machines_that_its_name_says(tags: str, fits: bool) -> None:
    assert Wheel.of(f"wheels/a-1-{tags}.whl").fits(MACHINE) is fits


@given(
    st.sampled_from(["py3", "py2.py3", "py311", "py313", "cp39", "cp311", "cp312", "cp313"]),
    st.sampled_from(["none", "abi3", "cp311", "cp312", "cp313"]),
    st.sampled_from(["any", "linux_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"]),
)
def test_pip_takes_every_wheel_that_is_said_to_fit(python: str, abi: str, platform: str) -> None:
    """As `packaging`, which pip uses, lists the tags of such a machine."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64", "linux_x86_64"]
    taken: set[Tag] = {*cpython_tags((3, 11), platforms=platforms), *compatible_tags((3, 11), "cp311", platforms)}
    said = Wheel.of(f"wheels/a-1-{python}-{abi}-{platform}.whl").fits(MACHINE)
    assert said <= (not taken.isdisjoint(parse_tag(f"{python}-{abi}-{platform}")))


def test_a_distribution_without_a_wheel_for_the_machine_is_named() -> None:
    wheels = [
        Wheel.of(f"wheels/{name}.whl")
        for name in ("A.b-1-cp311-cp311-linux_x86_64", "A.b-1-cp312-cp312-linux_x86_64", "c-1-cp312-abi3-linux_x86_64")
    ]
    assert unfit(wheels, MACHINE) == ("c",)
    assert unfit(wheels, InstallingMachine("x86_64", 12, ("", 0, 0))) == ("a-b", "c")


@pytest.mark.parametrize(
    "path", ["wheels/evil.py", "wheels/a-1.whl", "wheels/sub/a-1-py3-none-any.whl", "wheels/-1-a-b-c.whl"]
)
def test_another_file_among_the_wheels_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        wheels_of(manifest(path))


def test_a_folder_without_wheels_is_no_release() -> None:
    with pytest.raises(Malformed):
        wheels_of(manifest())


@pytest.mark.parametrize("names", [(), ("comity-0.1.0",), ("comity-0.2.0", "comity-0.3.0"), ("other-0.2.0",)])
def test_a_release_has_one_wheel_of_the_product_of_its_version(names: tuple[str, ...]) -> None:
    with pytest.raises(Malformed):
        product_wheel([Wheel.of(f"wheels/{name}-py3-none-any.whl") for name in names], "0.2.0")


def test_a_lock_is_read_with_markers_and_extras() -> None:
    text = f"# made\ncomity[node,s3]==0.2.0 \\\n    --hash=sha256:{DIGESTS[0]}\nA_b==1 ; python_version < '3.12' \\\n"
    text += f"    --hash=sha256:{DIGESTS[1]} \\\n    --hash=sha256:{DIGESTS[2]}\n\n"
    assert read_release_lock(text.encode()) == (
        LockedDistribution("a-b", "1", (), DIGESTS[1:3], 'python_version < "3.12"'),
        LockedDistribution("comity", "0.2.0", ("node", "s3"), DIGESTS[:1]),
    )


@pytest.mark.parametrize(
    "line",
    [
        "a==1",
        "a>=1 --hash=sha256:" + "0" * 64,
        "--index-url https://example.org/",
        "-r other.txt",
        "a @ https://example.org/a.whl --hash=sha256:" + "0" * 64,
        "a==1 --hash=md5:" + "0" * 32,
        "a==1 --hash=sha256:" + "0" * 64 + " --pre",
        "a==1 ; -r other.txt --hash=sha256:" + "0" * 64,
        "a==1 ; python_version --hash=sha256:" + "0" * 64,
        "a==1 ; python_version < '3.12' \\--pre --hash=sha256:" + "0" * 64,
        "a==1 ; python_version < '${X}' --hash=sha256:" + "0" * 64,
        "é==1 --hash=sha256:" + "0" * 64,
    ],
)
def test_a_line_that_pins_no_bytes_is_refused(line: str) -> None:
    with pytest.raises(Malformed):
        read_release_lock(line.encode())


@given(st.text(max_size=200))
def test_a_lock_is_read_or_refused(text: str) -> None:
    try:
        found = read_release_lock(text.encode())
    except Malformed:
        return
    assert all(each.wheels for each in found)


def test_the_lock_pins_exactly_the_wheels() -> None:
    found = manifest("wheels/a-1-py3-none-any.whl", "wheels/b-1-py3-none-any.whl")
    check_lock(found, [locked("a", "1", DIGESTS[2]), locked("b", "1", DIGESTS[3])])


@pytest.mark.parametrize(
    "lock",
    [
        [locked("a", "1", DIGESTS[2])],
        [locked("a", "1", DIGESTS[2]), locked("b", "1", DIGESTS[3], DIGESTS[4])],
        [locked("a", "1", DIGESTS[2]), locked("b", "2", DIGESTS[3])],
        [locked("a", "1", DIGESTS[3]), locked("b", "1", DIGESTS[2])],
    ],
)
def test_a_lock_of_other_files_is_refused(lock: list[LockedDistribution]) -> None:
    with pytest.raises(Malformed):
        check_lock(manifest("wheels/a-1-py3-none-any.whl", "wheels/b-1-py3-none-any.whl"), lock)


def test_a_made_release_holds_together(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "0.2.0")
    lock = read_release_lock((folder / "requirements.lock").read_bytes())
    assert [(each.name, each.version, len(each.wheels)) for each in lock] == [
        ("comity", "0.2.0", 1),
        ("needed-one", "1.5", 1),
    ]
