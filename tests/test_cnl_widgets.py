"""The budget: exact costs, latencies that were measured or added up, a picture and controls that follow the choice."""
import pandas as pd
import pytest

from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.cnl import widgets
from reid_nb.papers.cnl.network import network_cost
from reid_nb.papers.cnl.variants import SHAPE_GROUPS, row_name


@pytest.fixture(scope="module")
def latencies():
    """C-NL whole, HAC only at 8, and one measured pair; quartiles 0.03 and 0.04 beside each ratio."""
    ratios = {"ResNet-50": 1.0, "ResNet-101": 1.5, "HAC @ 8": 1.08, "C-NL @ 8, 14": 1.2}
    ratios |= {row_name("cnl", (at,)): 1.0 + at / 100 for at in SHAPE_GROUPS.values()}
    table = pd.DataFrame({"ratio": ratios}).assign(noisy=False)
    table.loc["C-NL @ 17", "noisy"] = True
    return widgets.Measured(table.assign(ratio_q1=table["ratio"] - 0.03, ratio_q3=table["ratio"] + 0.04), "made up")


def test_added_costs_are_those_of_the_networks(latencies):
    found = widgets.budget("cnl", (6, 8, 14), latencies)
    with_blocks, plain = network_cost(block="cnl", positions=[6, 8, 14]), network_cost()
    assert found.added == (with_blocks.parameters - plain.parameters, with_blocks.macs - plain.macs)


def test_a_choice_in_the_table_is_taken_from_it(latencies):
    found = widgets.budget("cnl", (14, 8), latencies)
    assert (found.ratio, found.low, found.high, found.measured) == pytest.approx((1.2, 1.17, 1.24, True))


@pytest.mark.parametrize("same_shapes", [(5, 9), (7, 12), (13, 6)])
def test_positions_of_equal_shape_share_a_measurement(same_shapes, latencies):
    assert widgets.budget("cnl", same_shapes, latencies).ratio == 1.2


def test_other_choices_are_added_up_with_independent_errors(latencies):
    found = widgets.budget("cnl", (6, 8, 14), latencies)
    assert not found.measured and found.ratio == pytest.approx(1 + 0.08 + 0.08 + 0.14)
    assert (found.ratio - found.low, found.high - found.ratio) == pytest.approx((0.03 * 3**0.5, 0.04 * 3**0.5))


def test_no_position_is_the_plain_network(latencies):
    found = widgets.budget("cnl", (), latencies)
    assert found.added == (0, 0) and found.ratio == 1
    assert widgets.in_words("cnl", (), latencies).startswith("ResNet-50: +0.00 M parameters")


def test_the_sentence_says_measured_added_up_or_noisy(latencies):
    assert "latency 1.200 of ResNet-50 (1.170 to 1.240, measured)." in widgets.in_words("cnl", (8, 14), latencies)
    assert "added up from single blocks)." in widgets.in_words("cnl", (6, 8, 14), latencies)
    assert "measured, noisy: measure again)." in widgets.in_words("cnl", (15,), latencies)


def test_wrong_choices_are_refused(latencies):
    with pytest.raises(UsageError, match="no attention block named 'cln'"):
        widgets.budget("cln", (8,), latencies)
    with pytest.raises(UsageError, match="18"):
        widgets.budget("cnl", (18,), latencies)
    with pytest.raises(ReidError, match="HAC @ 2 was not measured.*reid-nb profile resnet50 --block hac --positions 2"):
        widgets.budget("hac", (2,), latencies)


def test_the_papers_points_are_the_papers(latencies):
    points = widgets.paper_points()
    assert points.loc["C-NL @ 6, 8, 14"].tolist() == [0.8806, 1.0462] and points.loc["ResNet-101", "mAP"] == 0.8707
    assert "ResNet-50" not in points.index  # its mAP is drawn, not printed


def test_the_plane_marks_the_choice_and_the_accuracy_that_the_paper_got(latencies):
    from matplotlib.colors import to_hex

    figure = widgets.plane("cnl", (8, 14), latencies)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["C-NL @ 8, 14 (ours)"].get_xdata()[0] == 1.2 and lines["ResNet-101 (ours)"].get_xdata()[0] == 1.5
    rings = [line for line in figure.axes[0].lines if line.get_markersize() == 14]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(1.2, 0.8788)]
    assert to_hex(rings[0].get_color()) == to_hex(lines["C-NL @ 8, 14 (ours)"].get_color())
    assert not [line for line in widgets.plane("cnl", (3,), latencies).axes[0].lines if line.get_markersize() == 14]


def test_no_figure_stays_open(latencies):
    import matplotlib.pyplot as plt

    plt.close("all")
    assert widgets.picture("cnl", (8,), latencies).startswith(b"\x89PNG") and not plt.get_fignums()


def test_the_controls_change_text_and_picture(latencies):
    box = widgets.explore(latencies, "cnl", (8,))
    kind, (where, image), text = box.children[0], box.children[1].children, box.children[2]
    assert [name for _, name in kind.options] == ["cnl"] and tuple(where.options) == tuple(range(1, 18))
    before = image.value
    where.value = (8, 14)
    assert text.value == widgets.in_words("cnl", (8, 14), latencies) and image.value != before
    where.value = ()
    assert text.value.startswith("ResNet-50")
    with pytest.raises(ReidError, match="HAC not at every shape. Blocks to choose from: C-NL|cnl"):
        widgets.explore(latencies, "hac")


def test_the_largest_presets_measurement_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    assert widgets.stored() is None
    row = {"batch": 16, "candidate": "ResNet-50", "ratio": 1.0, "ratio_q1": 1.0, "ratio_q3": 1.0, "noisy": False}
    for preset, ratio in [("mini", 1.0), ("night", 2.0), ("smoke", 3.0)]:
        folder = tmp_path / preset / "runs" / "cnl" / "latency-0123456789ab"
        folder.mkdir(parents=True)
        pd.DataFrame([{**row, "backend": "eager", "ratio": 9.0}, {**row, "backend": "onnxruntime", "ratio": ratio}]).to_csv(folder / "latency.csv")
    other = tmp_path / "night" / "runs" / "cnl" / "latency-shufflenet-v2-0123456789ab"   # newer, and of other networks
    other.mkdir()
    (other / "latency.csv").write_text("not read")
    found = widgets.stored()
    assert found.table.loc["ResNet-50", "ratio"] == 2.0 and found.source == "preset night, onnxruntime, batch 16"
