"""Market-1501's folders, whole and broken; the registry; a person's own pictures."""
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb.datasets import market1501, registry
from reid_nb.datasets.folder import load_csv, load_folder
from reid_nb.errors import ReidError, UsageError
from reid_nb.metrics import evaluate
from reid_nb.protocols import ALL_PAIRS

NAMES = {"bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg"], "query": ["0001_c1s1_001051_00.jpg"],
         "bounding_box_test": ["0001_c2s1_000301_01.jpg", "-1_c3s2_012376_05.jpg", "0000_c4s1_000001_01.jpg"]}


def draw(path, colour="teal"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 64), colour).save(path)


@pytest.fixture
def market(tmp_path):
    root = tmp_path / "Market-1501-v15.09.15"
    for folder, names in NAMES.items():
        for name in names:
            draw(root / folder / name)
    (root / "query" / "Thumbs.db").write_bytes(b"x")
    return root


def test_reads_every_label_of_a_name():
    assert market1501.parse_name("0002_c1s1_000451_03.jpg") == (2, 1, 1, 451, 3)
    assert market1501.parse_name("-1_c3s2_012376_05.jpg").pid == -1
    assert market1501.parse_name("0000_c4s6_000001_01.jpg.jpg").pid == 0
    for foreign in ("2_c1s1_000451_03.jpg", "0002_c1s1_000451_03.png", "x0002_c1s1_000451_03.jpg", "0002c1s1_000451_03.jpg"):
        assert market1501.parse_name(foreign) is None


@pytest.mark.parametrize("level", ["itself", "parent"])
def test_loads_the_folder_or_its_parent(market, level):
    dataset = market1501.load(market if level == "itself" else market.parent)
    assert dataset.origin == "real" and list(dataset.query["camid"]) == [1]
    assert dataset.gallery["pid"].tolist() == [-1, 0, 1] and len(dataset.train) == 2
    summary = dataset.summary()
    assert summary.loc["gallery", ["images", "identities", "junk", "distractors"]].tolist() == [3, 1, 1, 1]


def test_verification_counts_against_the_published_numbers(market):
    checks = registry.verify(market1501.load(market))
    assert not checks["ok"].any() and checks.loc["train images"].tolist() == [12936, 2, False]
    assert market1501.COUNTS["images"] == 12936 + 3368 + 19732


@pytest.mark.parametrize("breakage, words", [
    (lambda root: [p.unlink() for p in (root / "query").iterdir()], "query is empty"),
    (lambda root: (root / "query").rename(root / "gone"), "query is missing.*Unpack the whole archive"),
    (lambda root: ((root / "query").rename(root / "gone"), (root.parent / "Market-1501.zip").write_bytes(b"")), "Market-1501.zip lies there"),
    (lambda root: draw(root / "query" / "holiday.jpg"), "1 names that are not Market-1501's.*holiday.jpg.*reid_nb.datasets.folder"),
    (lambda root: draw(root / "query" / "-1_c3s2_012376_05.jpg"), "do not belong into the query split"),
], ids=["empty", "half", "packed", "misnamed", "junk query"])
def test_a_broken_copy_gets_one_plain_error(market, breakage, words):
    breakage(market)
    with pytest.raises(ReidError, match=words):
        market1501.load(market)


def test_a_missing_dataset_says_whom_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path))
    with pytest.raises(ReidError, match="not here.*Zheng.*REID_NB_DATA"):
        registry.load("market1501")
    with pytest.raises(UsageError, match="Did you mean 'market1501'"):
        registry.load("market1051")


def test_status_tells_absent_present_and_damaged(market, tmp_path):
    assert registry.status(tmp_path / "nothing")["here"].tolist() == ["no"]
    there = registry.status(market.parent).iloc[0]
    assert (there["here"], there["origin"], there["verified"]) == ("yes", "real", "no") and "2 instead of 12936" in there["remark"]
    draw(market / "query" / "holiday.jpg")
    assert registry.status(market.parent).loc[0, "here"] == "damaged"


# Own pictures

def people(root, names=("anna", "ben", "chen", "dora"), count=3):
    for name in names:
        for number in range(count):
            draw(root / name / f"{number}.png")
    return root


def test_own_folder_without_cameras_is_split_by_identity(tmp_path):
    own = load_folder(people(tmp_path))
    tested = set(own.query["identity"])
    assert own.origin == "own" and "camid" not in own.train
    assert not set(own.train["identity"]) & tested and set(own.gallery["identity"]) == tested
    assert own.query["identity"].is_unique and len(own.train) + len(own.query) + len(own.gallery) == 12
    assert own.labels_hash() == load_folder(tmp_path).labels_hash() != load_folder(tmp_path, seed=3).labels_hash()


def test_own_folder_without_cameras_can_be_evaluated(tmp_path):
    own = load_folder(people(tmp_path))
    embed = lambda table: np.eye(5)[table["pid"]]
    assert evaluate(embed(own.query), embed(own.gallery), own.query, own.gallery, ALL_PAIRS).mAP == 1.0


def test_a_single_picture_goes_to_the_gallery(tmp_path):
    own = load_folder(people(tmp_path, count=1))
    assert len(own.query) == 0 and len(own.gallery) == 2


def test_names_with_cameras(tmp_path):
    for pid in range(1, 5):
        for camera in (1, 2):
            for number in range(2):
                draw(tmp_path / f"{pid:03}_cam{camera}_{number}.jpg")
    own = load_folder(tmp_path, pattern=r"(?P<pid>\d+)_cam(?P<camid>\d+)")
    assert len(own.query) == 4 and set(own.gallery["camid"]) == {1, 2} and own.query["camid"].dtype == np.int64


@pytest.mark.parametrize("pattern, kind, words", [(r"(\d+)", UsageError, "no group"), (r"(?P<pid>\d+", UsageError, "no regular expression"),
                                                  (r"(?P<pid>x\d+)", ReidError, "do not fit")])
def test_patterns_that_do_not_work(tmp_path, pattern, kind, words):
    draw(tmp_path / "001.jpg")
    with pytest.raises(kind, match=words):
        load_folder(tmp_path, pattern=pattern)


def test_folders_that_do_not_work(tmp_path):
    with pytest.raises(ReidError, match="is no folder"):
        load_folder(tmp_path / "nothing")
    with pytest.raises(ReidError, match="holds no images"):
        load_folder(tmp_path)
    people(tmp_path, ["anna"])
    with pytest.raises(ReidError, match="1 identity only"):
        load_folder(tmp_path)
    draw(tmp_path / "loose.jpg")
    with pytest.raises(ReidError, match="loose.jpg lies beside"):
        load_folder(tmp_path)


def rows(root, **columns):
    people(root)
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    table = pd.DataFrame({"path": paths, "pid": [path.split("/")[0] for path in paths]}).assign(**columns)
    table.to_csv(root / "list.csv", index=False)
    return table


def test_csv_with_cameras_and_split(tmp_path):
    rows(tmp_path, camid=[1, 2, 3] * 4, split=["train"] * 6 + ["query", "gallery", "gallery"] * 2)
    own = load_csv(tmp_path / "list.csv")
    assert (len(own.train), len(own.query), len(own.gallery)) == (6, 2, 4)


@pytest.mark.parametrize("change, words", [
    (lambda t: t.drop(columns="pid"), r"lacks the columns \['pid'\]"), (lambda t: t.assign(path="no.png"), "line 2: no.png is missing"),
    (lambda t: pd.concat([t, t[:1]]), "stands there 2 times"), (lambda t: t.assign(split="val"), "allowed are train"),
    (lambda t: t.assign(camid=["left"] + [1] * 11), "camid of row 0 is 'left'"), (lambda t: t.assign(pid=[None] + list(t["pid"][1:])), "line 2: pid is empty"),
    (lambda t: t.assign(split=["train", "query", "gallery"] * 4), "trained and tested on")])
def test_csv_mistakes_name_file_and_line(tmp_path, change, words):
    change(rows(tmp_path)).to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(ReidError, match=f"list.csv.*{words}"):
        load_csv(tmp_path / "list.csv")
