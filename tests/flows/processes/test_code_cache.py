"""Digests of code are made once for each state of the source files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.processes import code_cache
from flows.processes.transform_cache import cache_directory
from flows.stages.content_keys import code_of
from storage.artifacts import keys


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Source files of a house of one module, and an empty cache."""
    monkeypatch.setenv("SPHERESCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "house" / "flows").mkdir(parents=True)
    (tmp_path / "house" / "flows" / "one.py").write_text("A = 1\n")
    return tmp_path / "house"


@pytest.fixture
def digest_of(house: Path) -> Callable[[str], str]:
    """Asks for a digest of a subject; a new one has the next number."""
    numbers = iter(range(100))
    return lambda subject: code_cache.kept(subject, lambda: str(next(numbers)), house=house)


def test_a_digest_is_made_once_for_each_subject(digest_of: Callable[[str], str]) -> None:
    assert [digest_of("a"), digest_of("b"), digest_of("a"), digest_of("b")] == ["0", "1", "0", "1"]


def test_changed_added_renamed_and_removed_source_files_are_noticed(
    house: Path, digest_of: Callable[[str], str]
) -> None:
    one, two = house / "flows" / "one.py", house / "flows" / "two.css"
    changes: list[Callable[[], object]] = [
        lambda: one.write_text("A = 2\n"),
        lambda: two.write_text("body {}"),
        lambda: two.rename(two.with_name("three.css")),
        lambda: two.with_name("three.css").unlink(),
    ]
    seen = [digest_of("a")]
    for change in changes:
        change()
        seen.append(digest_of("a"))
        assert digest_of("a") == seen[-1]
    assert seen == ["0", "1", "2", "3", "4"]


def test_byte_code_is_no_source(house: Path, digest_of: Callable[[str], str]) -> None:
    first = digest_of("a")
    (house / "flows" / "__pycache__").mkdir()
    (house / "flows" / "__pycache__" / "one.pyc").write_bytes(b"1")
    assert digest_of("a") == first


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"state": 1}'])
def test_a_damaged_file_is_as_good_as_none(text: str, digest_of: Callable[[str], str]) -> None:
    digest_of("a")
    (file,) = (cache_directory() / "code").iterdir()
    file.write_text(text)
    assert [digest_of("a"), digest_of("a")] == ["1", "1"]


def test_where_nothing_can_be_kept_it_is_made_each_time(
    house: Path, digest_of: Callable[[str], str]
) -> None:
    cache_directory().mkdir()
    (cache_directory() / "code").write_text("no directory")
    assert [digest_of("a"), digest_of("a")] == ["0", "1"]


def test_the_next_process_parses_no_source(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = code_of("flows.stages.verify.pictures")
    monkeypatch.setattr(keys, "_read", lambda *_: pytest.fail("a module is parsed again"))
    assert code_of("flows.stages.verify.pictures") == first
