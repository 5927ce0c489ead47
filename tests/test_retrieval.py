"""Retrieval: embeddings in order, rankings against the definition, ROC against brute force, search and its errors."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from reid_nb import retrieval
from reid_nb.backbones import ReIDModel, resnet
from reid_nb.errors import ReidError, UsageError
from reid_nb.files import write_json
from reid_nb.protocols import ALL_PAIRS, MARKET1501
from reid_nb.recipes import Recipe
from reid_nb.training import save_weights
from reid_nb.transforms import test_transform as prepare

RECIPE = Recipe("tiny", model_args={"depth": 18, "width": 0.125}, image_size=(32, 16))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ReIDModel(resnet(18, 0.125), 5).eval()


@pytest.fixture
def photos(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "d.bmp", "e.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_text("no picture")
    return folder


@pytest.fixture
def run(model, tmp_path):
    save_weights(model, tmp_path / "run" / "model.safetensors")
    write_json(tmp_path / "run" / "recipe.json", {"recipe": RECIPE.to_dict(), "num_classes": 5})
    return tmp_path / "run"


def tables(queries=7, gallery=40, people=4, seed=0):
    rng = np.random.default_rng(seed)
    make = lambda n, low: pd.DataFrame({"path": [f"{low}{i}.jpg" for i in range(n)], "pid": rng.integers(low, people, n),
                                        "camid": rng.integers(1, 4, n)})
    return make(queries, 1), make(gallery, -1), rng.normal(size=(queries, 6)), rng.normal(size=(gallery, 6))


def test_extract_is_in_order_and_does_not_depend_on_the_batch(model, photos):
    table = pd.DataFrame({"path": ["e.jpg", "b.jpg", "sub/c.jpeg", "a.PNG"], "pid": [3, 1, 2, 1]})
    found = retrieval.extract(model, table, photos, (32, 16), progress=False)
    assert found.dtype == np.float32 and found.shape == (4, 64)
    with torch.no_grad():
        alone = [model(prepare((32, 16))(Image.open(photos / path).convert("RGB"))[None])[0].numpy() for path in table["path"]]
    assert np.allclose(found, alone, atol=1e-5)
    assert np.allclose(found, retrieval.extract(model, table.drop(columns="pid"), photos, (32, 16), batch=3, progress=False), atol=1e-5)
    assert not model.training


def test_extract_leaves_the_mode_and_ignores_it(model, photos):
    table = pd.DataFrame({"path": ["e.jpg", "b.jpg"]})
    expected = retrieval.extract(model, table, photos, (32, 16), progress=False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    again = retrieval.extract(model, table, photos, (32, 16), progress=False)
    assert model.training and np.array_equal(again, expected)
    assert all(torch.equal(value, state[name]) for name, value in model.eval().state_dict().items())


def test_flip_is_the_mean_over_both_sides(model, photos):
    image = Image.open(photos / "b.jpg").convert("RGB")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "mirrored.png")
    image.save(photos / "plain.png")
    table = pd.DataFrame({"path": ["plain.png", "mirrored.png"]})
    plain = retrieval.extract(model, table, photos, (40, 20), progress=False)
    flipped = retrieval.extract(model, table, photos, (40, 20), flip=True, progress=False)
    assert np.allclose(flipped[0], plain.mean(0), atol=1e-5) and np.allclose(flipped[1], flipped[0], atol=1e-5)


def test_extract_names_what_is_wrong(model, photos):
    table = pd.DataFrame({"path": ["b.jpg", "e.jpg"]})
    (photos / "e.jpg").write_bytes((photos / "e.jpg").read_bytes()[:300])
    with pytest.raises(ReidError, match="e.jpg"):
        retrieval.extract(model, table, photos, (32, 16), progress=False)
    with pytest.raises(ReidError, match="no images"):
        retrieval.extract(model, table[:0], photos, (32, 16), progress=False)
    broken = ReIDModel(resnet(18, 0.125), 5).eval()
    torch.nn.init.constant_(broken.neck.weight, float("nan"))
    with pytest.raises(ReidError, match="b.jpg is not finite"):
        retrieval.extract(broken, table[:1], photos, (32, 16), progress=False)


def test_cosine_distances():
    x = np.array([[3, 0], [0, 0]])
    y = np.array([[1, 0], [0, 5], [-2, 0]])
    assert np.allclose(retrieval.cosine_distances(x, y), [[0, 1, 2], [1, 1, 1]])


@pytest.mark.parametrize("seed", range(3))
def test_ranking_against_the_definition(seed):
    query_table, gallery_table, query, gallery = tables(seed=seed)
    for row in range(len(query_table)):
        listed = retrieval.ranking(query[row], gallery, query_table, gallery_table, MARKET1501, row)
        assert sorted(listed.index) == list(range(len(gallery))) and listed["distance"].is_monotonic_increasing
        pid, camid = query_table["pid"][row], query_table["camid"][row]
        rank = 0
        for at, record in listed.iterrows():
            left_out = record["pid"] == -1 or (record["pid"] == pid and record["camid"] == camid)
            assert (record["verdict"] == "junk") == left_out and pd.isna(record["rank"]) == left_out
            if not left_out:
                rank += 1
                assert record["rank"] == rank and (record["verdict"] == "right") == (record["pid"] == pid)
            assert record["path"] == gallery_table["path"][at]


def test_ranking_keeps_the_gallerys_order_in_ties():
    query_table, gallery_table, query, _ = tables()
    listed = retrieval.ranking(query[0], np.ones((40, 6)), query_table, gallery_table, MARKET1501)
    assert list(listed.index) == list(range(40))


def test_rankings_and_rocs_without_cameras():
    query_table, gallery_table, query, gallery = tables()
    bare = [table.drop(columns="camid") for table in (query_table, gallery_table)]
    with pytest.raises(ReidError, match="camid.*all_pairs"):
        retrieval.ranking(query[0], gallery, *bare, MARKET1501)
    with pytest.raises(ReidError, match="camid"):
        retrieval.roc(query, gallery, *bare, MARKET1501)
    assert (retrieval.ranking(query[0], gallery, *bare, ALL_PAIRS)["verdict"] != "junk").all()


@pytest.mark.parametrize("pairs", [retrieval.PAIRS, 50])
def test_roc_against_brute_force(pairs, monkeypatch):
    monkeypatch.setattr(retrieval, "PAIRS", pairs)
    query_table, gallery_table, query, gallery = tables(queries=9, gallery=60)
    curve = retrieval.roc(query, gallery, query_table, gallery_table, MARKET1501)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    distances = 1 - unit(query) @ unit(gallery).T
    q, g = query_table["pid"].to_numpy()[:, None], gallery_table["pid"].to_numpy()
    counted = (g >= 0) & ~((q == g) & (query_table["camid"].to_numpy()[:, None] == gallery_table["camid"].to_numpy()))
    same, different = distances[counted & (q == g)], distances[counted & (q != g)]
    assert curve.attrs == {"same": len(same), "different": len(different)}
    assert curve["threshold"].is_monotonic_increasing and curve["fpr"].iloc[-1] == curve["tpr"].iloc[-1] == 1
    for row in curve.iloc[::7].itertuples():
        clear = [np.abs(values - row.threshold).min() > 1e-6 for values in (same, different)]
        assert all(clear)   # otherwise the comparison below would be about rounding
        assert row.tpr == (same < row.threshold).mean() and row.fpr == (different < row.threshold).mean()


def test_threshold_is_the_largest_within_the_rate():
    query_table, gallery_table, query, gallery = tables(queries=9, gallery=60)
    curve = retrieval.roc(query, gallery, query_table, gallery_table, MARKET1501)
    for rate in (0.01, 0.1, 0.5):
        row = retrieval.threshold(curve, rate)
        assert row["fpr"] <= rate and (curve.loc[curve["threshold"] > row["threshold"], "fpr"] > rate).all()


def test_thresholds_that_cannot_be_had():
    query_table, gallery_table, query, gallery = tables()
    curve = retrieval.roc(query, gallery, query_table, gallery_table, MARKET1501)
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            retrieval.threshold(curve, rate)
    with pytest.raises(ReidError, match="pairs of different people"):
        retrieval.threshold(curve, 1e-6)
    equal = retrieval.roc(np.ones((7, 6)), np.ones((40, 6)), query_table, gallery_table, MARKET1501)
    with pytest.raises(ReidError, match="No threshold keeps"):
        retrieval.threshold(equal, 0.1)
    with pytest.raises(ReidError, match="needs both"):
        retrieval.roc(query, gallery, query_table, gallery_table.assign(pid=0), MARKET1501)


def test_search_finds_the_copy_and_leaves_the_query_out(photos, run):
    Image.open(photos / "b.jpg").save(photos / "copy_of_b.png")
    found = retrieval.search(photos / "b.jpg", photos, run)
    assert list(found["rank"]) == [1, 2, 3, 4, 5] and found["path"][0] == "copy_of_b.png" and found["distance"][0] < 1e-5
    assert set(found["path"]) == {"copy_of_b.png", "a.PNG", "d.bmp", "e.jpg", "sub/c.jpeg"}
    assert found["distance"].is_monotonic_increasing
    assert retrieval.search(photos / "b.jpg", photos, run / "model.safetensors").equals(found)


def test_search_errors(photos, run, tmp_path):
    query = photos / "b.jpg"
    (tmp_path / "empty").mkdir()
    for folder, said in [(tmp_path / "empty", "holds no images"), (tmp_path / "none", "is no folder"), (query, "is no folder")]:
        with pytest.raises(ReidError, match=re.escape(str(folder)) + f" {said}"):
            retrieval.search(query, folder, run)
    with pytest.raises(ReidError, match="no trained run"):
        retrieval.search(query, photos, tmp_path / "empty")
    with pytest.raises(ReidError, match="nobody.jpg"):
        retrieval.search(photos / "nobody.jpg", photos, run)
    with pytest.raises(ReidError, match="besides the query"):
        retrieval.search(photos / "sub" / "c.jpeg", photos / "sub", run)
    (photos / "e.jpg").write_bytes(b"not a picture")
    with pytest.raises(ReidError, match="e.jpg is damaged"):
        retrieval.search(query, photos, run)
