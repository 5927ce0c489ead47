"""The committed results of three seeds: they are whole, they are a twin's, and the sentences judged on them come out as they are printed."""

from typing import NamedTuple

import pandas as pd
import pytest

from reid_nb.cells import paper_cells, read_cells
from reid_nb.claims import Claim, Evidence, evaluate_claims
from reid_nb.files import project_root, read_json
from reid_nb.papers.cnl.claims import CLAIMS as CNL
from reid_nb.papers.uniat.claims import CLAIMS as UNIAT
from reid_nb.plans import PRESETS

PLACE = ["artefact", "row", "column"]


class Expected(NamedTuple):
    claims: list[Claim]
    trained: int   # at least so many scores of trained networks
    exact: int     # at least so many counts that the paper prints, too
    pending: frozenset[str] = frozenset()   # artefacts that were not asked for yet


PAPERS = {"cnl": Expected(CNL, 70, 400), "uniat": Expected(UNIAT, 200, 30, frozenset({"table_1", "table_2", "table_5", "table_6"}))}


@pytest.fixture(scope="module", params=PAPERS)
def paper(request):
    return request.param


@pytest.fixture(scope="module")
def folder(paper):
    return project_root() / "outputs" / "reference" / "night" / paper


@pytest.fixture(scope="module")
def cells(folder):
    return read_cells(folder / "cells.csv")


def test_the_reference_says_where_it_comes_from(paper, folder):
    batch = read_json(folder / "reproduction.json")
    assert batch["papers"] == [paper] and batch["preset"] == "night" and batch["seeds"] == 3 and len(batch["commit"]) == 40


def test_nothing_is_missing_but_what_was_not_asked_for(paper, folder, cells):
    assert read_json(folder / "reproduction.json")["failed"] == []
    assert set(cells.loc[cells["status"] == "missing", "artefact"]) == PAPERS[paper].pending


def test_every_number_of_the_paper_has_its_cell(paper, cells):
    known = paper_cells(paper)
    there = set(map(tuple, cells[PLACE].to_numpy()))
    assert set(map(tuple, known[PLACE].to_numpy())) <= there
    assert (cells["preset"] == "night").all()


def test_trained_numbers_are_a_twins_with_three_seeds(paper, cells):
    trained = cells[(cells["kind"] == "trained") & cells["value"].notna() & cells["dataset"].ne("") & cells["unit"].isin(["fraction", "percent"])]
    assert len(trained) > PAPERS[paper].trained and trained["dataset"].str.contains("twin").all() and (trained["seeds"] == 3).all()
    assert not trained["status"].isin(["match", "differs"]).any(), "a twin's number is never compared with the paper's"


def test_counts_match_the_paper(paper, cells):
    exact = cells[(cells["kind"] == "architecture") & cells["paper_value"].notna() & cells["value"].notna()]
    assert len(exact) > PAPERS[paper].exact and (exact["status"] == "match").all()


def test_the_sentences_are_judged_again_to_the_same_verdicts(paper, folder, cells):
    def no_runs(run, setting):
        raise AssertionError(f"{run}: three seeds need no bootstrap")

    again = evaluate_claims(PAPERS[paper].claims, Evidence(cells, PRESETS["night"].judged, no_runs), "night")
    told = pd.read_csv(folder / "claims.csv")
    assert list(again["claim"]) == list(told["claim"]) and list(again["status"]) == list(told["status"])
    assert pd.to_numeric(again["margin"]).round(6).equals(pd.to_numeric(told["margin"]).round(6))
