"""Table II: the chain of runs, and Section V's sentences on invented and on the paper's numbers."""
from dataclasses import replace

import pandas as pd
import pytest

from reid_nb.cells import paper_cells
from reid_nb.claims import Evidence
from reid_nb.datasets.roreas import COUNTS
from reid_nb.papers.cnl import robot
from reid_nb.papers.cnl.variants import SIZES, trunk_jobs
from reid_nb.plans import PRESETS, Plan
from reid_nb.runs import twin_module

PRINTED = {"(1) ResNet-50, Market-1501 only": .6630, "(2) C-NL @ 6, 8, 14, Market-1501 only": .6684, "(3) ResNet-50, fine-tuned": .7551,
           "(4) C-NL @ 6, 8, 14, fine-tuned": .7658}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_jobs_make_a_whole_plan_at_every_preset(preset):
    size = SIZES[preset]
    jobs = [*trunk_jobs(size, 2), *robot.jobs(preset, size, 2)]
    assert len({job.name for job in jobs}) == len(jobs)
    plan = Plan("cnl", "x", PRESETS[preset], 2, {job.name: job for job in jobs}, {"table_2": replace(robot.ARTEFACT, needs=robot.needs(2))})
    for job in plan.jobs.values():
        if job.name.startswith("robot-"):
            assert job.data.dataset == "roreas" and job.settings == ("roreas/standard",)
            assert (job.data.size is None) == (preset == "paper") and (job.data.size is None or job.data.size in twin_module("roreas").SIZES)


@pytest.mark.parametrize("network", [robot.PLAIN, robot.ATTENTION], ids=["plain", "attention"])
def test_fine_tuning_takes_two_steps_from_the_market_run(network):
    known = {job.name: job for job in robot.jobs("mini", SIZES["mini"], 1)}
    second = known[robot.robot_job("tuned", network, 0)]
    first = known[second.start]
    market = known[first.start]
    assert first.recipe.frozen == "trunk neck" and second.recipe.frozen == "" and market.data.dataset == "market1501"
    assert known[robot.robot_job("direct", network, 0)].start == market.name
    assert first.recipe.model_args == second.recipe.model_args == market.recipe.model_args
    assert all("circle_classes" in job.recipe.losses for job in (first, second, market))
    assert known[robot.robot_job("alone", robot.PLAIN, 0)].start is None


def test_the_cells_are_the_papers():
    cells = paper_cells("cnl", "table_2")
    best = cells[cells["column"] == "best mAP"].set_index("row")["paper_value"].dropna()
    assert best.to_dict() == PRINTED and cells[cells["column"] == "best mAP"]["paper_spread"].isna().all(), "the paper prints no spread beside them"
    assert set(cells["row"]) == {*robot.ROWS, "ROREAS+", "spread of a row", "gain by attention, in spreads"}
    assert not cells["paper_text"].str.contains(",").any(), "34012 and 2520, as printed"
    assert cells[cells["row"] == "ROREAS+"].set_index("column")["paper_value"].astype(int).to_dict() == COUNTS


def evidence(*values, spread=0.006, seeds=3, judged=True):
    places = {robot.on_robot(number): value for number, value in enumerate(values, 1)}
    table = pd.DataFrame([{"artefact": a, "row": r, "column": c, "value": v, "spread": spread, "seeds": seeds, "kind": "trained", "run": "x", "unit": "fraction", "protocol": "p"}
                          for (a, r, c), v in places.items()])
    return Evidence(table, judged, lambda run, setting: [0.5, 0.5])


def verdicts(found):
    return {claim.name: claim.evaluate(found)["status"] for claim in robot.CLAIMS}


def test_every_claim_holds_fails_and_stays_undecided():
    assert set(verdicts(evidence(.60, .65, .75, .80, .70)).values()) == {"holds"}
    assert set(verdicts(evidence(.65, .60, .55, .50, .70)).values()) == {"fails"}
    assert set(verdicts(evidence(.70, .709, .704, .713, .70, spread=.01)).values()) == {"undecided"}
    assert set(verdicts(evidence(.60, .65, .75, .80, .70, spread=.3)).values()) <= {"undecided", "fails"}
    assert set(verdicts(evidence(.60, .65, .75, .80, .70, judged=False)).values()) == {"not here"}
    one_seed = verdicts(evidence(.60, .65, .75, .80, .70, seeds=1, spread=None))
    assert one_seed.pop("C-NL is worth 1.5 sigma on the robot") == "not here", "one seed has no sigma, and the paper's is that of other data"
    assert set(one_seed.values()) == {"undecided"}


def test_the_papers_own_sigma_does_not_decide_its_smaller_gain():
    found = verdicts(evidence(*PRINTED.values(), .70))
    assert found["fine-tuning helps on the robot"] == "holds" and found["C-NL helps on the robot"] == "undecided"
    assert found["the best configuration carries over"] == "holds" and found["C-NL is worth 1.5 sigma on the robot"] == "undecided"


@pytest.mark.parametrize("gain, expected", [(0.013, "holds"), (0.008, "undecided"), (0.003, "fails")])
def test_1_5_sigma_is_judged_by_the_standard_error_of_means(gain, expected):
    """1.25 x 0.006 = 0.0075, and the mean of two differences of means of three has the standard error 0.006 / sqrt(3) = 0.0035."""
    assert verdicts(evidence(.60, .60 + gain, .70, .70 + gain, .5))["C-NL is worth 1.5 sigma on the robot"] == expected


def test_claims_have_names_of_their_own():
    assert len({claim.name for claim in robot.CLAIMS}) == len(robot.CLAIMS) and {claim.artefact for claim in robot.CLAIMS} == {"table_2"}
