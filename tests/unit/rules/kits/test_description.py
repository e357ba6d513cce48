"""What `kit.json` must say, and what it is refused for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.kits.description import (
    BOM_FILE,
    IMAGE,
    KIT_FILE,
    LICENCE,
    LOCK_FILE,
    SELFTEST_FILE,
    WEIGHTS,
    WHEEL,
    Kit,
    KitPlatform,
    KitWeightFile,
    KitWeights,
)
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Malformed
from support.kits import ENGINE, WEIGHT_FILE, WHEEL_FILE, a_kit, a_part


def test_a_kit_is_read_as_it_was_written() -> None:
    kit = a_kit()
    assert Kit.parse(kit.encode()) == kit
    assert kit.artifacts == (sha256(b"model"),)
    assert [part.path for part in kit.of_kind(WHEEL)] == [WHEEL_FILE]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (WHEEL_FILE, WHEEL),
        (WEIGHT_FILE, WEIGHTS),
        ("licences/a-1/LICENSE", LICENCE),
        ("image/blobs/sha256/aa", IMAGE),
        (LOCK_FILE, "lock"),
        (SELFTEST_FILE, "cases"),
        ("samples.json", "cases"),
        (BOM_FILE, "bom"),
        ("README.md", "document"),
        ("engine/wheels/x.whl", "engine"),
    ],
)
def test_the_path_of_a_part_says_what_it_is(path: str, kind: str) -> None:
    assert a_part(path).kind == kind


@pytest.mark.parametrize(
    "path",
    [
        KIT_FILE,
        "wheels",
        "bin/engine",
        "wheels/a.tar.gz",
        "wheels/a/b.whl",
        "wheels/a b.whl",
        "../x",
        "engine/../x",
        "/x",
    ],
)
def test_a_path_that_no_kit_has_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Kit.parse(a_kit().encode().replace(b"engine/serve.py", path.encode()))
    if not path.startswith((".", "/", "engine")):
        with pytest.raises(Malformed):
            a_part(path)


@pytest.mark.parametrize("missing", [BOM_FILE, SELFTEST_FILE, LOCK_FILE, WHEEL_FILE, WEIGHT_FILE])
def test_a_kit_without_a_part_that_it_needs_is_refused(missing: str) -> None:
    with pytest.raises(Malformed):
        a_kit(without=missing)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/bin/sh", "-c", "x"), "begins with"),
        (("python3", "{kit}/x"), "begins with"),
        (("{kit}",), "begins with"),
        (("{python}", "{home}"), "'{home}'"),
        (("{python}", "{kit"), "'{'"),
        (("{python}", "{{kit}}"), "'{'"),
    ],
)
def test_a_command_that_starts_nothing_of_the_kit_is_refused(command: tuple[str, ...], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        replace(ENGINE, command=command)


def test_a_kit_needs_a_command_or_an_image() -> None:
    silent = replace(ENGINE, command=())
    with pytest.raises(Malformed, match="neither a command nor an image"):
        a_kit(engine=silent)
    assert a_kit("image/index.json", engine=silent).of_kind(IMAGE)


def test_a_kit_with_wheels_names_a_python() -> None:
    with pytest.raises(Malformed, match="names no Python"):
        a_kit(platform=KitPlatform("linux", "any", "", ()))


def test_parts_in_another_order_or_twice_are_refused() -> None:
    kit = a_kit()
    with pytest.raises(Malformed, match="order"):
        replace(kit, parts=kit.parts[::-1])
    with pytest.raises(Malformed):
        replace(kit, parts=(kit.parts[0], *kit.parts))


def test_weights_are_named_once_and_are_parts() -> None:
    here = KitWeightFile(WEIGHT_FILE, "tiny.gguf")
    for files in ((here, here), (KitWeightFile("weights/other", "x"),), (here, KitWeightFile("engine/serve.py", "x"))):
        with pytest.raises(Malformed, match="weights"):
            a_kit(weights=(KitWeights("", "", files),))
    assert a_kit(weights=(KitWeights("", "", (here,)),)).artifacts == ()


@pytest.mark.parametrize("name", ["", "Tiny", "-a", "a-", "a/b", "a b", "a" * 65])
def test_a_name_that_is_no_name_of_a_kit_is_refused(name: str) -> None:
    document = a_kit().to_json()
    with pytest.raises(Malformed):
        Kit.parse(canonical({**document, "name": name}))


def test_a_description_in_another_form_is_refused() -> None:
    data = a_kit().encode()
    for other in (b" " + data, data + b"\n", b"[]", b"", data.replace(b"kit/v1", b"kit/v2")):
        with pytest.raises(Malformed):
            Kit.parse(other)
