"""Rules about the form of the code: tests/unit has the folders of the product, and no function has many parameters."""

from __future__ import annotations

import ast
import re
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


MOST_PARAMETERS = 7
WITH_MORE = {
    "clients/comity_client/client.py publish": "the API of users: its keywords stay",
    "clients/comity_client/client.py import_upstream": "the API of users: its keywords stay",
    "clients/comity_client/pull/offline.py local_answer": "what a pull knows where no node answers",
    "registry/comity/trust/evaluation.py judge_evaluations": "what a verifier was given",
    "registry/comity/trust/verify.py _conclude": "what a verdict follows from, in one place",
}
"""Functions with more parameters, and why."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of the parameters, without `self`, `cls`, and those that stand for any number."""
    found = function.args
    names = [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_function_has_more_parameters_than_a_reader_keeps_apart() -> None:
    """A command whose options are more gets them as one value: `comity_cli.command.options_as`."""
    paths = (path for top in TOPS for path in top.rglob("*.py") if "_pb2" not in path.name)
    found = {
        f"{path.relative_to(ROOT)} {node.name}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(parameters(node)) > MOST_PARAMETERS
    }
    assert sorted(found - WITH_MORE.keys()) == []


def test_values_that_do_not_change_are_declared_in_one_way() -> None:
    """Each declaration by `dataclasses` costs every command that imports it: `comity.trust.frozen` says what."""
    declared = re.compile(r"^\s*@(dataclasses\.)?dataclass\(frozen=True, slots=True\)$", re.MULTILINE)
    found = [path for top in TOPS for path in top.rglob("*.py") if declared.search(path.read_text("utf-8"))]
    assert found == []
