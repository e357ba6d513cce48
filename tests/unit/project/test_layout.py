"""tests/unit has the folders of the product."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "tests" / "unit"
TOPS = (ROOT / "registry" / "comity", ROOT / "clients")
OF_NO_PACKAGE = {"project", "support"}
"""Folders of tests about the repository as a whole (its documents, its names, what is built from it), and about
`tests/support`."""


def packages() -> set[str]:
    """The product's packages as paths of folders in tests/unit."""
    return {path.parent.relative_to(top).as_posix() for top in TOPS for path in top.rglob("*.py") if path.parent != top}


def folders() -> set[str]:
    return {path.parent.relative_to(UNIT).as_posix() for path in UNIT.rglob("test_*.py")}


def test_each_folder_of_unit_tests_has_the_path_of_a_package() -> None:
    assert folders() - packages() == OF_NO_PACKAGE | {"."}


def test_what_is_beside_the_folders_tests_a_module_beside_the_packages() -> None:
    modules = {path.stem for path in TOPS[0].glob("*.py")}
    tested = {path.stem.removeprefix("test_") for path in UNIT.glob("test_*.py")}
    assert tested <= modules | {"model_sig_folders"}
