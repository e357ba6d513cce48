"""The engine of a new recipe really answers, as its self-test expects, and refuses what it does not understand."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.kits.cases import KitCases, judge_answer
from comity.trust.encoding import canonical, parse_json
from comity_client.kits.starting import SHAPES, start_recipe
from support.ports import free_port, wait_until_listening


@pytest.fixture(params=SHAPES)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    start_recipe(tmp_path / "recipe", "tiny", request.param)
    return tmp_path / "recipe"


@pytest.fixture
def port(recipe: Path) -> Iterator[int]:
    """Where the engine listens."""
    port = free_port()
    with subprocess.Popen([sys.executable, recipe / "engine" / "serve.py", "--port", str(port)]) as engine:
        wait_until_listening(port, engine)
        yield port
        engine.kill()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_engine_of_a_new_recipe_passes_its_self_test(recipe: Path, port: int) -> None:
    cases = KitCases.from_json(parse_json((recipe / "selftest.json").read_bytes(), limit=1 << 20)).cases
    for case in cases:
        body = None if case.body is None else canonical(case.body)
        assert judge_answer(case, *ask(port, case.method, case.path, body)) == ()
    asked = cases[-1].path
    for data in (b"", b"[]", b"{}", b"\xff", b'{"messages": [], "input": 7}'):
        assert ask(port, "POST", asked, data)[0] == 400
    assert ask(port, "GET", "/none")[0] == ask(port, "POST", "/none", b"{}")[0] == 404
