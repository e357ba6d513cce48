"""The mutation runner, on a module of a few lines with a strong and a weak test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mutation.mutants import Source
from mutation.run import SUITES, covering_tests, equivalent, sources

RUN = Path(__file__).with_name("run.py")
MODULE = '''
def enough(votes, threshold):
    """Whether at least `threshold` members voted."""
    if len(set(votes)) >= threshold:
        return True
    return False


class Ages:
    def oldest(self, ages):
        return max(ages)
'''
STRONG = """
from voting import Ages, enough

def test_enough():
    assert enough([1, 2], 2) and not enough([1, 1], 2)

def test_oldest():
    assert Ages().oldest([1, 3, 2]) == 3
"""
WEAK = STRONG.replace("[1, 1], 2", "[], 1")


def measured(folder: Path, tests: str, *options: str, module: str = MODULE) -> tuple[int, dict[str, Any]]:
    (folder / "voting.py").write_text(module)
    (folder / "test_voting.py").write_text(tests)
    modules = ["--modules", str(folder / "voting.py"), "--tests", str(folder / "test_voting.py")]
    found = folder / "found.json"
    status = subprocess.run(
        [sys.executable, str(RUN), *modules, "--out", str(found), *options],
        env={**os.environ, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
    ).returncode
    return status, json.loads(found.read_text()) if found.exists() else {}


def survivors(result: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(each["function"], each["before"], each["after"]) for each in result["survivors"]}


def test_a_strong_test_notices_every_mutant(tmp_path: Path) -> None:
    status, result = measured(tmp_path, STRONG, "--floor", "100")
    assert status == 0
    assert result["scores"]["all"] == {"mutants": 7, "killed": 7, "percent": 100}
    assert not survivors(result)


def test_a_mutant_survives_a_weak_test(tmp_path: Path) -> None:
    status, result = measured(tmp_path, WEAK, "--floor", "100")
    line = "if len(set(votes)) >= threshold:"
    assert status == 1
    assert survivors(result) == {("enough", line, line.replace("threshold", "1"))}


def test_survivors_are_tried_again_alone(tmp_path: Path) -> None:
    assert measured(tmp_path, WEAK, "--floor", "50")[0] == 0, "the floor allows a survivor"
    earlier = tmp_path / "earlier.json"
    (tmp_path / "found.json").rename(earlier)
    status, result = measured(tmp_path, STRONG, "--again", str(earlier))
    assert status == 0 and result["scores"]["all"] == {"mutants": 1, "killed": 1, "percent": 100}


def test_a_test_that_fails_without_a_change_ends_the_run(tmp_path: Path) -> None:
    assert measured(tmp_path, STRONG.replace("== 3", "== 2")) == (2, {})


def test_endless_loops_count_as_noticed(tmp_path: Path) -> None:
    module = "def count(n):\n    while n != 0:\n        n -= 1\n    return n\n"
    tests = "from voting import count\n\ndef test_count():\n    assert count(3) == 0\n"
    status, result = measured(tmp_path, tests, "--floor", "100", "--spare", "0.3", module=module)
    assert status == 0 and "n += 1" in {each["after"] for each in result["results"]}


def test_a_call_that_is_the_only_use_of_a_variable_outside_can_be_left_out(tmp_path: Path) -> None:
    module = (
        "class Wrong(Exception):\n    def __init__(self, why):\n        super().__init__(why)\n        self.why = why\n"
    )
    tests = "from voting import Wrong\n\ndef test_wrong():\n    assert Wrong('x').why == 'x'\n"
    status, result = measured(tmp_path, tests, "--floor", "0", module=module)
    assert (status, survivors(result)) == (0, {("Wrong.__init__", "super().__init__(why)", "pass")})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("return a >= b", {"return a > b", "return a >= 1", "return not a >= b"}),
        ("return a and b and c", {"return b and c", "return a and c", "return a and b"}),
        ("return not a", {"return a"}),
        ("x = any(y for y in a if y)", {"x = all((y for y in a if y))", "x = any((y for y in a))"}),
        ("x = sorted(a, key=b)", {"x = list(a)"}),
        ("x = a[:b]", {"x = a[:b + 1]", "x = a[:b - 1]"}),
        ("x = 5", {"x = 6", "x = 4"}),
        ("return g(n, least=0)", {"return g(n, least=1)"}),
        ("x = {**a, 'b': True}", {"x = {**a, 'b': False}"}),
        ("if a:\n  raise b", {"if True:", "if False:"}),
        ("if a:\n  b = c\n  raise b", {"if True:", "if False:", "pass"}),
        ("x: Literal[3] = b", set()),
        ("log.info('text', size=1)", set()),
        ("x = f'{a + b}' + 'c'", set()),
        ("a.check(b)", {"pass"}),
        ("for a in b:\n  continue", {"break"}),
    ],
)
def test_every_kind_of_mutant_is_made(tmp_path: Path, code: str, changes: set[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n" + "".join(f"  {line}\n" for line in code.splitlines()))
    assert {mutant.after for mutant in Source(path, "module.py").mutants()} == changes


def test_each_mutant_listed_as_equivalent_has_a_reason() -> None:
    modules = {source.name for suite in SUITES for source in sources(suite.modules)}
    assert all(key[0] in modules and reason for key, reason in equivalent().items())


def test_a_module_is_measured_by_the_covering_tests_it_or_its_folder() -> None:
    trust, rules = "registry/comity/trust", "registry/comity/rules"
    (audit,) = (suite for suite in SUITES if f"{rules}/audit.py" in suite.modules)
    (tlog,) = (suite for suite in SUITES if f"{trust}/tlog" in suite.modules)
    assert covering_tests([f"{rules}/audit.py"]) == audit.tests
    assert covering_tests([f"{trust}/tlog/note.py", f"{rules}/audit.py"]) == (*tlog.tests, *audit.tests)
    assert covering_tests(["registry/comity/wire/client.py"]) == ()
    assert all((RUN.parents[2] / test).exists() for suite in SUITES for test in suite.tests)
