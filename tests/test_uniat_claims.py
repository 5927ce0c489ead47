"""The sentences of `uniat`: the paper's own numbers bear them out, the opposite refutes them, noise and gaps leave them open; and its cells."""
from functools import cache

import numpy as np
import pandas as pd
import pytest

from quotations import plain, stands_in
from reid_nb.cells import paper_cells
from reid_nb.claims import Evidence
from reid_nb.files import project_root
from reid_nb.papers.uniat.claims import CLAIMS, DATASET, OPEN, QUOTED
from reid_nb.papers.uniat.experts import LAYOUTS
from reid_nb.protocols import SCENARIOS

PAPER = project_root().parent / "shared" / "papers" / "uni_at.txt"
JUDGED = [claim for claim in CLAIMS if claim not in OPEN]
COUNTS = [claim for claim in DATASET if claim.artefact in ("figure_3", "figure_4")]
EXACT = [*COUNTS, *(claim for claim in CLAIMS if claim.name in ("MoAE is efficient in parameters", "unselected experts are not computed"))]


@pytest.mark.skipif(not PAPER.is_file(), reason="the paper's text is not there")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_quotation_is_one(claim):
    assert stands_in(claim.quote, plain(PAPER.read_text(encoding="utf-8")))


@cache
def printed():
    """What the paper prints, as if the real dataset and three seeds had given it; where it prints nothing, numbers that agree with its text."""
    cells = paper_cells("uniat").astype({"paper_value": float})
    cells = cells.assign(value=cells["paper_value"], spread=0.002, seeds=3, run=cells["row"], dataset="at_ustc (real)")
    open_cell = cells["value"].isna()
    statistic = open_cell & (cells["artefact"] == "figure_4")
    cells.loc[statistic, "value"] = cells[statistic]["column"].map({"images": 180_000, "identities": 1500, "cameras an identity": 4,
                                                                     "times photographed an identity": 6})
    favour = cells["column"].str.contains("Uni-AT|won") | cells["row"].eq("Uni-AT")
    favour ^= cells["column"].str.startswith("compactness")
    rest = open_cell & ~statistic
    cells.loc[rest, "value"] = np.where(favour[rest], 60.0, 40.0)
    return cells


def cells_of_the_paper():
    """A copy to change."""
    return printed().copy()


def turned_round(cells):
    """The opposite world: what was better is worse, cheap is dear, and every count is another one."""
    turned, kind = cells.copy(), cells["kind"]
    trained, ratio = kind == "trained", cells["unit"] == "ratio to MS-ReID"
    turned.loc[trained, "value"] = 100 - cells[trained]["value"]
    turned.loc[ratio, "value"] = 10 - cells[ratio]["value"]
    turned.loc[kind == "data", "value"] = 500_000 - 2 * cells[kind == "data"]["value"] * (cells[kind == "data"]["row"] == "AT-USTC")
    turned.loc[(cells["row"] == "multiply-adds") & (cells["column"] == "Uni-AT"), "value"] *= 1.03   # the dense evaluation of all experts
    return turned


def judge(claim, cells, judged=True):
    return claim.evaluate(Evidence(cells, judged, lambda run, setting: np.linspace(0.0, 1.0, 50)))


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.name)
def test_the_papers_own_numbers_bear_the_sentence_out(claim):
    assert judge(claim, cells_of_the_paper())["status"] == "holds"


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.name)
def test_the_opposite_refutes_it(claim):
    assert judge(claim, turned_round(cells_of_the_paper()))["status"] == "fails"


@pytest.mark.parametrize("claim", [claim for claim in JUDGED if claim not in EXACT], ids=lambda claim: claim.name)
def test_noise_leaves_it_undecided(claim):
    assert judge(claim, cells_of_the_paper().assign(spread=1000.0))["status"] == "undecided"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_without_numbers_it_says_what_it_needs(claim):
    found = judge(claim, cells_of_the_paper().assign(value=np.nan))
    assert found["status"] == "not here" and found["needs"]


@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.name)
def test_one_seed_decides_nothing_that_was_trained(claim):
    cells = cells_of_the_paper()
    single = cells.assign(seeds=1, spread=np.where(cells["kind"] == "trained", np.nan, cells["spread"]))
    trained = claim not in EXACT and "time" not in claim.name
    assert judge(claim, single)["status"] == ("undecided" if trained else "holds")
    if trained:
        assert judge(claim, cells, judged=False)["status"] == "not here"


@pytest.mark.parametrize("claim", COUNTS, ids=lambda claim: claim.name)
def test_a_twins_counts_prove_nothing(claim):
    found = judge(claim, cells_of_the_paper().assign(dataset="at_ustc (twin, mini)"))
    assert found["status"] == "not here" and "real" in found["needs"]


def test_a_count_that_is_off_by_one_is_refuted():
    cells = cells_of_the_paper()
    cells.loc[(cells["row"] == "AT-USTC") & (cells["column"] == "IR images"), "value"] += 1
    assert judge(DATASET[0], cells)["status"] == "fails"


@pytest.mark.parametrize("batch, ratio, noise, status", [
    (4, 1.1, "", "holds"), (4, 1.5, "", "undecided"), (64, 1.5, "", "fails"), (64, 1.1, ", noisy", "undecided"), (4, 1.1, ", noisy", "undecided")])
def test_a_small_batch_bears_a_limit_out_and_refutes_none(batch, ratio, noise, status):
    cells = cells_of_the_paper().assign(protocol=f"batch {batch}, ViT-B/16 at 256 x 128, 2 cores, a processor{noise}")
    cells.loc[(cells["row"] == "MoAE 12") & (cells["unit"] == "ratio to MS-ReID") & (cells["kind"] == "hardware"), "value"] = ratio
    [claim] = [claim for claim in CLAIMS if claim.name == "twelve experts cost a fifth of the time"]
    found = judge(claim, cells)
    assert found["status"] == status and bool(found["needs"]) == (status == "undecided")


def test_quoted_methods_leave_a_claim_open_here():
    """As it will be: the quoted rows have no value of ours, and the claim about the others does not wait for them."""
    cells = cells_of_the_paper()
    cells.loc[cells["row"].isin(QUOTED), "value"] = np.nan
    status = {claim.name: judge(claim, cells)["status"] for claim in CLAIMS if claim.artefact == "table_5"}
    assert status["Uni-AT exceeds the methods trained here"] == "holds" and status["Uni-AT exceeds all methods"] == "not here"


def test_where_the_text_and_the_tables_disagree():
    """The differences that the text prints, recomputed: all but the three that the chapter names."""
    cells = paper_cells("uniat").set_index(["artefact", "row", "column"])["paper_value"]
    gain = lambda table, a, b, column: round(cells[table, a, column] - cells[table, b, column], 2)
    assert [gain("table_1", "AT-USTC", row, "AVG Rank-1") for row in ("MSMT17", "DeepChange", "LLCM")] == [10.90, 13.69, 14.36]
    assert [gain("table_1", "AT-USTC", row, "AVG mAP") for row in ("MSMT17", "DeepChange", "LLCM")] == [9.23, 11.26, 12.64]
    pairs = [("SAID", "Baseline"), ("SAID + MoAE", "SAID"), ("SAID + HDW", "SAID"), ("Uni-AT", "Baseline")]
    assert [gain("table_3", a, b, "Any-Time R1") for a, b in pairs] == [1.13, 1.67, 1.29, 4.90]
    assert [gain("table_3", a, b, "Any-Time mAP") for a, b in pairs] == [2.74, 1.27, 2.12, 6.63]        # the text: 1.77
    cross = ("Market1501 R1", "CUHK03 R1", "SYSU-MM01 R1", "PRCC R1", "LTCC R1")
    assert [gain("table_4", "Uni-AT", "Baseline", column) for column in cross] == [10.71, 8.64, 11.48, 4.72, 6.13]   # 11.58
    assert [gain("table_5", "Uni-AT", "CLIP-ReID (ViT-B)", f"Any-Time {score}") for score in ("R1", "mAP")] == [3.24, 5.52]   # 3.14


# ---- the cells

def test_means_are_the_means_of_their_columns():
    """Any-Time and average columns, recomputed from the row, within two units of the last digit (LLCM in Table 1 has 13.112, printed 13.10). DEEN's printed 53.52 is no mean (53.47)."""
    cells = paper_cells("uniat")
    for artefact, names, mean in [("table_3", SCENARIOS, "Any-Time"), ("table_5", SCENARIOS, "Any-Time")] + [
            (table, ("Market1501", "CUHK03", "SYSU-MM01", "PRCC", "LTCC"), "Avg" if table != "table_1" else "AVG") for table in ("table_1", "table_4", "table_6")]:
        wide = cells[(cells["artefact"] == artefact) & (cells["kind"] == "trained")].pivot(index="row", columns="column", values="paper_value")
        for score in (("Rank-1", "mAP") if artefact == "table_1" else ("R1", "mAP")):
            if (artefact, score) == ("table_5", "R1"):
                wide = wide.drop("DEEN")
            off = (wide[[f"{name} {score}" for name in names]].mean(axis=1) - wide[f"{mean} {score}"]).abs()
            assert (off < 0.02).all(), (artefact, score, off[off >= 0.02])


def test_rows_that_several_tables_print_are_equal():
    cells = paper_cells("uniat").set_index(["artefact", "row", "column"])["paper_value"]
    for a, b in (("table_3", "table_5"), ("table_4", "table_6")):
        for row in ("Baseline", "Uni-AT"):
            pd.testing.assert_series_equal(cells[a][row], cells[b][row])
    for ablation, experts in (("SAID", "MS-ReID"), ("SAID + MoAE", "MoAE 12")):
        assert cells["table_3", ablation, "Any-Time R1"] == cells["table_2", experts, "Rank-1"]
        assert cells["table_3", ablation, "Any-Time mAP"] == cells["table_2", experts, "mAP"]


def test_table_2_ratios_follow_from_the_counts():
    """All but PLE 7 (printed 5.56), whose note says so; every row but MS-ReID is a layout."""
    cells = paper_cells("uniat", "table_2")
    table = cells[cells["source"] != "ours"].pivot(index="row", columns="column", values="paper_value")
    ratio = (table["number of parameters"] / table.loc["MS-ReID", "number of parameters"]).round(2)
    assert list(ratio.index[ratio != table["parameters"]]) == ["PLE 7"]
    assert {row.lower().replace(" ", "-") for row in table.index} == {"ms-reid", *LAYOUTS}
    assert (table["training time"] == table["inference time"]).all()


def test_valid_queries_are_the_published_counts():
    """All 15 published R1 of a scenario are whole shares of that many queries, and the six add up to the mixed test's number."""
    cells = paper_cells("uniat")
    total = 0
    for scenario in SCENARIOS:
        column = cells[(cells["artefact"] == "figure_4") & (cells["column"] == f"valid queries {scenario}")]
        count, scores = int(column["paper_value"].iloc[0]), cells[cells["column"] == f"{scenario} R1"]["paper_value"].dropna()
        assert len(scores) == 17
        hits = np.round(scores / 100 * count)
        assert (np.round(100 * hits / count, 2) == scores).all()
        total += count
    assert total == cells[(cells["artefact"] == "mixed") & (cells["column"] == "valid queries")]["paper_value"].iloc[0] == 19_992


def test_rows_of_others_are_quoted():
    cells = paper_cells("uniat")
    compared = cells[cells["artefact"].isin(["table_5", "table_6"])]
    assert set(compared[compared["source"] == "quoted"]["row"]) == set(QUOTED)
    assert set(compared[compared["source"] == "own"]["row"]) == {"BoT", "TransReID", "Baseline", "Uni-AT"}


def test_names_are_unique_and_sections_are_the_papers():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.section for claim in CLAIMS} <= {"Abstract", "I", "3", "4.1", "4.2", "4.3", "5.1", "5.2", "5.3", "5.4", "6"}
    assert {claim.artefact for claim in CLAIMS} <= set(paper_cells("uniat")["artefact"])
