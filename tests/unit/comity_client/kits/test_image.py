"""Images of kits: made of the kit's own parts on a base, equal each time, and each wrong thing refused in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comity.addons.oci.images import read_image
from comity.content.ingest import ingest
from comity.rules.kits.description import KIT_FILE
from comity.trust.artifact import FileEntry
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.policy import Policy
from comity_client.kits.build import BuiltKit, KitSources, build_kit
from comity_client.kits.check import CheckOptions, KitFolder, check_kit
from comity_client.kits.image import IMAGE_FILE, read_base
from support.debs import PROGRAM, base_text, make_deb
from support.kit_recipes import lock_line, make_recipe, make_wheel


class Made:
    """A recipe, and a base with its package, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, folder / "base.toml"
        self.recipe = make_recipe(folder / "recipe", make_wheel(folder / "wheels"))
        self.deb = make_deb(folder / "packages", PROGRAM)
        self.write_base()
        why = refusal(self.build)
        self.write_base(layer=why.split("has the digest ")[1][:64])

    def write_base(self, **of: str) -> None:
        self.base.write_text(base_text(self.deb, **of))

    def lock(self, *wheels: Path) -> None:
        """Have the recipe lock these wheels of one distribution."""
        (self.recipe / "requirements.lock").write_text(lock_line(*wheels))

    def build(self, name: str = "kit", base: Path | None = None, packages: Path | None = None) -> BuiltKit:
        sources = KitSources(
            (self.folder / "wheels",),
            (self.folder / "weights-of-it",),
            base or self.base,
            (packages or self.folder / "packages",),
        )
        return build_kit(self.recipe, self.folder / name, sources, workers=1)


def refusal(build: Callable[[], BuiltKit], code: str = "KIT-IMAGE") -> str:
    with pytest.raises(ComityError) as refused:
        build()
    assert refused.value.code == code
    return f"{refused.value} {refused.value.hint}"


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def again(kit: BuiltKit, name: str = "again") -> BuiltKit:
    """Build a kit of itself alone."""
    own = KitSources((kit.folder / "wheels",), (kit.folder / "weights",))
    return build_kit(kit.folder, kit.folder.with_name(name), own, workers=1)


def settings(kit: BuiltKit) -> dict[str, object]:
    """The configuration of the image."""

    def blob(item: dict[str, str]) -> dict[str, object]:
        return dict(json.loads((kit.folder / "image/blobs/sha256" / item["digest"][7:]).read_bytes()))

    (item,) = json.loads((kit.folder / "image/index.json").read_bytes())["manifests"]
    return blob(blob(item)["config"])  # type: ignore[arg-type]


def test_two_images_are_equal_and_a_built_kit_needs_no_packages(made: Made) -> None:
    kit = made.build()
    assert kit.manifest == ingest(kit.folder, workers=1, on_progress=lambda _: None).manifest
    second, layer = made.build("second"), made.build("layer", packages=kit.folder / "image/blobs/sha256")
    assert kit.manifest == second.manifest == layer.manifest == again(kit).manifest
    assert KitFolder.read(kit.folder).image_problems() == ()


def test_the_gateway_finds_the_image_whole(made: Made) -> None:
    kit = made.build()

    async def content(file: FileEntry) -> bytes:
        return (kit.folder / file.path).read_bytes()

    image = asyncio.run(read_image(kit.manifest, content))
    assert {f"image/blobs/sha256/{each}" for each in image.blobs} == {
        part.path for part in kit.kit.of_kind("image") if "blobs" in part.path
    }


def test_the_image_starts_the_engine_as_nobody(made: Made) -> None:
    config = settings(made.build())
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["config"] == {
        "Entrypoint": ["/usr/bin/python3.12", "/kit/engine/serve.py", "--port", "8080"],
        "Env": ["HOME=/tmp", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"],
        "ExposedPorts": {"8080/tcp": {}},
        "User": "65534:65534",
        "WorkingDir": "/kit",
    }


def test_the_bill_names_the_packages_of_the_base(made: Made) -> None:
    bill = json.loads((made.build().folder / "bom.cdx.json").read_bytes())
    (package,) = [each for each in bill["components"] if each["bom-ref"].startswith("package:")]
    assert package["purl"] == "pkg:deb/debian/tiny-python@1%3A1.0%2Bb1?arch=amd64"
    assert package["hashes"] == [{"alg": "SHA-256", "content": sha256(made.deb.read_bytes())}]


def test_a_package_that_is_in_no_folder_is_named_with_the_next_command(made: Made) -> None:
    made.deb.write_bytes(made.deb.read_bytes() + b"\n")
    said = refusal(made.build, "KIT-PACKAGES-MISSING")
    assert "1 packages of the base are missing" in said and "apt-get download tiny-python=1:1.0+b1" in said


def test_another_layer_than_the_base_names_is_refused(made: Made) -> None:
    layer = read_base(made.base).layer
    other = made.folder / "layers"
    other.mkdir()
    (other / layer).write_bytes(b"another layer")
    assert "and image.toml names" in refusal(lambda: made.build(packages=other))
    assert not (made.folder / "kit").exists()


@pytest.mark.parametrize(
    ("of", "why"),
    [
        ({"layer": "no digest"}, "64 lower-case hex"),
        ({"python": "3.x"}, "no version of Python"),
        ({"more": "shell = true\n"}, "shell"),
        ({"more": "omit = ["}, "cannot be used"),
        ({"python": "3.13"}, "no wheel of tiny-engine is for CPython 3.13"),
    ],
)
def test_a_base_that_cannot_be_used_is_refused(made: Made, of: dict[str, str], why: str) -> None:
    made.lock(
        *(make_wheel(made.folder / "wheels", tag=f"cp3{minor}-cp3{minor}-manylinux_2_17_x86_64") for minor in (11, 12))
    )
    made.write_base(**{"layer": read_base(made.base).layer, **of})
    assert why in refusal(made.build)


def test_an_image_for_other_machines_or_beside_another_is_refused(made: Made) -> None:
    made.base.write_text(made.base.read_text().replace("x86_64", "aarch64"))
    assert "is for x86_64, and its base for aarch64" in refusal(made.build)
    (made.recipe / "image").mkdir()
    assert "has an image of its own" in refusal(made.build)


def test_two_wheels_of_a_distribution_for_one_python_are_refused(made: Made) -> None:
    wheels = made.folder / "wheels"
    made.lock(wheels / "tiny_engine-1.0-py3-none-any.whl", make_wheel(wheels, tag="cp312-cp312-manylinux_2_17_x86_64"))
    assert "two wheels of tiny-engine are for CPython 3.12" in refusal(made.build)


# --- the check


def changed(kit: BuiltKit, path: str, data: bytes | None) -> KitFolder:
    """The kit with a file of its image changed, added or removed, described as it is now."""
    place = kit.folder / path
    if data is None:
        place.unlink()
    else:
        place.write_bytes(data)
    own = kit.kit.by_path.pop(path, kit.kit.parts[0])
    parts = [part for part in kit.kit.parts if part.path != path]
    if data is not None:
        parts.append(replace(own, path=path, sha256=sha256(data), size=len(data), name="", version="", licence=""))
    described = replace(kit.kit, parts=tuple(sorted(parts, key=lambda part: part.path.encode())))
    (kit.folder / KIT_FILE).write_bytes(described.encode())
    return KitFolder.read(kit.folder)


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("image/index.json", b"{}", "image/index.json is not what"),
        ("image/blobs/sha256/more", b"{}", "image/blobs/sha256/more is not what"),
        ("image/oci-layout", None, "image/oci-layout is missing"),
        ("engine/serve.py", b"print('other')", "is missing"),
        (IMAGE_FILE, b"", "cannot be used"),
    ],
)
def test_a_check_finds_an_image_that_its_parts_do_not_give(
    made: Made, path: str, data: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("comity_client.kits.check.install_kit")
    kit = made.build()
    changed(kit, path, data)
    checked = asyncio.run(check_kit(kit.folder, CheckOptions(Policy(), made.folder / "cache")))
    assert [row.name for row in checked.rows if row.state == "failed"] == ["image"], checked.rows
    assert why in str(checked.rows[3]) or path == IMAGE_FILE


def test_an_image_is_not_checked_after_a_part_that_is_wrong(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("comity_client.kits.check.install_kit")
    kit = made.build()
    (kit.folder / "image" / "index.json").write_bytes(b"{}")
    checked = asyncio.run(check_kit(kit.folder, CheckOptions(Policy(), made.folder / "cache")))
    assert [(row.name, row.state) for row in checked.rows[1:4]] == [
        ("parts", "failed"), ("lock", "not checked"), ("image", "not checked"),
    ]  # fmt: skip
