"""The plan of `cnl`: no artefact of a preset lacks a number that another one of the same preset has."""
import pytest

from reid_nb.papers.cnl.plan import SMOKE_SPEED, candidates
from reid_nb.papers.cnl.variants import TABLE_1, VARIANTS, job_name, representative, row_name, variant
from reid_nb.plans import PRESETS, load_plan


@pytest.mark.parametrize("preset", PRESETS)
def test_what_any_part_of_the_plan_trains_stands_in_every_table_that_has_the_row(preset):
    plan = load_plan("cnl", preset, 1)
    rows = {"table_1": [each for each in VARIANTS if each in TABLE_1], "figure_1": [each for each in VARIANTS if not each.circle],
            "figure_5": [variant(block, at) for block in ("hac", "cnl", "agw", "raga", "abd") for at in range(1, 18)]}
    for artefact, networks in rows.items():
        trained = {job_name(each, 0) for each in networks} & set(plan.jobs)
        assert trained and trained <= set(plan.artefact(artefact).needs)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_speed_that_figure_4_borrows_is_measured_in_table_1(preset):
    measured = {each.row for each in candidates(preset)}
    for each in TABLE_1:
        if len(each.positions) == 1 and row_name(each.block, (representative(each.positions[0]),)) in measured:
            assert each.row in measured


def test_smoke_measures_only_networks_that_exist():
    assert set(SMOKE_SPEED) == {each.row for each in candidates("smoke")}
