"""What wheels say, and which files are refused."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from comity.rules.kits.description import KitPlatform
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity_client.kits import wheels
from comity_client.kits.wheels import installs_on, least_glibc, read_wheel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.kit_recipes import make_wheel

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
X86 = KitPlatform("linux", "x86_64", "", ("3.11",))


def refusal(path: Path) -> str:
    with pytest.raises(Malformed) as refused:
        read_wheel(path)
    assert refused.value.code == "KIT-WHEEL"
    return refused.value.why


def test_a_wheel_says_its_name_requirements_and_licences(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "Tiny_Engine", requires=["numpy>=2", 'pytest; extra == "test"'])
    wheel = read_wheel(path)
    assert (wheel.name, wheel.version, wheel.licence) == ("tiny-engine", "1.0", "MIT")
    assert wheel.sha256 == sha256(path.read_bytes())
    assert [each.name for each in wheel.requires] == ["numpy", "pytest"]
    assert wheel.licences == {"LICENSE": b"MIT, in words"}


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: mit OR apache-2.0\n", "MIT OR Apache-2.0"),
        ("License: BSD-3-Clause\n", "BSD-3-Clause"),
        ("License: MIT License\nClassifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\n", ""),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\n",
            "",
        ),
        ("", ""),
    ],
)
def test_a_licence_is_known_only_if_it_is_one(tmp_path: Path, metadata: str, licence: str) -> None:
    assert read_wheel(make_wheel(tmp_path, metadata=metadata)).licence == licence


def test_licence_texts_are_found_where_old_and_new_wheels_have_them(tmp_path: Path) -> None:
    info = "tiny_engine-1.0.dist-info"
    texts = {f"{info}/{path}": path for path in ("LICENSE.txt", "licenses/a/COPYING", "own-words.txt", "other.txt")}
    found = read_wheel(make_wheel(tmp_path, metadata="License-File: own-words.txt\n", texts=texts)).licences
    assert sorted(found) == ["LICENSE.txt", "a/COPYING", "own-words.txt"]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("tiny-1.0.tar.gz", "source distribution"),
        ("tiny-1.0.zip", "source distribution"),
        ("tiny.whl", "no name of a wheel"),
        ("tiny-1.0-py3-none.whl", "no name of a wheel"),
        ("tiny-1.0-py3-none-any.whl", "no readable wheel"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, file: str, why: str) -> None:
    (tmp_path / file).write_bytes(b"PK\x03\x04 not whole")
    assert why in refusal(tmp_path / file)


def test_a_wheel_with_the_metadata_of_another_one_is_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "other")
    assert "metadata" in refusal(path.rename(tmp_path / "tiny-1.0-py3-none-any.whl"))
    double = make_wheel(tmp_path, more={"second-1.0.dist-info/METADATA": "Name: second\n"})
    assert "2 folders" in refusal(double)


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "licenses/../x", "/etc/x"])
def test_a_licence_text_outside_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = make_wheel(tmp_path, texts={f"tiny_engine-1.0.dist-info/licenses/{name}": "x"})
    with pytest.raises(Malformed):
        read_wheel(path)


def test_metadata_and_texts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_wheel(tmp_path)
    for bound in ("MAX_METADATA", "MAX_LICENCE", "MAX_MEMBERS", "MAX_LICENCES"):
        with monkeypatch.context() as patch:
            patch.setattr(wheels, bound, 0)
            assert "more than 0" in refusal(path)


def test_a_member_that_unpacks_to_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_LICENCE", 1000)
    path = make_wheel(tmp_path, texts={})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_engine-1.0.dist-info/LICENSE", b"0" * 10_000_000)
    assert "more than 1000 bytes" in refusal(path)


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_wheel_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = make_wheel(tmp_path, requires=["numpy>=2"], compression=data.draw(st.sampled_from(METHODS)))
    whole = path.read_bytes()
    at, gone = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 3))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + gone :])
    with suppress(Malformed):
        read_wheel(path)


@pytest.mark.parametrize("requires", ["numpy >> 2", "@@@"])
def test_requirements_that_are_none_are_refused(tmp_path: Path, requires: str) -> None:
    assert "no readable wheel" in refusal(make_wheel(tmp_path, requires=[requires]))


@pytest.mark.parametrize(
    ("tag", "pythons"),
    [
        ("py3-none-any", ["3.10", "3.11", "3.14"]),
        ("cp311-cp311-manylinux_2_28_x86_64", ["3.11"]),
        ("cp310-abi3-manylinux2014_x86_64", ["3.10", "3.11", "3.14"]),
        ("cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", ["3.11", "3.14"]),
        ("py3-none-linux_x86_64", ["3.10", "3.11", "3.14"]),
        ("cp311-cp311-musllinux_1_2_x86_64", []),
        ("cp311-cp311-manylinux_2_28_aarch64", []),
        ("cp311-cp311-win_amd64", []),
        ("cp311-cp311-macosx_11_0_arm64", []),
        ("pp311-pypy311_pp73-manylinux_2_28_x86_64", []),
    ],
)
def test_a_wheel_installs_where_its_tags_say(tmp_path: Path, tag: str, pythons: list[str]) -> None:
    wheel = read_wheel(make_wheel(tmp_path, tag=tag))
    assert [python for python in ("3.10", "3.11", "3.14") if installs_on(wheel, X86, python)] == pythons


def test_a_wheel_for_newer_pythons_does_not_install(tmp_path: Path) -> None:
    wheel = read_wheel(make_wheel(tmp_path, metadata="License: MIT\nRequires-Python: >=3.12\n"))
    assert not installs_on(wheel, X86, "3.11")
    assert installs_on(wheel, X86, "3.12")


def test_the_least_glibc_is_what_all_wheels_accept(tmp_path: Path) -> None:
    tags = [
        "py3-none-any",
        "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
        "cp310-abi3-manylinux2014_x86_64",
    ]
    found = [read_wheel(make_wheel(tmp_path, tag=tag)) for tag in tags]
    assert [least_glibc([each]) for each in found] == [0, 27, 17]
    assert least_glibc(found) == 27
