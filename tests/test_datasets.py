"""Market-1501's folders, whole and broken; the registry; a person's own pictures."""
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb.datasets import market1501, registry, roreas
from reid_nb.datasets.folder import draw_queries, load_csv, load_folder, split_identities
from reid_nb.errors import ReidError, UsageError
from reid_nb.metrics import evaluate
from reid_nb.protocols import ALL_PAIRS
from reid_nb.twins import market1501 as market_twin

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
    (root / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"x")
    return root


def test_reads_every_label_of_a_name():
    assert market1501.parse_name("0002_c1s1_000451_03.jpg") == (2, 1, 1, 451, 3)
    assert market1501.parse_name("-1_c3s2_012376_05.jpg").pid == -1
    assert market1501.parse_name("0000_c4s6_000001_01.jpg.jpg").pid == 0
    for foreign in ("2_c1s1_000451_03.jpg", "0002_c1s1_000451_03.png", "x0002_c1s1_000451_03.jpg", "0002c1s1_000451_03.jpg",
                    "0002_c7s1_000451_03.jpg", "-2_c1s1_000451_03.jpg"):
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
    assert checks.index[checks["ok"]].tolist() == ["damaged images"] and checks.loc["train images"].tolist() == [12936, 2, False]
    assert market1501.COUNTS["images"] == 12936 + 3368 + 19732


def make_twin(root, load=market1501.load, **changes):
    """Turn the folder into a twin: what it holds stands in its twin.json."""
    made = {"size": {"train_ids": 2, "test_ids": 1}, "images": 6, "labels": load(root).labels_hash(), **changes}
    (root / "twin.json").write_text(json.dumps(made))


def test_a_twin_is_held_against_what_it_was_made_with(market):
    make_twin(market)
    twin = market1501.load(market)
    assert twin.origin == "twin" and registry.verify(twin)["ok"].all()
    (market / "bounding_box_test" / "0001_c2s1_000301_01.jpg").rename(market / "bounding_box_test" / "0001_c3s1_000301_01.jpg")
    checks = registry.verify(market1501.load(market))
    assert checks.index[~checks["ok"]].tolist() == ["labels"]


def test_a_twin_without_its_numbers_is_refused(market):
    (market / "twin.json").write_text("{}")
    with pytest.raises(ReidError, match="twin.json lacks the field 'size'"):
        registry.verify(market1501.load(market))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8 no picture", "half"])
def test_damaged_images_are_found_and_named(market, content):
    path = market / "query" / "0001_c1s1_001051_00.jpg"
    path.write_bytes(path.read_bytes()[:-40] if content == "half" else content)
    dataset = market1501.load(market)
    assert registry.damaged(dataset) == ["query/0001_c1s1_001051_00.jpg"]
    assert registry.verify(dataset).loc["damaged images"].tolist() == ["none", "1, the first is query/0001_c1s1_001051_00.jpg", False]
    assert "query/0001_c1s1_001051_00.jpg" in registry.status(market.parent).loc[0, "remark"]


def test_bytes_after_the_end_of_an_image_are_no_damage(market):
    path = market / "query" / "0001_c1s1_001051_00.jpg"
    path.write_bytes(path.read_bytes() + b"\0\0\0")
    assert registry.damaged(market1501.load(market)) == []


def test_nothing_is_published_about_own_pictures(tmp_path):
    with pytest.raises(UsageError, match="your own data"):
        registry.verify(load_folder(people(tmp_path / "market1501")))


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


def test_an_archive_that_is_still_packed_is_pointed_at(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path))
    (tmp_path / "Market-1501-v15.09.15.zip").write_bytes(b"")
    with pytest.raises(ReidError, match="Market-1501-v15.09.15.zip lies there, still packed: unpack it"):
        registry.load("market1501")
    assert "still packed" in registry.status(tmp_path).loc[0, "remark"]


def test_a_folder_may_bear_the_short_name(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path))
    market.rename(tmp_path / "market1501")
    assert registry.load("market1501").root == tmp_path / "market1501"
    (tmp_path / "market1501").rename(market)
    (tmp_path / "market1501").mkdir()
    assert registry.load("market1501").root == market


def test_a_dataset_without_a_loader_says_when_it_comes():
    assert registry.names() == ["at_ustc", "cuhk03", "deepchange", "llcm", "ltcc", "market1501", "msmt17", "prcc", "regdb", "roreas", "sysu_mm01",
                                "vc_clothes"]
    assert registry.info("prw").paper == "person_search"
    with pytest.raises(ReidError, match="PRW cannot be read yet.*'person_search'"):
        registry.load("prw")


def test_listing_is_whole_and_fits_every_dataset(market):
    make_twin(market)
    text = registry.listing(market.parent)
    assert all(known.title in text and known.layout in text and known.where in text for known in registry.REGISTRY.values())
    assert "here, twin, verified" in text.splitlines()[1]


def test_rendered_twins_are_listed_and_unfinished_ones_are_not(tmp_path):
    assert registry.twins_here(tmp_path) == ""
    market_twin.write(tmp_path / "one", market_twin.TwinSize(2, 3, 4), workers=1, progress=False)
    (tmp_path / ".two.partial").mkdir()
    images = len(list((tmp_path / "one").rglob("*.jpg")))
    assert registry.twins_here(tmp_path) == f"twin of market1501: {images} rendered images in {tmp_path / 'one'}"


def test_status_tells_absent_present_and_damaged(market, tmp_path):
    assert set(registry.status(tmp_path / "nothing")["here"]) == {"no"}
    there = registry.status(market.parent).iloc[0]
    assert (there["here"], there["origin"], there["verified"]) == ("yes", "real", "no") and "2 instead of 12936" in there["remark"]
    draw(market / "query" / "holiday.jpg")
    assert registry.status(market.parent).loc[0, "here"] == "damaged"


# ROREAS+

@pytest.fixture
def robot(tmp_path):
    root = tmp_path / "ROREAS-plus"
    for path in ("bounding_box_train/0002_t03s1_000451.jpg", "query/0001_t01s1_001051.jpg", "bounding_box_test/0001_t12s2_000301.jpg"):
        draw(root / path)
    return root


@pytest.mark.parametrize("level", ["itself", "parent"])
def test_roreas_reads_the_tour_as_the_camera(robot, level):
    dataset = roreas.load(robot if level == "itself" else robot.parent)
    assert dataset.name == "roreas" and dataset.origin == "real"
    assert dataset.gallery.iloc[0].drop("path").to_dict() == {"pid": 1, "camid": 12, "seqid": 2, "frame": 301}


def test_roreas_is_held_against_section_v(robot):
    checks = registry.verify(roreas.load(robot))
    assert checks["expected"].to_dict() == {"persons": 421, "train identities": 50, "train images": 34012, "test identities": 371,
                                            "query images": 945, "gallery images": 2520, "damaged images": "none"}
    assert checks["found"].tolist()[:-1] == [2, 1, 1, 1, 1, 1]
    make_twin(robot, roreas.load, size={"train_ids": 1, "test_ids": 1}, images=3)
    assert registry.verify(roreas.load(robot))["ok"].all()


@pytest.mark.parametrize("breakage, words", [
    (lambda root: [p.unlink() for p in (root / "query").iterdir()], "query is empty"),
    (lambda root: (root / "query").rename(root / "gone"), "query is missing.*not public"),
    (lambda root: ((root / "query").rename(root / "gone"), (root.parent / "roreas.tar").write_bytes(b"")), "roreas.tar lies there"),
    (lambda root: draw(root / "query" / "0002_c1s1_000451_03.jpg"), "1 names that are not ROREAS.*0002_t03s1_000451.jpg"),
    (lambda root: draw(root / "query" / "0000_t01s1_000451.jpg"), "1 names that are not ROREAS"),
], ids=["empty", "half", "packed", "misnamed", "nobody"])
def test_a_broken_copy_of_roreas_gets_one_plain_error(robot, breakage, words):
    breakage(robot)
    with pytest.raises(ReidError, match=words):
        roreas.load(robot)


def test_roreas_says_whom_to_ask_and_that_it_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path))
    with pytest.raises(ReidError, match="ROREAS. is not here.*TU Ilmenau.*not public"):
        registry.load("roreas")


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


def test_a_single_picture_goes_to_the_gallery_and_is_told(tmp_path):
    with pytest.warns(UserWarning, match="2 of 2 test people are never asked for"):
        own = load_folder(people(tmp_path, count=1))
    assert len(own.query) == 0 and len(own.gallery) == 2


@pytest.mark.parametrize("cameras, queries", [([1, 1, 2, 2, 3, 3], 3), ([1, 1, 2], 1), ([1, 2], 1), ([1, 2, 3], 1), ([1, 1], 1), ([1], 0),
                                              ([1, 1, 1, 2, 2, 2, 2], 2)])
def test_every_query_leaves_an_answer_in_the_gallery(cameras, queries):
    """Counted by hand: one for each camera with two pictures; one in all where no camera has two."""
    table = pd.DataFrame({"path": [f"{i:02}.jpg" for i in range(len(cameras))], "pid": 1, "camid": cameras})
    for seed in range(5):
        drawn = draw_queries(table, seed)
        assert len(set(drawn)) == len(drawn) == queries
        assert table["camid"][drawn].is_unique and (not drawn or len(table) > len(drawn))


def test_the_split_does_not_depend_on_the_order_of_a_list():
    table = pd.DataFrame({"path": [f"{i:02}.jpg" for i in range(40)], "pid": np.repeat(np.arange(10), 4), "camid": [1, 1, 2, 2] * 10})
    shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
    splits = [split_identities(each, 3, 0.5).set_index("path")["split"].sort_index() for each in (table, shuffled)]
    assert splits[0].equals(splits[1])


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.2])
def test_a_share_that_is_none(tmp_path, share):
    with pytest.raises(UsageError, match="between 0 and 1"):
        load_folder(people(tmp_path), train_share=share)


def test_hidden_folders_are_left_out(tmp_path):
    draw(people(tmp_path) / ".thumbnails" / "0.png")
    own = load_folder(tmp_path)
    assert sum(map(len, own.splits.values())) == 12


def test_names_of_people_may_be_any_text(tmp_path):
    own = load_folder(people(tmp_path, names=("Ärztin 7", "Zoë", "10", "2")))
    names = pd.concat(own.splits.values()).drop_duplicates("pid").set_index("identity")["pid"]
    assert names.to_dict() == {"10": 1, "2": 2, "Zoë": 3, "Ärztin 7": 4}


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
    with pytest.raises(ReidError, match="two people are needed.*the pictures show 1"):
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


def test_csv_from_windows(tmp_path):
    table = rows(tmp_path)
    before = load_csv(tmp_path / "list.csv").labels_hash()
    table.assign(path=table["path"].str.replace("/", "\\")).to_csv(tmp_path / "list.csv", index=False, lineterminator="\r\n", encoding="utf-8-sig")
    assert load_csv(tmp_path / "list.csv").labels_hash() == before


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe\x00"])
def test_a_file_that_is_no_csv(tmp_path, content):
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReidError, match="list.csv cannot be read as CSV"):
        load_csv(tmp_path / "list.csv")


@pytest.mark.parametrize("change, words", [
    (lambda t: t.drop(columns="pid"), r"lacks the columns \['pid'\]"), (lambda t: t.assign(path="no.png"), "line 2: no.png is missing"),
    (lambda t: pd.concat([t, t[:1]]), "stands there 2 times"), (lambda t: t.assign(split="val"), "allowed are train"),
    (lambda t: t.assign(camid=["left"] + [1] * 11), "camid of anna/0.png is 'left'"), (lambda t: t[:0], "the pictures show 0"),
    (lambda t: t.rename(columns={"path": "file"}), r"lacks the columns \['path'\]; it has \['file', 'pid'\]"),
    (lambda t: t.assign(pid=[None] + list(t["pid"][1:])), "line 2: pid is empty"),
    (lambda t: t.assign(split=["train", "query", "gallery"] * 4), "trained and tested on")])
def test_csv_mistakes_name_file_and_line(tmp_path, change, words):
    change(rows(tmp_path)).to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(ReidError, match=f"list.csv.*{words}"):
        load_csv(tmp_path / "list.csv")
