"""The committed results of three seeds: they are whole, they are a twin's, and the sentences judged on them come out as they are printed."""

import pandas as pd
import pytest

from reid_nb.cells import paper_cells, read_cells
from reid_nb.claims import Evidence, evaluate_claims
from reid_nb.files import project_root, read_json
from reid_nb.papers.cnl.claims import CLAIMS
from reid_nb.plans import PRESETS

NIGHT = project_root() / "outputs" / "reference" / "night"
PLACE = ["artefact", "row", "column"]


@pytest.fixture(scope="module")
def cells():
    return read_cells(NIGHT / "cells.csv")


def test_the_reference_says_where_it_comes_from():
    batch = read_json(NIGHT / "reproduction.json")
    assert batch["preset"] == "night" and batch["seeds"] == 3 and len(batch["commit"]) == 40


def test_nothing_is_missing(cells):
    assert read_json(NIGHT / "reproduction.json")["failed"] == [] and not (cells["status"] == "missing").any()


def test_every_number_of_the_paper_has_its_cell(cells):
    known = paper_cells("cnl")
    there = set(map(tuple, cells[PLACE].to_numpy()))
    assert set(map(tuple, known[PLACE].to_numpy())) <= there
    assert (cells["preset"] == "night").all()


def test_trained_numbers_are_a_twins_with_three_seeds(cells):
    trained = cells[(cells["kind"] == "trained") & cells["value"].notna() & cells["dataset"].ne("") & (cells["unit"] == "fraction")]
    assert len(trained) > 70 and trained["dataset"].str.contains("twin").all() and (trained["seeds"] == 3).all()
    assert not trained["status"].isin(["match", "differs"]).any(), "a twin's number is never compared with the paper's"


def test_counts_match_the_paper(cells):
    exact = cells[(cells["kind"] == "architecture") & cells["paper_value"].notna() & cells["value"].notna()]
    assert len(exact) > 400 and (exact["status"] == "match").all()


def test_the_sentences_are_judged_again_to_the_same_verdicts(cells):
    def no_runs(run, setting):
        raise AssertionError(f"{run}: three seeds need no bootstrap")

    again = evaluate_claims(CLAIMS, Evidence(cells, PRESETS["night"].judged, no_runs), "night")
    told = pd.read_csv(NIGHT / "claims.csv")
    assert list(again["claim"]) == list(told["claim"]) and list(again["status"]) == list(told["status"])
    assert pd.to_numeric(again["margin"]).round(6).equals(pd.to_numeric(told["margin"]).round(6))
