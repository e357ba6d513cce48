"""Tables and Zarr: what their descriptions name that a library would make is found, and they are read to their end."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from comity.formats.datasets import MAX_NESTED
from comity.formats.inspect import inspect
from comity.trust.evidence import Inspection
from hypothesis import given, settings
from hypothesis import strategies as st
from support import made_tables as tables
from support.examples import examples
from support.made_tables import SPARK, arrow_file, arrow_schema, field, message, parquet, schema, stream, table

SAFE = [field("arrow.uuid", [field("geoarrow.point")]), field()]
SAMPLES = {
    "a.parquet": parquet(arrow_schema(SAFE)),
    "f.arrow": arrow_file(SAFE),
    "s.arrow": stream(SAFE) + b"\xff" * 4 + bytes(4),
}


def seen(data: bytes, path: str = "train.parquet") -> Inspection:
    return inspect(io.BytesIO(data), path, len(data))


def is_clean(found: Inspection) -> bool:
    return not found.active and not found.malformed


@pytest.mark.parametrize("path", SAMPLES)
def test_a_table_of_known_types_is_clean(path: str) -> None:
    assert seen(SAMPLES[path], path) == Inspection("table")


@pytest.mark.parametrize("name", ["arrow.py_extension_type", "ray.data.arrow_pickled_object"])
@pytest.mark.parametrize("kind", ["parquet", "file", "footer", "stream"])
def test_a_type_that_is_a_pickle_is_found_at_any_level(name: str, kind: str) -> None:
    fields = [field("", [field("arrow.uuid", [field(name)])])]
    data = {
        "parquet": lambda: parquet(arrow_schema(fields)),
        "file": lambda: arrow_file(fields, SAFE),
        "footer": lambda: arrow_file(SAFE, fields),
        "stream": lambda: stream(fields),
    }[kind]()
    assert seen(data).active == (f"pickle: the type {name}",)


def test_a_type_of_another_package_is_named() -> None:
    assert seen(stream([field("lab.type")])).active == ("custom-operator: the type lab.type",)


@pytest.mark.parametrize(
    ("key", "value", "active"),
    [
        (SPARK, b'{"type":"udt","class":"org.apache.spark.ml.V","pyClass":"pyspark.ml.V"}', ()),
        (SPARK, b'{"a":[{"p\\u0079Class":"lab.V"}]}', ("remote-code: lab.V in the schema of Spark",)),
        (SPARK, b'{"class":"lab.V","class":1}', ("remote-code: lab.V in the schema of Spark",)),
        (SPARK, b'{"serializedClass":"gASV"}', ("pickle: a class in the schema of Spark",)),
        (SPARK, b"StructType(", ("not-inspected: a schema that is not JSON",)),
        (SPARK, b"[" * 100_000, ("not-inspected: a schema that is not JSON",)),
        (SPARK, b"[" * 300_000, ("not-inspected: a schema in JSON that is too large",)),
        (b"parquet.avro.schema", b'{"java-class":"lab.V"}', ("remote-code: lab.V in the schema of Avro",)),
        (b"pandas", b'{"pyClass":"lab.V"}', ()),
    ],
)
def test_a_class_that_a_reader_of_parquet_makes_is_named(key: bytes, value: bytes, active: tuple[str, ...]) -> None:
    assert seen(parquet({key: value})) == Inspection("table", active)


def test_the_second_of_two_equal_keys_is_read_too() -> None:
    pairs = [{1: SPARK, 2: b"{}"}, {2: b'{"pyClass":"lab.V"}', 1: SPARK}]
    assert seen(parquet({}, more={5: pairs})).active == ("remote-code: lab.V in the schema of Spark",)


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (parquet({}, chunk={3: {7: 101, 9: 4 + 100}}), "a column outside the file"),
        (parquet({}, chunk={3: {7: 50, 9: 60, 11: 2}}), "a column outside the file"),
        (parquet({}, chunk={3: {7: -1, 9: 4}}), "a column outside the file"),
        (parquet({}, chunk={2: 4}), "a column without a place"),
        (parquet({}, chunk={1: b"../other", 3: {7: 9, 9: 4}}), "a column outside the folder: '../other'"),
        (parquet({b"ARROW:schema": b"!"}), "the schema of Arrow is not base64"),
        (b"PAR1" + tables.thrift({1: 1}) + b"\0" + struct.pack("<L", 5) + b"PAR1", "1 bytes after its footer"),
        (b"PAR1" + struct.pack("<L", 99) + b"PAR1", "the footer begins before the file"),
        (b"PAR1" + b"\x1d\0" + struct.pack("<L", 2) + b"PAR1", "a value of an unknown type in its footer"),
    ],
)
def test_a_footer_that_does_not_describe_the_file_is_malformed(data: bytes, finding: str) -> None:
    assert seen(data) == Inspection("table", malformed=(f"parquet: {finding}",))


def test_a_column_in_another_file_of_the_folder_is_none_of_this_file() -> None:
    assert is_clean(seen(parquet({}, chunk={1: b"part-0.parquet", 3: {7: 10**9, 9: 4}})))
    assert is_clean(seen(parquet({}, chunk={3: {7: 0, 9: 0}})))


def test_what_is_not_read_is_a_finding() -> None:
    assert seen(parquet({}, more={8: {1: {}}})).active == ("not-inspected: an encrypted table",)
    deep = b"\x1c" * 70 + bytes(71)
    data = b"PAR1" + deep + struct.pack("<L", len(deep)) + b"PAR1"
    assert seen(data).active == (f"not-inspected: a footer of more than {MAX_NESTED} levels",)
    nested = field()
    for _ in range(70):
        nested = field("", [nested])
    assert seen(stream([nested])).active == (f"not-inspected: a schema of more than {MAX_NESTED} levels",)


@pytest.mark.slow
def test_fields_that_share_fields_end_at_the_steps_of_an_inspection() -> None:
    data = message(1, tables.shared_fields(40))
    inspected = inspect(io.BytesIO(data), "a.arrow", len(data))
    assert inspected.active == ("not-inspected: it takes more steps than one inspection makes",)


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (stream(SAFE) + b"\xff" * 4 + bytes(4) + b"x", "1 bytes after its end"),
        (stream(SAFE) + message(1, schema(SAFE)), "a message that is no batch"),
        (stream(SAFE)[:-1], "a batch outside the file"),
        (arrow_file(SAFE, offset=10**9), "a batch outside the file"),
        (arrow_file(SAFE, offset=0), "a batch outside the file"),
        (arrow_file(SAFE)[:-1], "it has no end"),
    ],
)
def test_arrow_that_ends_elsewhere_is_malformed(data: bytes, finding: str) -> None:
    assert seen(data, "a.arrow") == Inspection("table", malformed=(f"arrow: {finding}",))


def test_a_stream_without_a_schema_is_unknown() -> None:
    assert seen(message(3, table({}), 64), "a.arrow").active == ("unknown",)


@pytest.mark.parametrize("path", SAMPLES)
def test_a_table_that_is_a_zip_as_well_has_two_readings(path: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "text")
    assert not is_clean(seen(SAMPLES[path] + packed.getvalue(), path))


@given(sample=st.sampled_from(sorted(SAMPLES)), data=st.data())
@settings(max_examples=examples(80))
def test_a_table_that_was_changed_is_answered_within_the_limits(sample: str, data: st.DataObject) -> None:
    whole = bytearray(SAMPLES[sample])
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    seen(bytes(whole), sample)
    cut = data.draw(st.integers(8, len(SAMPLES[sample]) - 1))
    found = seen(SAMPLES[sample][:cut], sample)
    if not sample.startswith("s"):  # a stream may end after any batch
        assert not is_clean(found)


@pytest.mark.parametrize(
    ("name", "text", "active"),
    [
        (".zarray", '{"compressor":{"id":"blosc"},"filters":[{"id":"delta"}]}', ()),
        (".zarray", '{"compressor":null,"filters":[{"id":"pickle"}]}', ("pickle: the codec pickle",)),
        (".zarray", '{"filters":[{"id":"\\u0070ickle"}]}', ("pickle: the codec pickle",)),
        (".zmetadata", '{"metadata":{"x/.zarray":{"compressor":{"id":"lab"}}}}', ("custom-operator: the codec lab",)),
        ("zarr.json", '{"codecs":[{"name":"bytes"},{"name":"numcodecs.zlib"}],"storage_transformers":[]}', ()),
        (
            "zarr.json",
            '{"codecs":[{"name":"sharding_indexed","configuration":{"index_codecs":["lab"]}}]}',
            ("custom-operator: the codec lab",),
        ),
        ("zarr.json", '{"codecs":["numcodecs.pickle"]}', ("pickle: the codec pickle",)),
        (".zattrs", '{"filters":[{"id":"x"}]}', ()),
    ],
)
def test_a_codec_of_zarr_is_its_own_or_a_finding(name: str, text: str, active: tuple[str, ...]) -> None:
    assert seen(text.encode(), f"a.zarr/x/{name}") == Inspection("json", active)


def test_metadata_of_zarr_that_cannot_be_parsed_is_a_finding() -> None:
    assert seen(b'{"filters":', "a.zarr/.zarray").malformed


@pytest.mark.parametrize("chunk", [b"\x28\xb5\x2f\xfd\x04", b"\x02\x01\x21\x04" + bytes(60)])
@pytest.mark.parametrize("path", ["a.zarr/x/0.0", "a.zarr/x/c/0/1", "a.zarr/c"])
def test_a_chunk_is_numbers_in_a_folder_of_zarr_alone(chunk: bytes, path: str) -> None:
    assert is_clean(seen(chunk, path))
    assert not is_clean(seen(chunk, path.replace(".zarr", "")))
    assert not is_clean(seen(chunk, "a.zarr/model"))


def test_a_pickle_is_found_in_a_chunk() -> None:
    assert seen(b"cos\nsystem\n(S'x'\ntR.", "a.zarr/0.0").active == ("pickle",)
