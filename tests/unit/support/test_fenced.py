"""The reader of command blocks: which lines are commands, and which are output or another language."""

from __future__ import annotations

from support.fenced import Block, blocks


def test_a_transcript_shows_commands_after_a_dollar_and_what_they_print() -> None:
    block = Block("p", 1, "", "$ comity search x\nx/y@v1\n$ comity pull \\\n  x/y@v1\n")
    assert block.commands == ["comity search x", "comity pull    x/y@v1"]


def test_every_line_of_another_block_except_empty_ones_is_a_command() -> None:
    assert Block("p", 1, "sh", "a b\n\nc\n").commands == ["a b", "c"]


def test_blocks_of_settings_and_code_are_no_commands() -> None:
    found = blocks("docs/gateway.md", "docs/clients/transformers.md")
    assert {block.mark for block in found} <= {"", "sh"}
    assert not any("from transformers import" in block.text for block in found)
    assert [block.number for block in found if block.page == "docs/clients/transformers.md"][:3] == [1, 2, 3]


def test_a_block_knows_the_section_that_it_is_in() -> None:
    found = blocks("docs/operations/repair.md")
    assert [block.section for block in found][:2] == ["Trouble", "A damaged ledger"]
