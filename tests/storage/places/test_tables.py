"""Tables kept between processes: the same numbers, made once, never a damaged file."""

import logging
import os
import threading
import time

import numpy as np
import pytest

from storage.places.tables import TableCache


def numbers():
    whole = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    return {"a": [whole[:2], whole[2:]], "none": [np.empty((0, 2), np.intp)], "b": [np.arange(5)]}


EXPECTED = {"a": np.arange(12.0, dtype=np.float32), "none": np.empty(0, np.intp), "b": np.arange(5)}


def never():
    raise AssertionError("made again")


@pytest.fixture
def cache(tmp_path):
    return TableCache(tmp_path / "tables")


def assert_numbers(found):
    assert found.keys() == EXPECTED.keys()
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype
        assert not found[name].flags.writeable


def test_what_was_made_is_found_again_read_only_and_mapped(cache):
    assert_numbers(cache("x", numbers))
    found = cache("x", never)
    assert_numbers(found)
    assert not found["a"].flags.owndata
    assert found["a"].ctypes.data % 64 == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "foreign"])
def test_a_damaged_file_is_made_again(cache, damage, caplog):
    cache("x", numbers)
    (path,) = cache.directory.glob("*.tables")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-70] ^= 1
    kept = {"truncated": content[:-1], "flipped": content, "emptied": b"", "foreign": b"[1]\n"}
    path.write_bytes(kept[damage])
    with caplog.at_level(logging.WARNING):
        assert_numbers(cache("x", numbers))
    assert "damaged" in caplog.text
    assert_numbers(cache("x", never))


def test_of_several_that_want_it_one_makes_it(cache):
    made = []

    def slowly():
        made.append(threading.get_ident())
        time.sleep(0.2)
        return numbers()

    threads = [threading.Thread(target=cache, args=("x", slowly)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(made) == 1


def test_beyond_the_limit_what_was_used_least_recently_goes(tmp_path):
    cache = TableCache(tmp_path, limit=2500)
    for age, name in enumerate("abc"):
        cache(name, lambda: {"x": [np.zeros(1000, np.uint8)]})
        os.utime(tmp_path / f"{name}.tables", (age, age))
    assert {path.stem for path in tmp_path.glob("*.tables")} == {"b", "c"}
    cache("b", never)
    cache("d", lambda: {"x": [np.zeros(1000, np.uint8)]})
    assert {path.stem for path in tmp_path.glob("*.tables")} == {"b", "d"}


def test_where_nothing_can_be_kept_a_warning_says_so(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        found = TableCache(tmp_path / "file" / "tables")("x", numbers)
    np.testing.assert_array_equal(found["a"], EXPECTED["a"])
    assert "SPHERESCORE_CACHE" in caplog.text


def test_an_error_in_the_making_is_raised_and_keeps_nothing(cache):
    def refuse():
        raise ValueError("undetermined")

    with pytest.raises(ValueError, match="undetermined"):
        cache("x", refuse)
    assert not list(cache.directory.glob("*.tables"))
