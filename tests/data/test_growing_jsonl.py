import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.data.resume import GrowingJsonl
from spikeloom.errors import DataError

RECORDS = [{"id": 1, "text": "ä\n"}, {"id": 2, "text": "x" * 200_000}, {"id": 3, "text": ""}]


def fill(path, records):
    with GrowingJsonl(path, "id") as output:
        for record in records:
            output.append(record)


def test_what_is_there_is_known(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    fill(path, RECORDS[:2])
    with GrowingJsonl(path, "id") as output:
        assert 1 in output
        assert 3 not in output
        assert len(output) == 2
        output.append(RECORDS[2])
        assert list(output.records()) == RECORDS
        with pytest.raises(ValueError, match="already has id 3"):
            output.append(RECORDS[2])


@given(cut=st.integers(0, 300_000))
def test_a_kill_at_any_byte_loses_at_most_the_last_record(cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    fill(path, RECORDS)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    done = [json.loads(line) for line in whole[: cut + 1].split(b"\n")[:-1]]
    with GrowingJsonl(path, "id") as output:
        assert list(output.records()) == done
        for record in RECORDS[len(done) :]:
            output.append(record)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{]", "[]", '{"title": "x"}', "3"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match="line 1") as caught:
        GrowingJsonl(path, "id")
    assert "\n" not in str(caught.value)
    assert path.read_text() == f"{line}\n"
