import bz2
import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest
import zstandard

from spikeloom.data.readers import read, read_lines, read_objects
from spikeloom.errors import DataError, MissingExtraError

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
# Long and incompressible enough that a cut in the middle leaves a valid beginning.
RECORDS = [f"story {n}: " + " ".join(str(n * k % 9973) for k in range(400)) for n in range(200)]


def jsonl(texts: list[str], key: str = "text") -> bytes:
    return "".join(json.dumps({"title": "t", key: text}) + "\n" for text in texts).encode()


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def complaint(path: Path, column: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(read(path, column))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("compression", COMPRESS)
def test_each_compression_gives_the_same_records(tmp_path, compression):
    path = write(tmp_path / f"a.jsonl{compression}", COMPRESS[compression](jsonl(RECORDS)))
    assert list(read(path)) == RECORDS


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_text_file_is_one_document(tmp_path, compression):
    path = write(tmp_path / f"a.TXT{compression}", COMPRESS[compression](b"\xef\xbb\xbfa\r\nb\n"))
    assert list(read(path)) == ["a\nb\n"]


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_file_is_refused(tmp_path, compression):
    whole = COMPRESS[compression](jsonl(RECORDS))
    path = write(tmp_path / f"a.jsonl{compression}", whole[: len(whole) - 20])
    assert "cut short" in complaint(path)


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path, compression):
    path = write(tmp_path / f"a.jsonl{compression}", b"plain text, not compressed at all\n" * 9)
    assert f"not a valid {compression} file" in complaint(path)


def test_concatenated_zstd_frames_are_all_read(tmp_path):
    halves = [COMPRESS[".zst"](jsonl(RECORDS[:100])), COMPRESS[".zst"](jsonl(RECORDS[100:]))]
    path = write(tmp_path / "a.jsonl.zst", b"".join(halves))
    assert list(read(path)) == RECORDS


def test_a_line_longer_than_a_chunk_stays_whole(tmp_path):
    long = "word " * 700_000
    path = write(tmp_path / "a.jsonl", jsonl(["first", long, "last"]).rstrip(b"\n"))
    assert list(read(path)) == ["first", long, "last"]


def test_another_column_blank_lines_and_nulls(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"body": "one"}\n\n{"body": null}\n{"body": "two"}')
    assert list(read(path, "body")) == ["one", "two"]


def test_lone_surrogates_are_replaced(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a \\ud800 b \\ud83d\\ude00"}\n')
    assert list(read(path)) == ["a � b 😀"]


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"{broken", "not valid JSON"),
        (b"[1, 2]", "a list, not an object"),
        (b'{"text": 5}', "column 'text' is a int, not text"),
        (b'{"texts": "x", "id": 1}', "no column 'text' (did you mean 'texts'?); it has 'texts'"),
        (b'{"text": "caf\xe9"}', "byte 13 (0xe9) is not UTF-8"),
    ],
)
def test_a_bad_record_is_named_by_its_line(tmp_path, line, want):
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line + b"\n")
    message = complaint(path)
    assert want in message
    assert "line 2" in message


def test_binary_and_undecodable_text_are_refused(tmp_path):
    assert "NUL bytes" in complaint(write(tmp_path / "a.txt", b"ab\0cd"))
    assert "byte 3 (0xe9) is not UTF-8" in complaint(write(tmp_path / "b.txt", b"caf\xe9"))


def test_unknown_suffix_and_a_column_of_plain_text_are_refused(tmp_path):
    assert ".jsonl" in complaint(write(tmp_path / "a.pdf", b"x"))
    assert "unknown kind" in complaint(write(tmp_path / "txt", b"x"))
    assert "no columns" in complaint(write(tmp_path / "a.txt", b"x"), "body")


def test_an_unreadable_path_is_refused(tmp_path):
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    assert "cannot be read: Is a directory" in complaint(folder)


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "two"], "id": [1, 2, 3]}), path)
    assert list(read(path)) == ["one", "two"]
    packed = write(tmp_path / "b.parquet.gz", gzip.compress(path.read_bytes()))
    assert list(read(packed)) == ["one", "two"]
    assert "column 'id' is a int" in complaint(path, "id")
    assert "no column 'body'; it has 'text', 'id'" in complaint(path, "body")
    assert "not a readable parquet" in complaint(write(tmp_path / "c.parquet", b"PAR1 nonsense"))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.parquet", "pyarrow", "parquet"), ("a.jsonl.zst", "zstandard", "zstd")],
)
def test_a_missing_extra_names_its_install_command(tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'spikeloom\[{extra}\]'"):
        list(read(write(tmp_path / name, b"x")))


def test_a_list_is_read_line_by_line(tmp_path):
    path = write(tmp_path / "list", b"\xef\xbb\xbf# ours\r\nForce\r\n\n  Big Bang \n#no\n")
    assert read_lines(path) == ["Force", "Big Bang"]
    with pytest.raises(DataError, match="holds nothing"):
        read_lines(write(tmp_path / "empty", b"# none\n"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_lines(write(tmp_path / "latin", b"Stra\xdfe\n"))
    with pytest.raises(DataError, match="No such file"):
        read_lines(tmp_path / "nowhere")


def test_whole_records_are_read(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"a": [{"b": "\\ud800"}], "n": 1}\n\n{"c": null}\n')
    records = [({"a": [{"b": "\ufffd"}], "n": 1}, "line 1"), ({"c": None}, "line 3")]
    assert [(r, place.split(", ")[1]) for place, r in read_objects(path)] == records
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"x": [1, 2], "y": ["a", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = [record for _, record in read_objects(tmp_path / "a.parquet")]
    assert rows == [{"x": 1, "y": "a"}, {"x": 2, "y": None}]
