"""Which test modules need an add-on: in a core without the folder `comity/addons` they are not collected."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ADDONS: Final = find_spec("comity.addons") is not None
"""Whether this is a product with add-ons."""
_TESTS: Final = Path(__file__).resolve().parents[1]
_SUPPORT: Final = re.compile(r"^\s*from (support|fuzz)(?:\.(\w+))? import ([\w, ]+|\()", re.MULTILINE)


@cache
def needs_addons(module: Path) -> bool:
    """Whether a module of the tests imports an add-on, or a part of the tests that does."""
    text = module.read_text("utf-8")
    if "comity.addons" in text or "from comity import addons" in text:
        return True
    named = ((folder, part or each) for folder, part, many in _SUPPORT.findall(text) for each in many.split(", "))
    parts = {_TESTS / folder / f"{part}.py" for folder, part in named} - {module}
    return any(needs_addons(part) for part in parts if part.exists())


ASKED: Final = (
    "tests/integration/test_gateway_access.py::test_the_security_page_says_who_may_ask_each_route",
    "tests/integration/test_gateway_hub.py::test_a_policy_that_changes_counts_without_a_restart",
    "tests/integration/test_gateway_hub.py::test_a_private_node_refuses_a_list_without_its_token_in_words",
    "tests/integration/test_lost_keys.py::test_a_pull_and_a_gateway_refuse_it_in_the_same_words",
    "tests/integration/test_one_answer.py::test_every_way_to_an_artifact_gives_the_same_answer",
    "tests/interop/test_gguf_clients.py::test_ollama_pulls_the_file_of_its_tag",
    "tests/interop/test_gguf_clients.py::test_older_llama_cpp_reads_the_files_name_in_the_manifest",
    "tests/interop/test_oci_clients.py",
    "tests/mutation/test_mutation.py::test_each_mutant_listed_as_equivalent_has_a_reason",
    "tests/unit/comity_cli/test_command_line.py::test_a_folder_that_is_not_there_is_called_a_folder",
    "tests/unit/project/test_docs.py::test_every_command",
    "tests/unit/project/test_docs.py::test_the_generated_parts_match_the_source",
    "tests/unit/project/test_layout.py::test_each_folder_of_unit_tests_has_the_path_of_a_package",
    "tests/unit/project/test_packaging.py::test_a_light_installation_compares_copies",
    "tests/unit/project/test_packaging.py::test_every_requirement_is_imported_somewhere",
)
"""Tests that ask an add-on, by a door of the gateway or a command, in modules that import none."""
