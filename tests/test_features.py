"""`reid-nb evaluate` reads anybody's embeddings, and says what is wrong with a file."""
import numpy as np
import pytest

from reid_nb.errors import ReidError
from reid_nb.features import read_features


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
])
def test_names_what_is_wrong(tmp_path, changes, words):
    np.savez(tmp_path / "f.npz", **arrays(**changes))
    with pytest.raises(ReidError, match=words):
        read_features(tmp_path / "f.npz")


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"not a zip")
    with pytest.raises(ReidError, match="f.npz cannot be read"):
        read_features(tmp_path / "f.npz")
