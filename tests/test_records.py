"""Tables and datasets: what is refused, and what two hashes promise."""
import pandas as pd
import pytest
from PIL import Image

from reid_nb.errors import ReidError
from reid_nb.records import Dataset, check_table, read_image


def table(**changes):
    return pd.DataFrame({"path": ["a.png", "b.png"], "pid": [1, 2], "camid": [1, 2], **changes})


def dataset(root, **changes):
    frame = check_table(table(**changes), "test")
    return Dataset("d", root, frame, frame[:1], frame[1:].reset_index(drop=True), "own")


@pytest.mark.parametrize("frame, words", [
    (table().drop(columns="pid"), r"lacks the columns \['pid'\]"), (table(path=["a", "a"]), "a stands there 2 times"),
    (table(pid=["x", 2]), "pid of a.png is 'x', not a whole number"), (table(camid=[1, 2.5]), "camid of b.png is 2.5"),
    (table(pid=[None, 1]), "pid of a.png"), (table(pid=[1, float("inf")]), "pid of b.png is inf"),
    (table(clothes=[1, "red"]), "clothes of b.png is 'red'"), (table(date=[1.5, 2]), "date of a.png"),
    (table(modality=["rgb", "thermal"]), "modality of b.png is 'thermal'. Write 'rgb' for colour")])
def test_a_wrong_table_is_refused_by_name(frame, words):
    with pytest.raises(ReidError, match=f"here.csv: .*{words}"):
        check_table(frame, "here.csv")


def test_a_table_is_numbered_from_zero_with_integer_labels():
    frame = check_table(table(pid=["7", "8"]).set_index(pd.Index([5, 9])), "test")
    assert frame.index.tolist() == [0, 1] and frame["pid"].tolist() == [7, 8] and frame["pid"].dtype == "int64"


def test_summary_counts_people_and_not_junk(tmp_path):
    summary = dataset(tmp_path, pid=[-1, 0]).summary()
    assert summary.loc["train"].tolist() == [2, 0, 2, 1, 1]
    frame = check_table(table().drop(columns="camid"), "test")
    assert Dataset("d", tmp_path, frame, frame, frame, "own").summary()["cameras"].isna().all()


def test_summary_tells_outfits_and_modalities_where_they_are_labelled(tmp_path):
    summary = dataset(tmp_path, pid=[1, 1], clothes=[1, 2], modality=["rgb", "ir"]).summary()
    assert summary.loc["train", ["outfits", "rgb", "ir"]].tolist() == [2, 1, 1] and summary.loc["query", ["outfits", "rgb", "ir"]].tolist() == [1, 1, 0]
    assert "rgb" not in dataset(tmp_path).summary()


def test_labels_hash_is_the_same_everywhere(tmp_path):
    """A golden value: computed once, it must come out on every platform and with every version of pandas."""
    assert dataset(tmp_path).labels_hash() == "58ca2a2f1d8dbb142710dac5dc1c47c6aa321ce65f7ec0cca857b4b3cb8caa94"
    assert dataset(tmp_path, pid=[1, 3]).labels_hash() != dataset(tmp_path).labels_hash()
    assert dataset(tmp_path).labels_hash() == dataset(tmp_path / "elsewhere").labels_hash()


def test_fingerprint_sees_pixels(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 8), "teal").save(tmp_path / name)
    before = dataset(tmp_path).fingerprint()
    assert dataset(tmp_path).fingerprint() == before
    Image.new("RGB", (4, 8), "crimson").save(tmp_path / "b.png")
    assert dataset(tmp_path).fingerprint() != before
    (tmp_path / "a.png").unlink()
    with pytest.raises(ReidError, match="a.png cannot be read"):
        dataset(tmp_path).fingerprint()


@pytest.mark.parametrize("content, words", [(None, "is missing"), (b"no image", "is damaged or no image"), ("half", "is damaged or no image")])
def test_an_unreadable_image_is_named(tmp_path, content, words):
    path = tmp_path / "x.jpg"
    if content is not None:
        Image.effect_noise((64, 128), 60).save(path)
        path.write_bytes(path.read_bytes()[:1500] if content == "half" else content)
    with pytest.raises(ReidError, match=f"x.jpg {words}"):
        read_image(path)


def test_a_photograph_that_lies_on_its_side_is_turned(tmp_path):
    """Orientation 6 in EXIF: turn clockwise by a right angle. The red column on the left becomes the top row."""
    image = Image.new("RGB", (40, 20), "navy")
    image.paste("red", (0, 0, 8, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "x.jpg")
    assert upright.size == (20, 40) and upright.getpixel((10, 2))[0] > 200 > 60 > upright.getpixel((10, 30))[0]
