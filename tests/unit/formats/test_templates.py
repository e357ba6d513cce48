"""Chat templates: what is named of ordinary ones, and the spellings of names with which a sandbox would be left."""

from __future__ import annotations

import pytest
from comity.formats.source import NotInspected, Work
from comity.formats.templates import MAX_NAMED, MAX_TEMPLATE, PASSES, STEPS_OF_TEMPLATE, active_in_template

CHAT = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message['content'] | trim + '<|im_end|>' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"""


def found(template: str | bytes) -> list[str]:
    text = template if isinstance(template, bytes) else template.encode()
    return list(active_in_template(text, Work()))


def escapes(template: str) -> bool:
    first, *more = found(template)
    assert first.startswith("chat-template") and all(each.startswith("template-escape: ") for each in more)
    return bool(more)


def test_what_an_ordinary_template_loops_over_and_reads_is_named() -> None:
    assert found(CHAT) == ["chat-template: loops over messages; reads content, role"]
    assert found("plain text of a.b [c]") == ["chat-template"]
    assert found("{% for a, b in tools.items %}{% endfor %}") == ["chat-template: loops over tools.items; reads items"]
    assert found("{{ 'for x in secrets' }}") == ["chat-template"]  # a text, and no loop


@pytest.mark.parametrize("count", [MAX_NAMED, MAX_NAMED + 1, MAX_NAMED + 20])
def test_only_so_many_attributes_are_named(count: int) -> None:
    names = [f"a{number:02}" for number in range(count)]
    more = f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""
    assert found("{{ " + " + ".join(f"m.{name}" for name in names) + " }}") == [
        f"chat-template: reads {', '.join(names[:MAX_NAMED])}{more}"
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''['__cl' + 'ass__'] }}",
        "{{ ''['__cl' ~ 'ass__'] }}",
        "{{ ''['__cl' 'ass__'] }}",
        "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
        "{{ ''['\\u005f\\u005fclass__'] }}",
        "{{ ''['\\U0000005f_class__'] }}",
        "{{ ''['\\137\\137class__'] }}",
        "{{ ''['\\N{LOW LINE}_class__'] }}",
        "{{ ''|attr('x') }}",
        "{{ '' |  attr ('x') }}",
        "{{ lipsum }}",
        "{{ cycler.next }}",
        "{{ joiner }}",
        "{{ namespace['x'] }}",
        "{{ self._x }}",
        "{{ self . _x }}",
        "{{ os.system('x') }}",
        "{{ os . popen('x') }}",
        "{{ ''.mro }}",
        "{{ '{}'.format_map(x) }}",
        "{{ x.gi_frame }}",
        "{{ x.f_globals }}",
        "{{ '__' + x + '__' }}",
        "{{ x ~ '__' }}",
        "{{ '___' }}",
        "{{ '_' + x }}",
        "{{ '__init' ~ x }}",
        "{{ '%c%c' % (95, 95) }}",
        "{{ x | map(attribute='_y') }}",
        "{{ x|selectattr('a_b') }}",
        "{{ x.__self__ }}",
        "{% set x = ''.__class__",  # without an end
        "{% set x = y ~ '__' ",
        "{{ x.__reduce_ex__ }}",
    ],
)
def test_a_spelling_of_an_internal_name_is_an_escape(template: str) -> None:
    assert escapes(template)


@pytest.mark.parametrize(
    "template",
    [
        CHAT,
        "{{ self_attention }}{{ cyclers }}",
        "{{ x.class }}",
        "{{ x|map('upper')|list }}{{ x_y }}",
        "{{ x|map('upper') }} a_b",
        "text of '__' + x outside of the delimiters",
        "{{ message.tool_calls }}",
        "{{ namespace(found=false) }}",
        "{{ x.os.name }}",
        "{{ '\\U00110000' }}",
        "{{ '\\N{BULLET}' }}",
    ],
)
def test_ordinary_names_are_none(template: str) -> None:
    assert not escapes(template)


def test_the_name_of_an_escape_is_quoted_to_a_length() -> None:
    assert found("{{ ''.__class__ }}")[1] == "template-escape: __class__"
    assert found("{{ x ~ '__" + "a" * 100 + "__' }}")[1].startswith("template-escape: it builds a name with ~ '__aaa")
    assert len(found("{{ '__" + "a" * 100 + "__' ~ x }}")[1]) == len("template-escape: it builds a name with ") + 40


def test_a_template_has_a_length_and_takes_steps() -> None:
    with pytest.raises(NotInspected, match=f"more than {MAX_TEMPLATE >> 10} KiB"):
        found(b"x" * (MAX_TEMPLATE + 1))
    assert found(b"x" * MAX_TEMPLATE) == ["chat-template"]
    needed = STEPS_OF_TEMPLATE + 1 + PASSES * 4096 // 256
    assert list(active_in_template(b"x" * 4096, Work(steps=needed))) == ["chat-template"]
    with pytest.raises(NotInspected):
        list(active_in_template(b"x" * 4096, Work(steps=needed - 1)))


def test_bytes_that_are_no_text_are_read_on() -> None:
    assert found(b"\xff{{ ''.__class__ }}\xfe")[1:] == ["template-escape: __class__"]
