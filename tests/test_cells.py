"""Cells: what the paper prints, what may be concluded, and the files a reader gets."""
import pandas as pd
import pytest

from reid_nb import cells as cells_module
from reid_nb.cells import CELL_COLUMNS, Sheet, formatted, paper_cells, status_of, tolerance, wide, write_tables
from reid_nb.errors import ReidError, UsageError
from reid_nb.plans import PAPERS, PRESETS, Data, load_plan

TWIN, REAL = Data("market1501", "mini"), Data("market1501", None)


@pytest.mark.parametrize("text, half_a_unit", [("0.8733", 0.00005), ("25.9", 0.05), ("23,508,032", 0.5), ("87", 0.5)])
def test_tolerance_is_half_a_unit_of_the_last_printed_digit(text, half_a_unit):
    assert tolerance(text) == pytest.approx(half_a_unit)


@pytest.mark.parametrize("kind, preset, real, value, text, expected", [
    ("architecture", "smoke", False, 100.4, "100", "match"),
    ("architecture", "smoke", False, 100.6, "100", "differs"),
    ("trained", "mini", False, 0.8733, "0.8733", "shown"),
    ("trained", "gpu", True, 0.8733, "0.8733", "shown"),
    ("trained", "paper", True, 0.87334, "0.8733", "match"),
    ("trained", "paper", True, 0.8735, "0.8733", "differs"),
    ("hardware", "paper", True, 25.0, "25.0", "shown"),
    ("data", "mini", False, 751, "751", "shown"),
    ("data", "mini", True, 751, "751", "match"),
    ("trained", "mini", False, 0.5, "", "not-published"),
    ("trained", "mini", False, None, "0.8733", "missing"),
])
def test_status_says_what_may_be_concluded(kind, preset, real, value, text, expected):
    number = float(text.replace(",", "")) if text else float("nan")
    assert status_of(kind, value, text, number, PRESETS[preset], real) == expected


def test_a_formula_is_compared_exactly():
    assert status_of("architecture", 34400, "", 34400.0, PRESETS["smoke"], False) == "match"
    assert status_of("architecture", 34401, "", 34400.0, PRESETS["smoke"], False) == "differs"


def test_a_reason_explains_a_missing_value():
    assert status_of("trained", None, "0.66", 0.66, PRESETS["mini"], False, "needs-data") == "needs-data"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_artefact_has_cells_of_the_paper(paper):
    assert set(paper_cells(paper)["artefact"]) == set(load_plan(paper, "mini").artefacts)


@pytest.mark.parametrize("paper", PAPERS)
def test_printed_text_and_number_agree(paper):
    printed = paper_cells(paper).query("paper_text != ''")
    assert all(float(text.replace(",", "")) == value for text, value in zip(printed["paper_text"], printed["paper_value"]))


def test_table_1_of_cnl_is_the_printed_table():
    """Spot checks against the paper's text, row by row of its first, a middle and its last line."""
    table = paper_cells("cnl", "table_1").set_index(["row", "column"])
    for row, accuracy, spread, speed in [("HAC @ 8", "0.8733", 0.0006, "25.17"), ("AGW @ 8, 14", "0.8805", 0.0014, "21.09"),
                                         ("C-NL @ 6, 8, 14 (circle loss)", "0.8916", 0.0005, "25.89")]:
        assert table.loc[(row, "mAP"), "paper_text"] == accuracy
        assert table.loc[(row, "mAP"), "paper_spread"] == spread
        assert table.loc[(row, "speed"), "paper_text"] == speed


def test_a_sheet_takes_values_with_their_provenance():
    sheet = Sheet("cnl", "table_1", PRESETS["mini"])
    sheet.put("C-NL @ 8", "mAP", [0.5, 0.52, 0.54], data=TWIN, weights="twin-trunk", run="a b c")
    frame = sheet.frame()
    cell = frame.set_index(["row", "column"]).loc[("C-NL @ 8", "mAP")]
    assert list(frame.columns) == CELL_COLUMNS
    assert (cell["value"], cell["seeds"], cell["status"]) == (pytest.approx(0.52), 3, "shown")
    assert cell["spread"] == pytest.approx(0.02) and cell["dataset"] == "market1501 (twin, mini)"
    assert (frame.query("row != 'C-NL @ 8'")["status"].isin(["missing", "not-published"])).all()


def test_a_number_from_several_datasets_names_them_all():
    sheet = Sheet("cnl", "table_1", PRESETS["mini"])
    sheet.put("C-NL @ 8", "mAP", 0.5, data=[TWIN, Data("prcc", "mini"), TWIN])
    assert sheet.frame().set_index(["row", "column"]).loc[("C-NL @ 8", "mAP"), "dataset"] == f"{TWIN.label}, prcc (twin, mini)"


def test_a_sheet_refuses_a_cell_that_the_paper_does_not_have():
    with pytest.raises(UsageError, match="C-NL @ 9"):
        Sheet("cnl", "table_1", PRESETS["mini"]).put("C-NL @ 9", "mAP", 0.5)


def test_a_damaged_cells_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cells_module, "project_root", lambda: tmp_path)
    (tmp_path / "data" / "cells").mkdir(parents=True)
    with pytest.raises(ReidError, match="cnl.csv is missing"):
        paper_cells("cnl")
    (tmp_path / "data" / "cells" / "cnl.csv").write_text("paper,artefact\ncnl,table_1\n")
    with pytest.raises(ReidError, match="columns missing.*paper_text"):
        paper_cells("cnl")


@pytest.mark.parametrize("value, spread, like, text", [
    (0.87334, None, "0.8733", "0.8733"), (0.5, 0.012, "0.8733", "0.5000 ± 0.0120"), (23508032, None, "", "23,508,032"),
    (1.0463, None, "", "1.046"), (float("nan"), None, "", ""), (12.0, None, "12", "12"), (11.4, None, "12", "11.40")])
def test_numbers_are_written_as_the_paper_writes_them(value, spread, like, text):
    assert formatted(value, spread, like) == text


def test_tables_are_written_as_csv_and_latex(tmp_path):
    sheet = Sheet("cnl", "table_1", PRESETS["mini"])
    sheet.put("C-NL @ 8", "mAP", 0.5)
    write_tables(sheet.frame(), tmp_path, "A caption with 100 % and _")
    read = pd.read_csv(tmp_path / "table.csv", index_col="row", dtype=str)
    assert read.loc["C-NL @ 8", "mAP (ours)"] == "0.5000" and read.loc["C-NL @ 8", "mAP (paper)"] == "0.8755 ± 0.0007"
    latex = (tmp_path / "table.tex").read_text()
    assert r"\toprule" in latex and "C-NL @ 8" in latex
    assert len(wide(sheet.frame())) == sheet.frame()["row"].nunique()


@pytest.mark.parametrize("origin, status", [("real", "match"), ("twin", "shown"), ("", "shown")])
def test_only_the_real_dataset_is_compared_with_the_paper(origin, status):
    """What a run read decides, by its own record: asking for the real dataset is not having it."""
    sheet = Sheet("cnl", "table_1", PRESETS["paper"])
    sheet.put("C-NL @ 8", "mAP", 0.8755, data=Data("market1501", None), origin=origin)
    assert sheet.frame().set_index(["row", "column"]).loc[("C-NL @ 8", "mAP"), "status"] == status
