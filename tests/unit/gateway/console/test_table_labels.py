"""Cells of tables carry the title of their column, which a narrow window shows."""

from __future__ import annotations

from comity.gateway.console.table_labels import labelled_tables

HEAD = '<table><thead><tr><th scope="col">Name</th><th scope="col" class="number">Size <b>"x"</b></th></tr></thead>'


def test_each_cell_has_the_title_of_its_column() -> None:
    page = f'{HEAD}\n<tbody>\n<tr><th scope="row">a</th><td class="number">1</td></tr>\n</tbody></table>'
    shown = labelled_tables(page)
    assert '<th data-label="Name" scope="row">a</th>' in shown
    assert '<td data-label="Size &quot;x&quot;" class="number">1</td>' in shown
    assert shown.count("data-label") == 2


def test_a_row_over_all_columns_and_a_table_without_a_head_stay_as_they_are() -> None:
    wide = f'{HEAD}<tbody><tr><td colspan="2">No statement.</td></tr></tbody></table>'
    plain = "<table><tbody><tr><td>a</td></tr></tbody></table>"
    assert "data-label" not in labelled_tables(wide + plain)


def test_a_value_with_the_marks_of_a_cell_is_no_cell() -> None:
    page = f"{HEAD}<tbody><tr><td>&lt;td&gt;</td><td>&lt;/tr&gt;</td></tr></tbody></table>"
    assert labelled_tables(page).count("data-label") == 2


def test_a_head_without_a_body_gives_its_titles_to_no_other_table() -> None:
    alone = "<table><thead><tr><th>Other</th><th>More</th></tr></thead></table>"
    page = f"{alone * 3}{HEAD}<tbody><tr><td>a</td><td>1</td></tr></tbody></table>"
    shown = labelled_tables(page)
    assert shown.startswith(alone * 3)
    assert 'data-label="Name"' in shown and 'data-label="Other' not in shown
