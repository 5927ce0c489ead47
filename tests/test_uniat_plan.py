"""The plan of Uni-AT: every trained row of the paper's tables has its jobs, every job its data, settings and start, at every preset."""

import pandas as pd
import pytest

from reid_nb import settings
from reid_nb.files import project_root
from reid_nb.papers.uniat.experts import added_parameters
from reid_nb.papers.uniat.plan import CROSS, DENSE, METHODS, OWN, SIZES, SOURCES, TIMES, UNIFIED, job_name, plan, source
from reid_nb.papers.uniat.recipe import ABLATION, RIVALS, UNIAT_RECIPE
from reid_nb.papers.uniat.speed import TABLE_2
from reid_nb.plans import PRESETS

TABLES = {"table_1": SOURCES, "table_2": ["MS-ReID", *RIVALS, "MoAE 12"], "table_3": [*ABLATION, UNIFIED], "table_4": ABLATION,
          "table_5": [*METHODS, "Baseline", "Uni-AT"], "table_6": [*METHODS, "Baseline", "Uni-AT"], "mixed": ["Baseline", "Uni-AT"]}


@pytest.fixture(scope="module", params=PRESETS)
def made(request):
    return plan(PRESETS[request.param], 2)


def test_every_trained_row_of_the_paper_has_its_jobs(made):
    cells = pd.read_csv(project_root() / "data" / "cells" / "uniat.csv")
    own = cells[(cells["kind"] == "trained") & (cells["source"] != "quoted")]
    for artefact, rows in own.groupby("artefact")["row"].unique().items():
        if artefact not in TABLES or (artefact == "table_2" and not SIZES[made.preset.name].rivals):
            continue
        rows = [name for name in rows if name != UNIFIED or SIZES[made.preset.name].full]
        wanted = [source(name) if artefact == "table_1" else name for name in rows if name in TABLES[artefact]]
        assert len(wanted) == len([name for name in rows if name != "AT-USTC" or artefact == "table_1"]), (artefact, rows)
        needs = made.artefact(artefact).needs
        for name in wanted:
            elsewhere = CROSS if artefact in ("table_1", "table_4", "table_6") else (None,)
            assert {job_name(name, seed, dataset) for seed in (0, 1) for dataset in elsewhere} <= set(needs), (artefact, name)


def test_every_job_is_scored_in_settings_of_its_own_data(made):
    for job in made.jobs.values():
        if job.kind == "measure":
            continue
        names = [name for name in job.settings if name != "at_ustc/mixed"]
        assert names and all(settings.get(name).dataset == job.data.dataset for name in names)
    assert set(OWN) >= set(SOURCES.values()) and all(settings.get(name[0]).original for name in CROSS.values())


def test_rows_of_one_network_share_its_job(made):
    assert job_name("MS-ReID", 0) == job_name("SAID", 0) == "said-s0" and job_name("MoAE 12", 1, "prcc") == "said-moae-prcc-s1"
    assert len(made.jobs) == len({(job.kind, str(getattr(job, "recipe", job.start)), job.data, getattr(job, "seed", job.name)) for job in made.jobs.values()})


def test_experts_at_work_needs_the_networks_that_it_compares_and_their_start(made):
    needs = made.artefact("experts_at_work").needs
    assert set(needs) == {job_name(name, seed) for name in ("SAID", "SAID + MoAE", "Uni-AT") for seed in (0, 1)}
    assert all((made.job(name).start in made.jobs) == bool(SIZES[made.preset.name].trunk) for name in needs)


def test_rows_train_equally_long_from_one_trunk(made):
    size = SIZES[made.preset.name]
    rows = [made.job(job_name(name, 0)) for name in (*ABLATION, *(RIVALS if size.rivals else ()))]
    assert len({(job.recipe.epochs, job.recipe.batches, job.recipe.lr, job.start) for job in rows}) == 1
    assert rows[0].start == ("trunk-s0" if size.trunk else None)


def test_one_token_for_all_trains_as_long_as_the_others(made):
    """Same steps, learning rate and start, no experts and no scenario-aware loss; only where nobody needs a trunk, since one of six tokens would not fit."""
    size = SIZES[made.preset.name]
    assert (job_name(UNIFIED, 0) in made.jobs) == (job_name(UNIFIED, 0) in made.artefact("table_3").needs) == size.full
    if not size.full:
        return
    row, other = made.job(job_name(UNIFIED, 0)), made.job("baseline-s0")
    assert row.recipe.model_args == other.recipe.model_args | {"tokens": 1} and row.recipe.losses == {"said": False, "hdw": False}
    same = [name for name in row.recipe.to_dict() if name not in ("name", "model_args", "losses")]
    assert [row.recipe.to_dict()[name] for name in same] == [other.recipe.to_dict()[name] for name in same]
    assert row.start is other.start is None


def test_the_papers_preset_is_the_papers_recipe():
    recipe = plan(PRESETS["paper"], 1).job("uni-at-s0").recipe
    assert recipe.scaled(name="x") == UNIAT_RECIPE.scaled(name="x")


def test_twins_of_the_sizes_exist(made):
    from reid_nb.runs import twin_module
    for data in {job.data for job in made.jobs.values() if job.data}:
        assert data.size is None or data.size in twin_module(data.dataset).SIZES


def test_times_are_measured_once_and_for_rows_that_there_are(made):
    [job] = [job for job in made.jobs.values() if job.kind == "measure"]
    assert job.name in made.artefact("table_2").needs and made.artefact("table_2").needs.count(job.name) == 1
    names = job.arguments["names"]
    assert set(names) <= {*TABLE_2, DENSE} and "MS-ReID" not in names and {"MoAE 12", DENSE} <= set(names)
    if made.preset.name not in ("smoke", "mini"):
        assert set(names) == {*TABLE_2, DENSE} - {"MS-ReID"}
    assert ("embed_dim" in job.arguments) == (made.preset.name == "smoke"), "the paper's network at every preset but smoke"


def test_two_networks_of_a_duel_fit_into_memory():
    """Weights, gradients and momentum, four bytes each; what is left of 24 GB has to do for the activations."""
    largest = max(added_parameters(TABLE_2[name.removesuffix(" (all computed)")]) for name in TIMES["night"]["names"])
    assert (2 * 87_194_112 + largest) * 12 < 12e9


def test_a_small_batch_is_never_larger_than_the_papers():
    assert [TIMES[name]["batch"] for name in PRESETS] == sorted(TIMES[name]["batch"] for name in PRESETS) and TIMES["paper"]["batch"] == 64
