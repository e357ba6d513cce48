"""The folder of a release: the same files in, the same bytes out; its lock, its licences and its bill of materials."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from build_release import EXTRAS, build_wheel
from comity_client.release_parts import ProductRelease, read_release_lock
from packaging.requirements import Requirement
from release_folder import ReleaseTargets, manifest_of, requirements_of, stored_wheel, write_release
from support.releases import TARGETS, make_release, write_wheel

ROOT = Path(__file__).resolve().parents[3]
X86 = "cp311-cp311-manylinux_2_28_x86_64"


def test_the_same_files_give_the_same_artifact_in_any_folder(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        first = make_release(tmp_path / "a", "0.2.0", X86)
    finally:
        os.umask(before)
    second = make_release(tmp_path / "another" / "place", "0.2.0", X86)
    assert manifest_of(first).digest == manifest_of(second).digest
    assert manifest_of(first).digest != manifest_of(make_release(tmp_path / "a", "0.2.1", X86)).digest


def test_the_lock_names_the_product_with_its_extras_first_and_only_what_is_there(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "0.2.0")
    text = (folder / "requirements.lock").read_text()
    assert text.startswith("comity[node]==0.2.0 \\\n    --hash=sha256:")
    assert "elsewhere" not in text and text.count("--hash") == 2
    assert [each.name for each in read_release_lock(text.encode())] == ["comity", "needed-one"]


def test_a_release_without_a_wheel_that_its_lock_needs_is_not_written(tmp_path: Path) -> None:
    made = make_release(tmp_path, "0.2.0")
    lock = f"absent==1 \\\n    --hash=sha256:{'2' * 64}\n"
    source, release = tmp_path / "source-0.2.0", json.loads((made / "release.json").read_bytes())
    described = ProductRelease(release["version"], release["commit"], release["time"], ())
    product = next((tmp_path / "built-0.2.0/product").iterdir())
    with pytest.raises(SystemExit, match="no wheel of absent==1"):
        write_release(tmp_path / "out", described, product, tmp_path / "none", lock, source, TARGETS)


def test_requirements_of_other_machines_are_left_out() -> None:
    lock = (
        f"a==1 ; platform_machine == 'aarch64' \\\n    --hash=sha256:{'0' * 64}\n"
        f"b==1 ; python_full_version < '3.12' \\\n    --hash=sha256:{'1' * 64}\n"
        f"c==1 ; sys_platform == 'win32' \\\n    --hash=sha256:{'2' * 64}\n"
    )
    assert [each.name for each in requirements_of(lock, ReleaseTargets("x86_64", ("3.11", "3.13")))] == ["b"]
    assert [each.name for each in requirements_of(lock, ReleaseTargets("aarch64", ("3.13",)))] == ["a"]


def test_the_real_lock_is_read_and_has_the_extras_of_a_release() -> None:
    lock = (ROOT / "requirements/node.txt").read_text()
    found = requirements_of(lock, ReleaseTargets("x86_64", ("3.11",)))
    assert {"cryptography", "grpcio", "psycopg-binary", "boto3", "joserfc"} <= {each.name for each in found}
    assert all(found.values())
    assert (
        f"lock node.txt {' '.join(sorted(EXTRAS, key=['node', 'postgres', 's3', 'oidc'].index))}"
        in (ROOT / "requirements/renew.sh").read_text()
    )


def test_the_bill_has_name_version_package_url_hash_and_licence_of_each_wheel(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "0.2.0", X86)
    bill = json.loads((folder / "bom.cdx.json").read_bytes())
    product, (needed,) = bill["metadata"]["component"], bill["components"]
    assert (product["name"], product["version"]) == ("comity", "0.2.0")
    assert product["licenses"] == [{"expression": "Apache-2.0", "acknowledgement": "declared"}]
    file = next((folder / "wheels").glob("needed*"))
    assert needed["purl"] == f"pkg:pypi/needed-one@1.5?file_name={file.name}"
    assert needed["hashes"] == [
        {"alg": "SHA-256", "content": manifest_of(folder).by_path[f"wheels/{file.name}"].sha256}
    ]
    assert needed["licenses"] == [{"license": {"name": "MIT", "acknowledgement": "declared"}}]
    assert bill["dependencies"] == [
        {"ref": product["purl"], "dependsOn": [needed["purl"]]},
        {"ref": needed["purl"], "dependsOn": []},
    ]
    assert bill["metadata"]["timestamp"] == "2025-11-24T16:00:00Z"


def test_licence_texts_are_there_by_distribution(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "0.2.0")
    assert (folder / "licences/needed-one/LICENSE").read_text() == "the licence of needed_one\n"
    assert (folder / "licences/comity/LICENSE").exists()


def test_a_stored_wheel_has_the_same_files_without_compression(tmp_path: Path) -> None:
    packed = write_wheel(tmp_path / "packed", "a", "1")
    for level in (1, 9):
        again = tmp_path / f"level-{level}.zip"
        with (
            zipfile.ZipFile(packed) as source,
            zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as out,
        ):
            for info in source.infolist():
                out.writestr(info, source.read(info), zipfile.ZIP_DEFLATED)
        stored_wheel(again, tmp_path / f"stored-{level}.whl")
    one, other = (tmp_path / f"stored-{level}.whl" for level in (1, 9))
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive, zipfile.ZipFile(packed) as source:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert all(archive.read(name) == source.read(name) for name in source.namelist())


def test_what_a_requirement_needs_follows_from_extras(tmp_path: Path) -> None:
    assert TARGETS.need(Requirement("a; extra == 'node'"), ("node",))
    assert not TARGETS.need(Requirement("a; extra == 'node'"))


@pytest.mark.long
def test_two_builds_of_the_wheel_are_equal(tmp_path: Path) -> None:
    """From two copies of the tree, by users with other masks; pip fetches the pinned tools."""
    made = []
    for mask in (0o022, 0o077):
        scratch = tmp_path / oct(mask)
        scratch.mkdir()
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
        ).stdout.split("\0")
        before = os.umask(mask)
        try:
            for name in filter(None, listed):
                target = scratch / "source" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((ROOT / name).read_bytes())
            made.append(build_wheel(scratch / "source", scratch, 1_764_000_000).read_bytes())
        finally:
            os.umask(before)
    assert made[0] == made[1]
