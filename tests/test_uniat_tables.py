"""From a measurement to the cells of Table 2: what stands in a cell of time, and what it says about itself."""
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from reid_nb.cells import Sheet
from reid_nb.errors import UsageError
from reid_nb.papers.uniat.plan import DENSE
from reid_nb.papers.uniat.speed import DENSE as BEHIND
from reid_nb.papers.uniat.speed import PHASES
from reid_nb.papers.uniat.tables import ANYTIME, MAPS, ORDER, TIME_COLUMNS, agreement, conditions, experts_figure, order_figure, put_order, put_times
from reid_nb.plans import PRESETS, Data
from reid_nb.runs import Run, Session

RECORD = {"measured": {"batch": 4, "threads": 2, "device": "cpu", "vit": {}}, "conditions": {"cpu": "a processor", "gpu": None}}


def session(**changes):
    """A session whose measurement found 1.1 (1.05 to 1.25) for MoAE 12, noisy in training."""
    rows = [{"phase": phase, "candidate": name, "ratio": 1.1, "ratio_q1": 1.05, "ratio_q3": 1.25, "noisy": phase == "training"}
            for phase in PHASES for name in ("MoAE 12", DENSE)]
    run = SimpleNamespace(name="times-abc", record=RECORD | changes, table=lambda file: pd.DataFrame(rows))
    return SimpleNamespace(sheet=Sheet("uniat", "table_2", PRESETS["mini"]), run=lambda name: run)


def cells(*rows):
    here = session()
    for row in rows:
        put_times(here, row)
    return here.sheet.frame().set_index(["row", "column"])


def test_a_ratio_with_its_spread_and_conditions():
    found = cells("MoAE 12", DENSE)
    for row in ("MoAE 12", DENSE):
        for column in TIME_COLUMNS.values():
            cell = found.loc[(row, column)]
            assert cell["value"] == 1.1 and cell["spread"] == pytest.approx(0.1) and cell["run"] == "times-abc"
            assert cell["protocol"].startswith("batch 4, ViT-B/16 at 256 x 128, 2 cores, a processor")
            assert cell["protocol"].endswith("noisy") == (column == "training time")
    assert found.loc[("MoAE 12", "training time"), "status"] == "shown", "other hardware: beside the paper's number, not against it"
    assert found.loc[(DENSE, "training time"), "status"] == "not-published"


def test_the_reference_is_one_and_the_others_are_left_out():
    found = cells("MS-ReID", "MMoE 6")
    assert (found.loc["MS-ReID"].loc[list(TIME_COLUMNS.values()), "value"] == 1).all()
    assert (found.loc["MMoE 6"].loc[list(TIME_COLUMNS.values()), "status"] == "left-out").all()


@pytest.mark.parametrize("measured, machine, words", [
    ({"vit": {"image_size": [64, 32], "embed_dim": 24}}, {}, "batch 4, a ViT of width 24 at 64 x 32, 2 cores, a processor"),
    ({"device": "cuda", "batch": 64}, {"gpu": "a card"}, "batch 64, ViT-B/16 at 256 x 128, a card")])
def test_conditions_in_words(measured, machine, words):
    assert conditions({"measured": RECORD["measured"] | measured, "conditions": RECORD["conditions"] | machine}) == words


def test_names_agree_between_plan_and_measurement():
    assert DENSE == "MoAE 12" + BEHIND and set(TIME_COLUMNS) == set(PHASES)


def test_a_run_is_asked_for_settings_that_it_has(tmp_path):
    run = Run(tmp_path, {"settings": ["at_ustc/DT-ST"], "scores": {"at_ustc/DT-ST": {"mAP": 0.5}}})
    assert run.score() == run.score(setting="at_ustc/DT-ST") == 0.5
    with pytest.raises(UsageError, match="no setting of the run .*named 'at_ustc/DT-LT'.*Known: at_ustc/DT-ST"):
        run.score("mAP", "at_ustc/DT-LT")


def test_the_figure_shows_every_row_and_whose_numbers_they_are():
    figure = experts_figure(cells("MoAE 12", DENSE).reset_index(), "at_ustc (twin, mini)")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(dict.fromkeys(session().sheet.cells["row"]))
    assert "paper" in figure.axes[2].get_title(loc="left") and "twin" in figure.axes[3].get_title(loc="left")


PRINTED = [80.23, 21.48, 43.84, 23.88, 23.74, 15.31]   # Table 3's baseline: DT-ST, DT-LT, NT-ST, NT-LT, AD-ST, AD-LT


def ablation(*scores):
    """A session with one run of the baseline a seed; `scores`: six mAP each."""
    runs = {f"baseline-s{seed}": Run(Path(f"baseline-s{seed}-abc"), {"origin": "twin", "weights": "twin-trunk",
                                                              "scores": {setting: {"mAP": value / 100} for setting, value in zip(ANYTIME.values(), six)}})
            for seed, six in enumerate(scores)}
    plan = SimpleNamespace(seeds=len(scores), job=lambda name: SimpleNamespace(data=Data("at_ustc", "mini")))
    here = object.__new__(Session)   # without the plan's files
    here.sheet, here.run, here.plan = Sheet("uniat", "table_3", PRESETS["mini"]), runs.__getitem__, plan
    return here


def order(*scores):
    here = ablation(*scores)
    put_order(here, "Baseline")
    return here.sheet.frame().set_index(["row", "column"]).loc[("Baseline", ORDER)]


def test_the_order_of_the_scenarios_by_the_textbook_formula():
    """1 - 6 sum d^2 / (n (n^2 - 1)): two neighbours that change places cost 12 / 210."""
    swapped = [80, 24, 44, 25, 23, 15]   # DT-LT, printed as the fifth, comes out as the fourth
    assert agreement(PRINTED, PRINTED) == 1 and agreement([-value for value in PRINTED], PRINTED) == -1
    assert agreement(swapped, PRINTED) == pytest.approx(1 - 12 / 210)
    one = order(swapped)
    assert one["value"] == pytest.approx(1 - 12 / 210) and one["seeds"] == 1 and pd.isna(one["spread"])


def test_the_order_is_that_of_the_means_over_seeds():
    """One seed has two scenarios the wrong way round, by less than the two others have them the right way round."""
    wrong = [80, 24.1, 44, 25, 24, 15]
    found = order(wrong, PRINTED, PRINTED)
    assert found["value"] == 1 and found["seeds"] == 3 and found["spread"] == pytest.approx(12 / 210 / 3 ** 0.5)
    assert found["status"] == "not-published" and found["dataset"] == "at_ustc (twin, mini)" and len(found["run"].split()) == 3


def test_the_figure_of_the_order_labels_every_scenario():
    here = ablation(PRINTED)
    put_order(here, "Baseline")
    for column, value in zip(MAPS, PRINTED):
        here.sheet.put("Baseline", column, value)
    figure = order_figure(here.sheet.frame(), ["Baseline"], "a twin")
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(ANYTIME)
    assert axes.collections[0].get_offsets().tolist() == [[value, value] for value in PRINTED]
    assert "rank correlation 1.00" in axes.get_legend().get_texts()[0].get_text() and "a twin" in axes.get_title()
