"""Pictures: what is drawn is what was given, nothing is said by colour alone, and the same figure gives the same bytes."""
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from reid_nb import viz
from reid_nb.errors import ReidError


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def photos(tmp_path):
    """Three people, cameras 1 and 3; person 2 was not seen by camera 3. Each image has a colour of its own."""
    rows = [(1, 1), (1, 3), (2, 1), (3, 1), (3, 3)]
    for i in range(len(rows)):
        Image.new("RGB", (4, 8), (40 * i, 10, 20)).save(tmp_path / f"{i}.png")
    return tmp_path, pd.DataFrame({"path": [f"{i}.png" for i in range(len(rows))], "pid": [p for p, _ in rows], "camid": [c for _, c in rows]})


def test_the_style_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    viz.cmc_curves({"a": np.linspace(0.2, 1, 50)})
    assert dict(matplotlib.rcParams) == before


def test_a_saved_figure_is_the_same_bytes_again_and_undated(tmp_path):
    curve = {"a": np.linspace(0.2, 1, 50)}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        viz.save(viz.cmc_curves(curve), tmp_path / folder)
    for name in ("figure.png", "figure.svg"):
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes()
    assert not re.search(rb"\d{4}-\d\d-\d\dT", first) and sorted(path.name for path in (tmp_path / "one").iterdir()) == ["figure.png", "figure.svg"]


def test_a_contact_sheet_has_each_person_under_its_cameras(photos):
    root, table = photos
    figure = viz.contact_sheet(table, root)
    places = np.reshape(figure.axes, (3, 2))
    shown = [[tuple(axes.images[0].get_array()[0, 0]) if axes.images else None for axes in row] for row in places]
    assert shown == [[(0, 10, 20), (40, 10, 20)], [(80, 10, 20), None], [(120, 10, 20), (160, 10, 20)]]
    assert [axes.get_title() for axes in places[0]] == ["camid 1", "camid 3"]


def test_a_ranking_list_says_right_wrong_and_junk_three_times(photos):
    root, table = photos
    ranking = table.assign(verdict=["junk", "right", "wrong", "right", "junk"], rank=pd.array([pd.NA, 1, 2, 3, pd.NA], dtype="Int64"))
    figure = viz.ranking_list(Image.new("RGB", (4, 8)), ranking, root, top=7)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:6] == ["query", "– ", "✓ 1", "✗ 2", "✓ 3", "– "]
    frames = [(axes.spines["left"].get_edgecolor(), axes.spines["left"].get_linestyle()) for axes in figure.axes[1:4]]
    assert len({colour for colour, _ in frames}) == 3 and len({line for _, line in frames}) == 3
    assert not any(axes.axison for axes in figure.axes[6:])


def test_a_broken_image_is_named(photos):
    root, table = photos
    (root / "2.png").write_bytes(b"no picture")
    with pytest.raises(ReidError, match="2.png"):
        viz.contact_sheet(table, root)


def test_curves_are_drawn_as_given_with_marks_of_their_own():
    curves = {"a": np.linspace(0.2, 1, 50), "b": np.linspace(0.5, 1, 50)}
    lines = viz.cmc_curves(curves, ranks=10).axes[0].lines
    for line, (name, cmc) in zip(lines, curves.items(), strict=True):
        assert line.get_label() == name and np.array_equal(line.get_xdata(), np.arange(1, 11)) and np.array_equal(line.get_ydata(), cmc[:10])
    assert lines[0].get_marker() != lines[1].get_marker()


def test_the_roc_leaves_out_what_a_logarithm_cannot_show():
    line = viz.roc_curve(pd.DataFrame({"fpr": [0.0, 0.1, 1.0], "tpr": [0.3, 0.6, 1.0]})).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[0.1, 0.6], [1.0, 1.0]]


def test_training_history_draws_every_loss():
    history = pd.DataFrame({"epoch": [1, 2], "lr": [0.1, 0.1], "cross_entropy": [3.0, 2.0], "triplet": [0.5, 0.4], "accuracy": [0.1, 0.3]})
    left, right = viz.training_history(history).axes
    assert [line.get_label() for line in left.lines] == ["cross_entropy", "triplet"] and right.lines[0].get_ydata().tolist() == [0.1, 0.3]


def test_a_map_of_embeddings_is_seeded_and_keeps_groups_together():
    rng = np.random.default_rng(0)
    labels = np.repeat([5, 7, 9], 12)
    vectors = rng.normal(size=(36, 16)) + 30 * np.eye(16)[labels]
    points = [np.concatenate([np.asarray(part.get_offsets()) for part in viz.embedding_map(vectors, labels, seed=3).axes[0].collections]) for _ in range(2)]
    assert np.array_equal(*points)
    centre = points[0].reshape(3, 12, 2).mean(1)
    assert (np.linalg.norm(points[0][:, None] - centre, axis=2).argmin(1) == np.repeat([0, 1, 2], 12)).all()


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_their_distance_and_their_order(seed):
    heights = np.random.default_rng(seed).uniform(0, 3, 12)
    moved = viz.spread_labels(heights, gap=0.2)
    assert (np.diff(np.sort(moved)) >= 0.2 - 1e-3).all()
    assert np.array_equal(np.argsort(moved, kind="stable"), np.argsort(heights, kind="stable"))


def test_labels_of_the_plane_do_not_overlap():
    rng = np.random.default_rng(1)
    points = pd.DataFrame({"name": [f"method {i} @ 6, 8, 14" for i in range(14)], "x": rng.uniform(1, 2, 14), "y": rng.uniform(0.5, 0.52, 14),
                           "x_error": 0.01, "y_error": 0.002, "group": ["a", "b"] * 7})
    figure = viz.accuracy_speed_plane(points, "slow-down", "mAP")
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without their arrows
    assert len(boxes) == 14 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_bars_stand_at_their_positions_with_their_heights():
    values = pd.DataFrame({"HAC": [1.0, 2.0], "AGW": [30.0, 60.0]}, index=[1, 17])
    axes = viz.bars_by_position(values, values * 0.1, {"ResNet-101": 50}, "slow-down").axes[0]
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 30, 60]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "17"]
    assert {bar.get_hatch() for bar in axes.patches[:2]} != {bar.get_hatch() for bar in axes.patches[2:]}


def test_verdicts_differ_in_line_and_sign_too():
    assert len({line for _, line, _ in viz.VERDICTS.values()}) == len({sign for _, _, sign in viz.VERDICTS.values()}) == 3


def test_a_name_looks_the_same_whichever_companions_are_there():
    series = ("HAC", "AGW", "C-NL")
    points = pd.DataFrame({"name": ["x"], "x": [1.0], "y": [0.5], "x_error": 0.0, "y_error": 0.0, "group": ["C-NL"]})
    plane = viz.accuracy_speed_plane(points, "slow-down", "mAP", series).axes[0]
    values = pd.DataFrame({"AGW": [1.0], "C-NL": [2.0]}, index=[1])
    bars = viz.bars_by_position(values, values, {"ResNet-101": 3}, "slow-down", series).axes[0]
    assert to_hex(plane.lines[0].get_color()) == to_hex(bars.patches[1].get_facecolor()) != to_hex(bars.patches[0].get_facecolor())
    looks = viz.looks(["new"], series)
    assert len(set(looks.values())) == 4, "names beyond the series differ from all in it"
