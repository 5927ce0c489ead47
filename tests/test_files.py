"""Files are written whole or not at all, and errors name them."""
import errno
import os

import pytest

from reid_nb.errors import ReidError, UsageError, unknown
from reid_nb.files import atomic, data_root, outputs_root, read_json, sha256_of, write_json


def test_a_finished_file_takes_its_place(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic(target) as partial:
        partial.write_text("new")
        assert not target.exists() and partial.parent == target.parent
    assert target.read_text() == "new" and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error):
        with atomic(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise error
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(ReidError, match="a.txt: No space left on device.*REID_NB_OUTPUTS"):
        with atomic(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_folders_are_renamed_too(tmp_path):
    with atomic(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "x").write_text("1")
    assert (tmp_path / "folder" / "x").read_text() == "1"


def test_json_comes_back_equal_and_damaged_json_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2], "a": "ü"})
    assert read_json(tmp_path / "a.json") == {"a": "ü", "b": [1, 2]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ReidError, match="a.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ReidError, match="b.json is missing"):
        read_json(tmp_path / "b.json")


def test_hash_of_parts_knows_where_a_part_ends(tmp_path):
    (tmp_path / "f").write_bytes(b"ab")
    assert sha256_of("ab", "c") != sha256_of("a", "bc")
    assert sha256_of(tmp_path / "f") == sha256_of("ab") == sha256_of(b"ab")


def test_roots_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path / "o"))
    assert data_root() == tmp_path / "d" and outputs_root() == tmp_path / "o"


def test_unknown_names_suggest_the_closest():
    error = unknown("protocol", "maket1501", ["market1501", "all_pairs"])
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert str(error) == "There is no protocol named 'maket1501'. Did you mean 'market1501'? Known: all_pairs, market1501."
