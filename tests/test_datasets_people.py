"""Ten datasets of people: small copies that are whole, broken ones, published counts, and the real lists where they are present."""
import importlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb import settings
from reid_nb.datasets import at_ustc, cuhk03, deepchange, llcm, ltcc, msmt17, reading, regdb, registry, sysu_mm01
from reid_nb.errors import ReidError, UsageError

REAL = Path(__file__).parents[2] / "shared" / "real"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the datasets' own lists are not here")


def draw(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), "teal").save(root / name)


def write(root, **lists):
    for name, text in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


# A small whole copy of each dataset

def make_at_ustc(root):
    draw(root, "p001-d01-c01/cam01-f0-000001.jpg", "p001-d02-c02/cam09-f0-000002.jpg", "p001-d02-c02/cam09-f1-000003.jpg", "p002-d13-c14/cam16-f10-7.jpg",
         *[f"p002-d{c:02}-c{c:02}/cam{camera:02}-f{flag + 2 * (camera > 8)}-{flag:06}.jpg" for c in (1, 2) for camera in (1, 8, 9, 16) for flag in (2, 3, 6, 7)],
         "p003-d01-c01/cam01-f3-000001.jpg", "p003-d01-c01/cam02-f7-000001.jpg")


def make_msmt17(root):
    names = {"train": "0000/0000_000_05_0303morning_0015_0.jpg", "val": "0000/0000_001_05_0303noon_0015_0_ex.jpg",
             "query": "0000/0000_000_01_0303afternoon_0015_0.jpg", "gallery": "0000/0000_001_15_0302noon_0011_1_ex.jpg"}
    for name, (file, folder, _) in msmt17.LISTS.items():
        draw(root / folder, names[name])
        write(root, **{file: f"{names[name]} 0\n"})


def make_cuhk03(root):
    draw(root, *[f"{boxes}/{path}" for boxes in cuhk03.BOXES
                 for path in ("bounding_box_train/0001_c1_1.png", "query/0003_c1_1.png", "bounding_box_test/0003_c2_12.png")])


def make_sysu_mm01(root):
    draw(root, *[f"cam{camera}/{pid:04}/{number:04}.jpg" for camera in range(1, 7) for pid in (1, 2, 6, 500) for number in (1, 2)])
    write(root, **{"exp/train_id.txt": "1\n", "exp/val_id.txt": "2", "exp/test_id.txt": "6\n"})


def make_llcm(root):
    for (side, kind), file in llcm.LISTS.items():
        pid, below = (1, kind) if side == "train" else (2, f"test_{kind}/cam4")
        names = [f"{below}/{pid:04}/{pid:04}_c04_s093000_f{n}_{kind}.jpg" for n in (17, 2)]
        draw(root, *names)
        write(root, **{file: "".join(f"{name} 0\n" for name in names)})
    write(root, **{"idx/test_id.txt": "2,7\n"})


def regdb_path(pid, kind):
    return f"{regdb.KINDS[kind][1]}/{pid}/female_back_{regdb.KINDS[kind][0]}_0110{pid}_{pid}.bmp"


def make_regdb(root):
    for split in regdb.SPLITS:
        for side, people in zip(("train", "test"), ((1, 2), (3, 4)) if split % 3 else ((3, 2), (1, 4))):
            for kind in regdb.KINDS:
                draw(root, *(regdb_path(pid, kind) for pid in people))
                write(root, **{f"idx/{side}_{kind}_{split}.txt": "".join(f"{regdb_path(pid, kind)} {n}\n" for n, pid in enumerate(people))})


def make_deepchange(root):
    for folder, pid in zip(deepchange.FOLDERS, (1, 2, 2, 3, 3)):
        names = [f"p{pid:04}_c17_{date}_093005_{number:06}_bbox.jpg" for number, date in enumerate((20200314, 20200314, 20201224))]
        draw(root / folder, *names)
        write(root, **{f"{folder}-bbox.txt": "".join(f"{name},{track}\n" for name, track in zip(names, (7, 7, 8)))})


def make_prcc(root):
    draw(root, *[f"rgb/{part}/{pid:03}/{room}_cropped_rgb001.jpg" for part, pid in (("train", 1), ("val", 2)) for room in "ABC"],
         *[f"rgb/test/{room}/{pid:03}/cropped_rgb{number:03}.jpg" for room in "ABC" for pid in (3, 4) for number in (1, 2)])
    draw(root, "sketch/train/001/A_cropped_sketch001.jpg")


def make_ltcc(root):
    draw(root, "train/002_1_c1_000001.png", "train/002_2_c12_000001.png", "query/000_1_c1_000001.png", "query/001_1_c1_000001.png",
         "test/000_2_c2_000001.png", "test/000_1_c2_000002.png", "test/001_1_c2_000001.png")
    write(root, **{"info/cloth-change_id_train.txt": "2\n", "info/cloth-unchange_id_train.txt": "", "info/cloth-change_id_test.txt": "0\n",
                   "info/cloth-unchange_id_test.txt": "1\n"})


def make_vc_clothes(root):
    draw(root, *[f"{split}/{pid:04}-{camera:02}-{outfit:02}-{n:02}.jpg" for split, pid, n in (("train", 1, 1), ("query", 2, 1), ("gallery", 2, 2))
                 for camera, outfit in ((1, 2), (2, 1), (3, 1), (4, 3))])


NAMES = ["at_ustc", "msmt17", "cuhk03", "sysu_mm01", "llcm", "regdb", "deepchange", "prcc", "ltcc", "vc_clothes"]
SIZES = {"at_ustc": (3, 17, 17), "msmt17": (2, 1, 1), "cuhk03": (1, 1, 1), "sysu_mm01": (24, 4, 8), "llcm": (4, 2, 2), "regdb": (0, 3, 3),
         "deepchange": (3, 3, 3), "prcc": (6, 8, 4), "ltcc": (2, 2, 3), "vc_clothes": (4, 4, 4)}
FILES = {"at_ustc": 38, "cuhk03": 6, "deepchange": 15, "regdb": 8}     # images in no table count too


@pytest.fixture(params=NAMES)
def copy(request, tmp_path):
    """Module, folder of a small copy."""
    module = importlib.import_module(f"reid_nb.datasets.{request.param}")
    root = tmp_path / module.SOURCE.unpacked
    globals()[f"make_{request.param}"](root)
    return module, root


def test_every_copy_is_read(copy):
    module, root = copy
    dataset = module.load(root)
    name = module.SOURCE.name
    assert dataset.name == name and dataset.origin == "real" and tuple(map(len, dataset.splits.values())) == SIZES[name]
    for table in dataset.splits.values():
        assert table["path"].is_monotonic_increasing and (table["pid"] > 0).all() and all((root / path).is_file() for path in table["path"])
        assert set(module.SOURCE.columns) <= set(table)
        assert all(table[column].dtype == "int64" for column in set(table) - {"path", "modality", "part"})
    assert registry.load(name, root.parent).labels_hash() == dataset.labels_hash()


def test_every_copy_is_found_out_not_to_be_the_published_dataset(copy):
    module, root = copy
    dataset = module.load(root)
    checks = registry.verify(dataset)
    assert not checks["ok"].all() and list(checks.index) == [*module.expected(dataset), "damaged images"]
    assert checks.loc["damaged images", "ok"]


def test_every_setting_of_every_copy_can_be_measured(copy):
    module, root = copy
    table = settings.test_table(module.load(root))
    features = np.eye(table["pid"].max() + 1)[table["pid"]]
    measured = [each.name for each in settings.of(module.SOURCE.name) if settings.valid_queries(each, table)]
    assert measured and all(settings.evaluate(settings.get(name), features, table).summary()["mAP"] == 1 for name in measured)


def test_a_twin_is_held_against_its_own_description(copy):
    module, root = copy
    name = module.SOURCE.name
    images = FILES.get(name, sum(SIZES[name]))
    write(root, **{"twin.json": json.dumps({"twin_of": name, "images": images, "labels": module.load(root).labels_hash()})})
    twin = module.load(root)
    assert twin.origin == "twin" and registry.verify(twin)["ok"].all()
    write(root, **{"twin.json": json.dumps({"images": images, "labels": "others"})})
    assert registry.verify(twin)["ok"].to_dict() == {"images": True, "labels": False, "damaged images": True}
    write(root, **{"twin.json": "{}"})
    with pytest.raises(ReidError, match="twin.json lacks the field 'images'"):
        module.expected(twin)


def test_a_copy_that_is_not_whole_says_what_is_missing(copy, tmp_path):
    module, root = copy
    with pytest.raises(ReidError, match="is missing"):
        module.load(tmp_path / "nowhere")
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png"), *root.rglob("*.bmp")]:
        path.unlink()
    with pytest.raises(ReidError, match="names no image|is missing|stands|has no image"):
        module.load(root)


@pytest.mark.parametrize("name, archive", [("at_ustc", "AT-USTC.zip"), ("msmt17", "MSMT17_V1.tar.gz"), ("cuhk03", "cuhk03-np.zip"), ("sysu_mm01", "SYSU-MM01.rar"),
                                           ("llcm", "LLCM.zip"), ("regdb", "RegDB_01.zip"), ("deepchange", "DeepChangeDataset.zip"), ("prcc", "prcc.zip"),
                                           ("ltcc", "LTCC_ReID.zip"), ("vc_clothes", "VC-Clothes.rar")])
def test_an_archive_that_is_still_packed_is_pointed_at(tmp_path, monkeypatch, name, archive):
    monkeypatch.setenv("REID_NB_DATA", str(tmp_path))
    (tmp_path / archive).write_bytes(b"")
    with pytest.raises(ReidError, match=f"{archive} lies there, still packed: unpack it"):
        registry.load(name)


def test_leftovers_of_file_managers_are_passed_over(copy):
    module, root = copy
    before = module.load(root).labels_hash()
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "._0001.jpg").write_bytes(b"x")
    assert module.load(root).labels_hash() == before


# Errors by name: what is done to a copy, and what is said

def swap_line(file, old, new):
    return lambda root: (root / file).write_text((root / file).read_text().replace(old, new))


def add(name):
    return lambda root: draw(root, name)


def remove(name):
    return lambda root: (root / name).unlink()


BROKEN = [
    ("at_ustc", add("p002-d01-c01/cam01-f4-000009.jpg"), "cam01-f4-000009.jpg: its flag and its camera disagree on day and night"),
    ("at_ustc", add("p002-d14-c01/cam01-f2-000009.jpg"), "days go from 1 to 13"),
    ("at_ustc", add("p002-d01-c01/cam17-f2-000009.jpg"), "cameras go from 1 to 16"),
    ("at_ustc", add("p002-d01-c01/cam01-f11-000009.jpg"), "flags go from 0 to 10"),
    ("at_ustc", add("p2-d01-c01/cam01-f2-000009.jpg"), "names that are not AT-USTC's, for example 'p2-d01-c01/cam01-f2-000009.jpg'"),
    ("at_ustc", add("p000-d01-c01/cam01-f2-000009.jpg"), "shows person 0; AT-USTC counts from 1"),
    ("at_ustc", add("p001-d01-c01/cam01-f2-000009.jpg"), "1 people are trained and tested on, for example 1"),
    ("msmt17", remove("test/0000/0000_001_15_0302noon_0011_1_ex.jpg"), r"list_gallery.txt, line 1: .*_ex.jpg is missing \(1 such lines\)"),
    ("msmt17", swap_line("list_query.txt", " 0\n", " 3\n"), "list_query.txt: 0000/.* disagrees with itself: its name says pid 0, its list says 3"),
    ("msmt17", swap_line("list_query.txt", "0000/0000", "0001/0000"), "its name says pid 0, its folder says 1"),
    ("msmt17", swap_line("list_query.txt", " 0\n", "\n"), "list_query.txt, line 1: .* is not of the form"),
    ("msmt17", lambda root: (root / "list_val.txt").unlink(), "list_val.txt is missing"),
    ("cuhk03", lambda root: draw(root, "detected/query/0003_c3_1.png"), "names that are not CUHK03-NP's"),
    ("sysu_mm01", swap_line("exp/val_id.txt", "2", "1"), r"val_id.txt: person 1 is on the list exp/train_id.txt too"),
    ("sysu_mm01", swap_line("exp/test_id.txt", "6", "6,77"), "test_id.txt: person 77 has no image in any camera"),
    ("sysu_mm01", swap_line("exp/test_id.txt", "6", "6,x"), "test_id.txt, line 1: 'x' is no number of a person"),
    ("sysu_mm01", swap_line("exp/test_id.txt", "6", "6,6"), "test_id.txt, line 1: '6' stands there for the second time"),
    ("llcm", swap_line("idx/test_id.txt", "2,7", "7"), "test_vis.txt: .* shows person 2, whom idx/test_id.txt lacks"),
    ("llcm", lambda root: (swap_line("idx/test_nir.txt", "cam4/", "cam5/")(root)), "its name says camid 4, its place says 5"),
    ("llcm", remove("nir/0001/0001_c04_s093000_f2_nir.jpg"), "train_nir.txt, line 2: .* is missing"),
    ("regdb", swap_line("idx/test_visible_4.txt", " 1\n", " 0\n"), "test_visible_4.txt, line 2: class 0 stands for person 4 here and for person 3 before"),
    ("regdb", swap_line("idx/test_thermal_4.txt", "Thermal/4/", "Thermal/04/"), "its number|is missing"),
    ("regdb", swap_line("idx/test_thermal_4.txt", "Thermal/4/female_back_t", "Visible/4/female_back_v"), "disagrees with itself: its name says kind v"),
    ("deepchange", add("test-set-query/p0003_c01_20200231_093005_000009_bbox.jpg"), "names a date or time that does not exist"),
    ("deepchange", add("test-set-query/p0003_c01_20200201_093005_000009_bbox.jpg"), r"test-set-query-bbox.txt lacks .*_000009_bbox.jpg \(1 such images\)"),
    ("deepchange", remove("train-set/p0001_c17_20201224_093005_000002_bbox.jpg"), "train-set-bbox.txt, line 3: .* is missing"),
    ("prcc", lambda root: [path.unlink() for path in (root / "rgb/test/A/004").iterdir()], "person 4 has no image in rgb/test/A"),
    ("ltcc", swap_line("info/cloth-unchange_id_test.txt", "1", "0"), "cloth-unchange_id_test.txt: person 0 is on the list info/cloth-change_id_test.txt too"),
    ("ltcc", swap_line("info/cloth-unchange_id_test.txt", "1", ""), "person 001 stands in test images and on no list"),
    ("ltcc", swap_line("info/cloth-unchange_id_test.txt", "1", "1\n9"), "person 009 is on a list of test people and has no image"),
    ("ltcc", add("test/001_2_c3_000001.png"), "person 001 is on the list info/cloth-unchange_id_test.txt and wears 2 outfits"),
    ("ltcc", add("test/001_1_c13_000001.png"), "cameras go from 1 to 12"),
    ("vc_clothes", add("query/0002-05-01-01.jpg"), "names that are not VC-Clothes's"),
]


@pytest.mark.parametrize("name, breakage, words", BROKEN, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(BROKEN)])
def test_what_is_wrong_is_named(tmp_path, name, breakage, words):
    globals()[f"make_{name}"](tmp_path)
    breakage(tmp_path)
    with pytest.raises(ReidError, match=words):
        registry.load(name, tmp_path)


def test_one_person_in_two_spellings():
    texts = pd.Series(["7", "007", "8"], name="pid")
    with pytest.raises(ReidError, match=r"here: one number is written as '7' \(a\) and as '007' \(b\)"):
        reading.check_spelling(texts, ["a", "b", "c"], "here")
    reading.check_spelling(pd.Series(["7", "10"], name="pid"), ["a", "b"], "here")


def test_a_line_that_stands_twice(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa b.jpg 1\r\n\r\nb.jpg 2\r\na b.jpg 1\r\n".encode())
    with pytest.raises(ReidError, match="list.txt, line 4: a b.jpg stands there for the second time"):
        reading.read_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ReidError, match="list.txt cannot be read"):
        reading.read_list(tmp_path / "list.txt")


# What each loader knows

def test_at_ustc_flags(tmp_path):
    make_at_ustc(tmp_path)
    dataset = at_ustc.load(tmp_path)
    assert dataset.train["part"].value_counts().to_dict() == {"train": 2, "validation": 1} and len(at_ustc.load(tmp_path, validation=False).train) == 2
    assert dataset.query["part"].value_counts().to_dict() == {"DT-ST": 4, "DT-LT": 5, "NT-ST": 4, "NT-LT": 4}
    assert (dataset.query["part"].str.startswith("DT") == (dataset.query["modality"] == "rgb")).all()
    found = at_ustc.counts(dataset)
    assert found["images"] == 38 and found["validation images"] == 1 and found["test images"] == 35 and found["outfits"] == 6
    assert {name: found[f"{name} valid queries"] for name in settings.SCENARIOS} == {"DT-ST": 4, "DT-LT": 4, "NT-ST": 4, "NT-LT": 4, "AD-ST": 8, "AD-LT": 8}


def test_published_counts_agree_with_each_other():
    known = at_ustc.COUNTS
    assert known["train images"] + known["test images"] == known["images"] == known["rgb images"] + known["ir images"]
    assert sum(at_ustc.VALID.values()) == 19992     # the valid queries of the mixed test
    assert deepchange.COUNTS["images"] == 75083 + 17527 + 62956 + 4976 + 17865
    assert llcm.COUNTS["images"] == 16946 + 13975 + 15846 and llcm.COUNTS["query images"] + llcm.COUNTS["gallery images"] == 15846
    for name in NAMES:
        counted = importlib.import_module(f"reid_nb.datasets.{name}").COUNTS
        assert counted.get("images", registry.info(name).records) == registry.info(name).records
        assert counted.get("identities", registry.info(name).identities) == registry.info(name).identities


RANK_1 = {   # AT-USTC's Tables 3 and 5, all rows
    "DT-ST": [95.02, 96.95, 97.04, 97.44, 97.76, 89.32, 93.55, 92.00, 96.35, 94.53, 94.16, 92.89, 93.38, 92.32, 91.86],
    "DT-LT": [32.99, 33.68, 35.31, 33.14, 36.75, 32.15, 34.17, 30.17, 41.15, 31.80, 30.37, 36.65, 38.92, 37.34],
    "NT-ST": [74.53, 78.71, 79.35, 79.72, 81.32, 63.69, 68.79, 69.71, 72.14, 73.15, 72.87, 70.23, 66.76, 71.77, 71.34],
    "NT-LT": [38.89, 38.64, 38.19, 36.89, 39.54, 33.75, 36.50, 36.79, 36.00, 30.60, 31.90, 36.10, 38.04, 38.54],
    "AD-ST": [38.05, 40.78, 45.16, 46.61, 50.25, 29.78, 32.45, 37.61, 42.28, 47.18, 46.34, 41.43, 41.79, 48.61, 50.06],
    "AD-LT": [25.92, 23.44, 27.15, 26.15, 29.21, 20.93, 24.34, 23.46, 27.43, 25.52, 29.41, 28.33, 30.11, 31.66]}


@pytest.mark.parametrize("scenario", RANK_1)
def test_valid_queries_are_the_smallest_number_that_the_published_digits_allow(scenario):
    values = np.array(RANK_1[scenario])
    counts = np.arange(1, at_ustc.VALID[scenario] + 1)[:, None]
    whole = (np.round(100 * np.round(values * counts / 100) / counts, 2) == values).all(axis=1)
    assert np.flatnonzero(whole).tolist() == [at_ustc.VALID[scenario] - 1]


def test_sysu_leaves_out_people_of_no_list(tmp_path):
    make_sysu_mm01(tmp_path)
    dataset = sysu_mm01.load(tmp_path)
    assert set(dataset.train["pid"]) == {1, 2} and dict(zip(dataset.train["pid"], dataset.train["part"])) == {1: "train", 2: "val"}
    assert set(dataset.query["camid"]) == {3, 6} and set(dataset.gallery["camid"]) == {1, 2, 4, 5} and set(dataset.gallery["pid"]) == {6}
    assert sysu_mm01.counts(dataset)["single-shot gallery"] == 4 and sysu_mm01.counts(dataset)["indoor single-shot gallery"] == 2


def test_regdb_splits(tmp_path):
    make_regdb(tmp_path)
    everybody = regdb.load(tmp_path)
    assert dict(zip(everybody.query["pid"], everybody.query["part"])) == {1: "3,6,9", 3: "1,2,4,5,7,8,10", 4: "1,2,3,4,5,6,7,8,9,10"}
    third = regdb.load(tmp_path, split=3)
    assert set(third.train["pid"]) == {2, 3} and len(third.train) == 4 and set(third.query["pid"]) == {1, 4} and set(third.gallery["part"]) == {"3"}
    table = settings.test_table(third)
    assert [trial for trial, *_ in settings.trials(settings.get("regdb/thermal-to-visible"), table)] == [2]
    with pytest.raises(UsageError, match="splits 1 to 10, not 11"):
        regdb.load(tmp_path, split=11)


def test_deepchange_without_its_lists(tmp_path):
    make_deepchange(tmp_path)
    assert deepchange.load(tmp_path).gallery["seqid"].tolist() == [7, 7, 8] and set(deepchange.load(tmp_path, test="val").query["pid"]) == {2}
    assert deepchange.with_outfits(deepchange.load(tmp_path).train)["clothes"].tolist() == [1, 1, 2]
    (tmp_path / "val-set-query-bbox.txt").unlink()
    bare = deepchange.load(tmp_path)
    assert "seqid" not in bare.query
    with pytest.raises(ReidError, match=r"needs the column 'seqid'.*\*-bbox.txt"):
        settings.evaluate(settings.get("deepchange/standard"), np.ones((6, 2)), settings.test_table(bare))
    with pytest.raises(UsageError, match="Known: test, val"):
        deepchange.load(tmp_path, test="train")


def test_cuhk03_has_two_kinds_of_boxes(tmp_path):
    make_cuhk03(tmp_path)
    assert cuhk03.load(tmp_path, boxes="labeled").query["path"].tolist() == ["labeled/query/0003_c1_1.png"]
    assert cuhk03.expected(cuhk03.load(tmp_path, boxes="labeled"))["train images"] == 7368
    with pytest.raises(UsageError, match="Known: detected, labeled"):
        cuhk03.load(tmp_path, boxes="by hand")


def test_ltcc_counts_people_from_one(tmp_path):
    make_ltcc(tmp_path)
    dataset = ltcc.load(tmp_path)
    assert dict(zip(dataset.query["pid"], dataset.query["part"])) == {1: "cloth-change", 2: "cloth-unchange"} and set(dataset.train["pid"]) == {3}
    found = ltcc.counts(dataset)
    assert (found["cloth-change identities"], found["cloth-change test identities"], found["cloth-changing valid queries"]) == (2, 1, 1)


# The datasets' own lists

@real
def test_the_real_lists_of_msmt17_hold_what_is_published():
    tables = {name: msmt17.listed(REAL / "msmt17" / file, folder, part) for name, (file, folder, part) in msmt17.LISTS.items()}
    assert {name: len(table) for name, table in tables.items()} == {"train": 30248, "val": 2373, "query": 11659, "gallery": 82161}
    train = pd.concat([tables["train"], tables["val"]])
    test = pd.concat([tables["query"].assign(split="query"), tables["gallery"].assign(split="gallery")], ignore_index=True)
    assert (train["pid"].min(), train["pid"].max(), train["pid"].nunique()) == (1, 1041, 1041)
    assert (test["pid"].min(), test["pid"].max(), test["pid"].nunique()) == (1042, 4101, 3060)
    assert set(train["camid"]) == set(test["camid"]) == set(range(1, 16))
    assert settings.valid_queries(settings.get("msmt17/standard"), test) == 11659


@real
def test_the_real_lists_of_regdb_hold_what_is_published():
    halves = {}
    for split in regdb.SPLITS:
        for side in ("train", "test"):
            for kind in regdb.KINDS:
                table = regdb.listed(REAL / "regdb", side, kind, split)
                regdb.check_classes(table, Path("list"))
                assert len(table) == 2060 and set(Counter(table["pid"]).values()) == {10} and table["pid"].nunique() == 206
                halves[side, kind, split] = set(table["pid"])
        assert halves["train", "visible", split] == halves["train", "thermal", split] and halves["test", "visible", split] == halves["test", "thermal", split]
        assert halves["train", "visible", split] | halves["test", "visible", split] == set(range(1, 413))


@real
def test_the_real_identities_and_orders_of_sysu_hold_what_is_published():
    """The orders name every image: 3,803 infrared and 6,775 colour ones of 96 test people, 301 pairs of person and colour camera."""
    from scipy.io import loadmat

    people = {side: set(loadmat(REAL / "sysu_mm01" / f"{side}_id.mat")["id"].ravel().tolist()) for side in ("train", "test")}
    assert (len(people["train"]), len(people["test"])) == (296, 96) and not people["train"] & people["test"]
    orders = sysu_mm01.permutations(REAL / "sysu_mm01" / "rand_perm_cam.mat")
    rows = [(f"cam{camid}/{pid:04}/{n + 1:04}.jpg", pid, camid, "ir" if camid in (3, 6) else "rgb", "query" if camid in (3, 6) else "gallery")
            for (camid, pid), order in orders.items() if pid in people["test"] for n in range(order.shape[1])]
    table = pd.DataFrame(rows, columns=["path", "pid", "camid", "modality", "split"])
    assert (table["split"] == "query").sum() == sysu_mm01.COUNTS["query images"] and (table["split"] == "gallery").sum() == sysu_mm01.COUNTS["gallery images"]
    for name, size in (("all-search", 301), ("indoor-search", 112)):
        assert len(settings.get(f"sysu_mm01/{name}").rows(table, 4)[1]) == size
    query, gallery = sysu_mm01.official_rows(orders)(table, 3)
    drawn = table.loc[gallery]
    assert len(drawn) == 301 and len(query) == 3803
    assert all(path.endswith(f"{orders[camid, pid][3, 0]:04}.jpg") for path, pid, camid in zip(drawn["path"], drawn["pid"], drawn["camid"]))
    official = replace(settings.get("sysu_mm01/all-search"), rows=sysu_mm01.official_rows(orders), trials=1)
    assert settings.valid_queries(official, table) == settings.valid_queries(replace(settings.get("sysu_mm01/all-search"), trials=1), table)
    with pytest.raises(ReidError, match="not the authors' rand_perm_cam.mat"):
        sysu_mm01.permutations(REAL / "sysu_mm01" / "train_id.mat")


@real
@pytest.mark.parametrize("boxes", cuhk03.BOXES)
def test_the_real_split_of_cuhk03_holds_what_is_published(boxes):
    from scipy.io import loadmat

    made = loadmat(REAL / "cuhk03_np" / f"{boxes}.mat")
    table = pd.DataFrame({"path": [str(name[0]) for name in made["filelist"].ravel()], "pid": made["labels"].ravel().astype(int), "camid": made["camId"].ravel().astype(int)})
    split = {name: table.loc[made[f"{name}_idx"].ravel().astype(int) - 1].reset_index(drop=True) for name in ("train", "query", "gallery")}
    found = {f"{name} images": len(some) for name, some in split.items()} | {f"{name} identities": some["pid"].nunique() for name, some in split.items()}
    assert found | {"cameras": table["camid"].nunique()} == cuhk03.COUNTS[boxes]
    test = pd.concat([split[name].assign(split=name) for name in ("query", "gallery")], ignore_index=True)
    assert settings.valid_queries(settings.get("cuhk03/standard"), test) == 1400
