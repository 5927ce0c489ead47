"""`reid-nb evaluate` reads anybody's embeddings, and says what is wrong with a file."""
import numpy as np
import pytest

from reid_nb.errors import ReidError
from reid_nb.features import read_features
from reid_nb.metrics import evaluate
from reid_nb.protocols import ALL_PAIRS


def arrays(**changes):
    good = {f"{split}_{name}": value for split in ("query", "gallery") for name, value in
            {"embeddings": np.eye(3), "pids": np.arange(3), "camids": np.ones(3, int)}.items()}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_reads_embeddings_and_tables(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays(gallery_camids=np.array([4, 5, 6])))
    query, gallery, query_table, gallery_table = read_features(tmp_path / "f.npz")
    assert query.dtype == np.float32 and query.shape == (3, 3)
    assert list(gallery_table["camid"]) == [4, 5, 6] and list(query_table["pid"]) == [0, 1, 2]


@pytest.mark.parametrize("changes, words", [
    ({"query_pids": None}, "lacks query_pids"),
    ({"gallery_pids": np.arange(2)}, "differ in length"),
    ({"query_embeddings": np.ones(3)}, "1 dimensions"),
    ({"query_embeddings": np.ones((3, 5))}, "5 columns"),
    ({"query_pids": np.array(["p0", "p1", "p2"])}, "query_pids holds 'p0'"),
    ({"gallery_camids": np.array(["c1", "c1", "c2"])}, "gallery_camids holds 'c1'"),
    ({"query_pids": np.arange(6).reshape(3, 2)}, "query_pids has 2 dimensions"),
    ({"query_pids": np.array([1, np.nan, 2])}, "query_pids holds nan"),
    ({"query_pids": np.array([0.5, 1, 2])}, "query_pids holds 0.5"),
])
def test_names_what_is_wrong(tmp_path, changes, words):
    np.savez(tmp_path / "f.npz", **arrays(**changes))
    with pytest.raises(ReidError, match=words):
        read_features(tmp_path / "f.npz")


def test_a_protocol_that_knows_images_by_path_asks_for_paths(tmp_path):
    """Without paths nobody can tell a query's own image in the gallery, and it must not count as a hit."""
    np.savez(tmp_path / "f.npz", **arrays())
    with pytest.raises(ReidError, match="needs the column 'path'"):
        evaluate(*read_features(tmp_path / "f.npz"), ALL_PAIRS)
    np.savez(tmp_path / "g.npz", **arrays(query_paths=np.array(["a", "b", "c"]), gallery_paths=np.array(["a", "d", "e"])))
    assert not evaluate(*read_features(tmp_path / "g.npz"), ALL_PAIRS).per_query["valid"][0], "the query's own image is no hit"


def test_whole_numbers_may_come_as_floats(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays(query_pids=np.array([0.0, 1.0, 2.0])))
    assert list(read_features(tmp_path / "f.npz")[2]["pid"]) == [0, 1, 2]


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"not a zip")
    with pytest.raises(ReidError, match="f.npz cannot be read"):
        read_features(tmp_path / "f.npz")
