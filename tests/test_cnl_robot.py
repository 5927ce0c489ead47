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
    assert best.to_dict() == PRINTED and set(cells["row"]) == {*robot.ROWS, "ROREAS+"}
    assert cells[cells["row"] == "ROREAS+"].set_index("column")["paper_value"].astype(int).to_dict() == COUNTS


def evidence(*values, spread=0.006, seeds=3, judged=True, market=0.9):
    places = {**{robot.on_robot(number): value for number, value in enumerate(values, 1)}, ("table_1", robot.ATTENTION.row, "mAP"): market}
    table = pd.DataFrame([{"artefact": a, "row": r, "column": c, "value": v, "spread": spread, "seeds": seeds, "kind": "trained", "run": "x", "protocol": "p"}
                          for (a, r, c), v in places.items()])
    return Evidence(table, judged, lambda run, setting: [0.5, 0.5])


def verdicts(found):
    return {claim.name: claim.evaluate(found)["status"] for claim in robot.CLAIMS}


def test_every_claim_holds_fails_and_stays_undecided():
    assert set(verdicts(evidence(.60, .65, .75, .80, .70)).values()) == {"holds"}
    assert set(verdicts(evidence(.65, .60, .55, .50, .70, market=.5)).values()) == {"fails"}
    assert set(verdicts(evidence(.70, .709, .704, .713, .70, market=.71, spread=.01)).values()) <= {"undecided", "fails"}
    assert set(verdicts(evidence(.60, .65, .75, .80, .70, spread=.3)).values()) <= {"undecided", "fails"}
    assert set(verdicts(evidence(.60, .65, .75, .80, .70, judged=False)).values()) == {"not here"}
    assert set(verdicts(evidence(.60, .65, .75, .80, .70, seeds=1, spread=None)).values()) == {"undecided"}


def test_the_papers_own_sigma_does_not_decide_its_smaller_gain():
    found = verdicts(evidence(*PRINTED.values(), .70, market=.8916))
    assert found["fine-tuning helps on the robot"] == "holds" and found["C-NL helps on the robot"] == "undecided"
    assert found["the best configuration carries over"] == "holds" and found["C-NL is worth 1.5 sigma on the robot"] == "undecided"


def test_claims_have_names_of_their_own():
    assert len({claim.name for claim in robot.CLAIMS}) == len(robot.CLAIMS) and {claim.artefact for claim in robot.CLAIMS} == {"table_2"}
