"""The files of an artifact compared with those that its `kit.json` names."""

from __future__ import annotations

from dataclasses import replace

from comity.rules.kits.contents import kit_problems, lock_problems
from comity.rules.kits.description import KIT_FILE
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256, short
from support.kits import WEIGHT_FILE, WHEEL_FILE, a_kit, manifest_of


def changed(path: str, *with_: FileEntry) -> Manifest:
    return Manifest.of([*(entry for entry in manifest_of(a_kit()).files if entry.path != path), *with_])


def test_a_whole_kit_has_no_problem() -> None:
    assert kit_problems(a_kit(), manifest_of(a_kit())) == ()


def test_a_missing_part_is_named() -> None:
    assert kit_problems(a_kit(), changed(WHEEL_FILE)) == (f"{WHEEL_FILE} is missing",)
    assert kit_problems(a_kit(), changed(KIT_FILE)) == (f"{KIT_FILE} is missing",)


def test_a_part_of_another_size_or_digest_is_named() -> None:
    entry = manifest_of(a_kit()).by_path[WEIGHT_FILE]
    (problem,) = kit_problems(a_kit(), changed(WEIGHT_FILE, replace(entry, size=entry.size + 1)))
    assert problem == f"{WEIGHT_FILE} has {entry.size + 1} bytes, not {entry.size}"
    (problem,) = kit_problems(a_kit(), changed(WEIGHT_FILE, replace(entry, sha256=sha256(b"other"))))
    assert problem.startswith(f"{WEIGHT_FILE} has the digest d9298a")


def test_a_file_that_no_part_names_is_named() -> None:
    extra = FileEntry("engine/start.sh", 1, sha256(b"x"))
    assert kit_problems(a_kit(), changed("", extra)) == ("engine/start.sh is no part of the kit",)


def test_a_lock_and_the_wheels_name_each_other() -> None:
    wheel = a_kit().by_path[WHEEL_FILE]
    assert lock_problems(a_kit(), {wheel.sha256: "engine 1.0"}) == ()
    other = sha256(b"another wheel")
    missing, unnamed = lock_problems(a_kit(), {other: "engine 1.0"})
    assert missing == f"engine 1.0: no wheel has the hash {short(other)}" and unnamed == f"{WHEEL_FILE} is not locked"
