"""The widget: its numbers are the evaluator's, its functions work without it, and its controls change what it shows."""
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb.errors import ReidError, UsageError
from reid_nb.metrics import evaluate
from reid_nb.protocols import PROTOCOLS
from reid_nb.records import Dataset
from reid_nb.widgets import Exam, ap_text, explore, picture, ranking_panel, rule_table


def table(prefix, pids, camids):
    return pd.DataFrame({"path": [f"{prefix}{i}.png" for i in range(len(pids))], "pid": pids, "camid": camids})


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """Query 0 has a near answer in its own camera and one in another; query 1 has none in its own camera."""
    root = tmp_path_factory.mktemp("exam")
    query, gallery = table("q", [1, 2], [1, 1]), table("g", [1, 2, 1, 2], [1, 2, 2, 3])
    for path in [*query["path"], *gallery["path"]]:
        Image.new("RGB", (8, 16), "green").save(root / path)
    angles = lambda *degrees: np.array([[np.cos(d), np.sin(d)] for d in np.radians(degrees)])
    return Exam(Dataset("tiny", root, gallery, query, gallery, "own"), angles(0, 90), angles(1, 20, 40, 80))


def test_the_rules_change_the_ap_as_counted_by_hand(exam):
    """Query 0 sees g0 (own camera), g1 (wrong), g2, g3: without g0 the answer is second, with it the answers are first and third."""
    rules = rule_table(0, exam)
    assert rules.loc["market1501", ["ap", "first_hit", "hits"]].tolist() == [1 / 2, 2, 1]
    assert rules.loc["all_pairs", "ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert rules.loc["same_camera", ["ap", "hits"]].tolist() == [1, 1]


def test_the_means_are_the_evaluators(exam):
    data = exam.dataset
    for name, score in rule_table(1, exam)["mAP"].items():
        assert score == evaluate(exam.query, exam.gallery, data.query, data.gallery, PROTOCOLS[name]).mAP


def test_the_sentence_says_what_counts_and_when_nothing_does(exam):
    assert ap_text(0, "market1501", exam).startswith("Under market1501: 1 right answer, the first at rank 2, AP 50.0%.")
    assert "nothing to find" in ap_text(1, "same_camera", exam)


def test_the_panel_shows_the_query_and_its_list_with_signs(exam):
    figure = ranking_panel(0, "market1501", exam, top=4)
    assert [axes.get_title() for axes in figure.axes] == ["query", "– ", "✗ 1", "✓ 2", "✗ 3"]
    assert figure.get_suptitle() == ap_text(0, "market1501", exam)


def test_no_figure_stays_open(exam):
    import matplotlib.pyplot as plt

    plt.close("all")
    assert picture(0, "all_pairs", exam, top=2).startswith(b"\x89PNG") and not plt.get_fignums()


def test_the_controls_change_text_and_picture(exam):
    controls, text, image = explore(exam, top=4).children
    query, rule = controls.children
    assert (query.min, query.max) == (0, 1) and rule.options == tuple(PROTOCOLS)
    before = image.value
    rule.value = "all_pairs"
    assert text.value == ap_text(0, "all_pairs", exam) and image.value != before
    query.value = 1
    assert text.value == ap_text(1, "all_pairs", exam) and image.value == picture(1, "all_pairs", exam, top=4)


def test_only_rules_that_the_tables_allow_are_offered(exam):
    data = exam.dataset
    query, gallery = data.query.drop(columns="camid"), data.gallery.drop(columns="camid")
    bare = Exam(Dataset("bare", data.root, gallery, query, gallery, "own"), exam.query, exam.gallery)
    assert list(bare.evaluations) == ["all_pairs"]
    with pytest.raises(UsageError, match="all_pairs"):
        ap_text(0, "market1501", bare)


def test_errors_say_what_is_wrong(exam):
    with pytest.raises(UsageError, match="rows 0 to 1"):
        rule_table(2, exam)
    with pytest.raises(UsageError, match="rows 0 to 1"):
        ranking_panel(-1, "market1501", exam)
    strangers = exam.dataset.gallery.assign(pid=9)
    with pytest.raises(ReidError, match="same people"):
        Exam(Dataset("none", exam.dataset.root, strangers, exam.dataset.query, strangers, "own"), exam.query, exam.gallery).evaluations
