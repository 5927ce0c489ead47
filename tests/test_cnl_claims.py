"""The sentences of `cnl`: the paper's own numbers bear them out; numbers that say the opposite refute them; noise and gaps leave them open."""
from functools import cache

import numpy as np
import pandas as pd
import pytest

from reid_nb.cells import paper_cells
from reid_nb.claims import Evidence
from reid_nb.papers.cnl import robot
from reid_nb.papers.cnl.ablation import RAW
from reid_nb.papers.cnl.claims import CLAIMS, OPEN, unbeaten
from reid_nb.papers.cnl.network import added_cost

JUDGED = [claim for claim in CLAIMS if claim not in OPEN and claim not in robot.CLAIMS]   # those of the robot: test_cnl_robot
RULES = ("good singles", "stage ends", "far apart", "mixed types", "three are enough")
EXACT = "C-NL multiplies small matrices"


def invented_slow_down(row):
    """A slow-down where the paper prints none, in the order that its section IV-B describes."""
    if "@" not in row:
        return {"ResNet-50": 1.0, "ResNet-101": 1.448}[row]
    kind, at = row.split(" @ ")
    at = int(at)
    late = {"HAC": 1.08, "C-NL": 1.015 if at < 15 else 1.09, "SE": 1.05, "AGW": 1.2, "RAGA": 1.4, "ABD": 1.35}[kind]
    return late + 0.6 * (at < 5) * (kind in ("AGW", "RAGA", "ABD"))


@cache
def printed():
    """What the paper prints, as if it were ours; where it prints nothing, numbers that agree with its text."""
    cells = paper_cells("cnl").astype({"paper_value": float})
    cells = cells.assign(value=cells["paper_value"], spread=cells["paper_spread"], seeds=3, run=cells["row"], protocol="p")
    hardware, figure_4 = cells["column"] == "slow-down", cells["artefact"] == "figure_4"
    cells.loc[figure_4 & hardware, "value"] = cells[figure_4 & hardware]["row"].map(invented_slow_down)
    cells.loc[hardware, "spread"] = 0.002
    cells.loc[(cells["column"] == "mAP") & (cells["row"] == "ResNet-50"), ["value", "spread"]] = 0.859, 0.001
    cells.loc[cells["source"] == "cited", "spread"] = 0.001   # the paper cites this number without one
    cells.loc[cells["row"].isin(RAW) & (cells["column"] == "mAP"), ["value", "spread"]] = 0.860, 0.001   # no number printed: "not improve"
    rules = (cells["artefact"] == "search") & cells["row"].isin(RULES)
    cells.loc[rules & (cells["column"] == "gain"), ["value", "spread"]] = 0.002, 0.001
    cells.loc[rules & (cells["column"] == "comparisons"), "value"] = 12
    best = cells["column"] == "best mAP"
    cells.loc[best, "run"] = cells[best]["row"].map({"2 blocks": "C-NL @ 8, 14", "3 blocks": "C-NL @ 6, 8, 14"})
    return cells


def cells_of_the_paper():
    """A copy to change."""
    return printed().copy()


def turned_round(cells):
    """The opposite world: what was better is worse and what was fast is slow, and no two rows are alike."""
    accuracy, latency = cells["column"].isin(["mAP", "best mAP"]), cells["column"] == "slow-down"
    turned = cells.copy()
    turned.loc[accuracy, "value"] = 0.5 - 20 * (cells[accuracy]["value"] - 0.88)
    turned.loc[latency, "value"] = 2.25 - cells[latency]["value"]
    turned.loc[cells["column"] == "gain", "value"] *= -1
    turned.loc[cells["column"] == "added MACs", "value"] *= -1
    turned.loc[cells["column"] == "best mAP", "value"] += 0.5
    turned.loc[cells["column"] == "best mAP", "run"] = "another network"
    return turned


def judge(claim, cells, judged=True):
    ones = np.linspace(0.0, 1.0, 50)
    return claim.evaluate(Evidence(cells, judged, lambda run, setting: ones))


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.name)
def test_the_papers_own_numbers_bear_the_sentence_out(claim):
    """All but one: with three blocks and cross-entropy, AGW leads C-NL by 0.0009, within the printed spreads."""
    expected = "undecided" if claim.name == "non-local is best and slow" else "holds"
    assert judge(claim, cells_of_the_paper())["status"] == expected


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.name)
def test_the_opposite_refutes_it(claim):
    if claim.name == "speed depends on the shape alone":
        cells = cells_of_the_paper()
        cells.loc[(cells["artefact"] == "table_1") & (cells["row"] == "AGW @ 7") & (cells["column"] == "slow-down"), "value"] = 1.6
    else:
        cells = turned_round(cells_of_the_paper())
        cells.loc[cells["row"].isin(RAW), "value"] = 0.95   # above every other network
    assert judge(claim, cells)["status"] == "fails"


@pytest.mark.parametrize("claim", [claim for claim in JUDGED if claim.name != EXACT], ids=lambda claim: claim.name)
def test_noise_leaves_it_undecided(claim):
    cells = cells_of_the_paper().assign(spread=10.0)
    cells.loc[cells["column"] == "best mAP", "run"] = "another network"
    assert judge(claim, cells)["status"] == "undecided"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_without_numbers_it_says_what_it_needs(claim):
    found = judge(claim, cells_of_the_paper().assign(value=np.nan))
    assert found["status"] == "not here" and found["needs"]


def test_one_seed_decides_nothing_about_the_search():
    cells = cells_of_the_paper().assign(seeds=1)
    for claim in JUDGED:
        if claim.artefact == "search":
            assert judge(claim, cells)["status"] == "undecided"
    assert all(judge(claim, cells_of_the_paper(), judged=False)["status"] == "not here" for claim in JUDGED if claim.artefact == "search")


def test_a_rule_without_a_spread_is_undecided():
    cells = cells_of_the_paper()
    cells.loc[cells["column"] == "gain", "spread"] = np.nan
    assert judge(next(claim for claim in CLAIMS if claim.name == "keep them apart"), cells)["status"] == "undecided"


def test_the_winner_of_the_search_is_unbeaten_by_itself_and_beaten_by_a_better_one():
    cells = cells_of_the_paper()
    best = (cells["artefact"] == "search") & (cells["row"] == "2 blocks") & (cells["column"] == "best mAP")
    verdict = lambda: unbeaten("C-NL @ 8, 14")(Evidence(cells, True, lambda run, setting: None)).status
    assert verdict() == "holds"
    cells.loc[best, "run"] = "HAC @ 1, 2"
    assert verdict() == "undecided", "equally good"
    cells.loc[best, "value"] += 0.01
    assert verdict() == "fails"


def test_c_nl_multiplies_less_than_agw_everywhere():
    """The claim about matrices again, from the closed formulas."""
    assert all(added_cost("cnl", [at]).macs < added_cost("agw", [at]).macs for at in range(1, 18))


def test_names_are_unique_and_sections_are_the_papers():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.section for claim in CLAIMS} <= {"Abstract", "I", "II", "III-A", "III-B", "Fig. 1", "Fig. 3", "IV-A", "IV-B", "IV-C", "IV-D", "IV-E", "V", "V-A", "VI"}
    assert set(claim.artefact for claim in CLAIMS) <= set(paper_cells("cnl")["artefact"]), "a claim hangs on an artefact"


def test_evidence_of_every_claim_exists_as_cells():
    """No claim asks for a cell that the tables do not have (that would be a mistake in the claim, and raises)."""
    empty = paper_cells("cnl").assign(value=np.nan, spread=np.nan, seeds=0, run="")
    assert all(claim.evaluate(Evidence(pd.DataFrame(empty), True, None))["status"] == "not here" for claim in CLAIMS)
