"""`reid-nb evaluate` reads anybody's embeddings, and says what is wrong with a file."""
import numpy as np
import pytest

from reid_nb.errors import ReidError
from reid_nb.features import read_features
from reid_nb.metrics import evaluate
from reid_nb.protocols import ALL_PAIRS, get


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
    ({"query_clothes": np.array(["red", "red", "blue"])}, "query_clothes holds 'red'"),
    ({"gallery_modalities": np.array(["rgb", "thermal", "ir"])}, "gallery_modalities holds .'thermal'.*'rgb' .colour. or 'ir'"),
    ({"gallery_modalities": np.array(["rgb", "ir"])}, "differ in length"),
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


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(ReidError, match="cannot be read: it is a folder"):
        read_features(tmp_path)


def test_scenarios_of_the_day_and_the_year_can_be_asked_for(tmp_path):
    """Person 0 in another outfit by night, person 1 in the same one, person 2 in another one by day."""
    more = {"query_clothes": np.array([1, 1, 1]), "query_modalities": np.array(["rgb"] * 3), "gallery_clothes": np.array([2, 1, 2]),
            "gallery_modalities": np.array(["ir", "ir", "rgb"]), "gallery_camids": np.array([2, 2, 2])}
    np.savez(tmp_path / "f.npz", **arrays(**more))
    valid = {name: evaluate(*read_features(tmp_path / "f.npz"), get(name)).per_query["valid"].tolist() for name in ("AD-LT", "AD-ST", "DT-LT")}
    assert valid == {"AD-LT": [True, False, False], "AD-ST": [False, True, False], "DT-LT": [False, False, True]}
    np.savez(tmp_path / "g.npz", **arrays())
    with pytest.raises(ReidError, match="AD-LT needs the column 'clothes'.*labels for clothes"):
        evaluate(*read_features(tmp_path / "g.npz"), get("AD-LT"))
