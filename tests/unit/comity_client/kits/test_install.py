"""What a lock names is installed from the kit alone; a half-made or changed installation is not used."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.kits.description import LOCK_FILE, KitPlatform
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Unavailable, Untrusted
from comity_client.kits import install
from comity_client.kits.install import InstalledKit, install_kit, python_for
from comity_client.kits.isolation import namespace
from support.small_kit import WHEEL, write_small_kit


def says(installed: InstalledKit) -> str:
    code = "import small_words; print(small_words.answer('two and two'))"
    return subprocess.run([installed.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_an_installation_is_kept_until_it_changes(tmp_path: Path) -> None:
    folder, cache = tmp_path / "kit", tmp_path / "cache"
    kit = write_small_kit(folder)
    half_made = cache / sha256(kit.encode()) / f"python-{python_for(kit).version}"
    half_made.mkdir(parents=True)
    first = install_kit(folder, kit, cache)
    assert (first.folder, first.reused, first.changed) == (half_made, False, False)
    assert (says(first), first.isolated) == ("Four.", namespace("--net") is not None)
    shutil.rmtree(folder / "wheels")
    second = install_kit(folder, kit, cache)
    assert (second.reused, second.changed, second.proof) == (True, False, first.proof)
    (words,) = second.folder.rglob("small_words.py")
    words.write_text("def answer(question):\n    return 'Five.'\n")
    write_small_kit(folder)
    third = install_kit(folder, kit, cache)
    assert (third.reused, third.changed, says(third)) == (False, True, "Four.")


@pytest.mark.parametrize("change", ["missing wheel", "other bytes", "hash", "no wheel"])
def test_wheels_that_are_not_those_of_the_lock_are_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "kit"
    kit = write_small_kit(folder)
    if change == "missing wheel":
        lock = f"other==1.0 --hash=sha256:{'0' * 64}\n"
        kit = write_small_kit(folder, others={LOCK_FILE: (folder / LOCK_FILE).read_bytes() + lock.encode()})
    elif change == "other bytes":
        with (folder / WHEEL).open("ab") as wheel:
            wheel.write(b"\0")
    elif change == "hash":
        (folder / LOCK_FILE).write_text(f"small-words==1.0 --hash=sha256:{'0' * 64}\n")
    else:
        (folder / WHEEL).write_bytes(b"no archive")
    with pytest.raises(Untrusted) as refused:
        install_kit(folder, kit, tmp_path / "cache")
    assert refused.value.code == "KIT-INSTALL" and refused.value.why
    assert not list((tmp_path / "cache").glob("*/python-*"))


def test_a_kit_for_other_machines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = write_small_kit(tmp_path / "kit")
    monkeypatch.setattr(install.platform, "machine", lambda: "riscv64")  # type: ignore[attr-defined]
    for platform in (KitPlatform("any", "x86_64", "", kit.platform.python), KitPlatform("any", "any", "", ("3.99",))):
        with pytest.raises(Unavailable) as refused:
            python_for(replace(kit, platform=platform))
        assert refused.value.code == "KIT-PLATFORM"


@pytest.mark.parametrize(("missing", "kind"), [("room", OutOfSpace), ("pip", NotFound)])
def test_what_the_machine_lacks_is_named(
    tmp_path: Path, missing: str, kind: type[ComityError], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = write_small_kit(tmp_path / "kit")
    if missing == "room":
        usage = shutil.disk_usage(tmp_path)._replace(free=1)
        monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage)  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(install, "find_spec", lambda name: None)
    with pytest.raises(kind):
        install_kit(tmp_path / "kit", kit, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/python-*"))
