"""Gauges as a file of the textfile collector of Prometheus' node exporter. Source: Prometheus text exposition format
0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def gauge(name: str, about: str, values: Mapping[str, int]) -> Iterator[str]:
    """The lines of the gauge `comity_NAME`: values by their labels, which `labelled` makes; an empty one has none."""
    yield f"# HELP comity_{name} {about}"
    yield f"# TYPE comity_{name} gauge"
    yield from (f"comity_{name}{label} {value}" for label, value in values.items())


def labelled(label: str, words: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
    """The count of each word by its label; 0 for one that is not counted. Words have no quotes or backslashes."""
    return {f'{{{label}="{word}"}}': counts.get(word, 0) for word in words}


def file_of(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
