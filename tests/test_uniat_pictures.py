"""Figures 3, 4, 6, 7, 8 and the mixed test of Uni-AT: counts, shapes, measures and choices, against loops and arithmetic."""
import numpy as np
import pandas as pd
import pytest
import torch

from reid_nb import settings
from reid_nb.cells import paper_cells
from reid_nb.datasets import registry
from reid_nb.errors import ReidError
from reid_nb.papers.uniat import counting, pictures, pipeline
from reid_nb.papers.uniat.experts import LAYOUTS
from reid_nb.papers.uniat.model import ScenarioHeads, inventory, multiply_adds, vit_trunk
from reid_nb.papers.uniat.plan import SIZES, data_of
from reid_nb.papers.uniat.speed import compute_all
from reid_nb.protocols import SCENARIOS
from reid_nb.runs import twin_module
from reid_nb.transforms import Classes

LISTED = ("at_ustc", "msmt17", "sysu_mm01", "regdb", "llcm", "prcc", "ltcc", "deepchange")
TINY = {"name": "vit_tiny_patch16_224", "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "image_size": (64, 32)}


@pytest.fixture(scope="module")
def planned():
    """The labels of the AT-USTC twin's test, as a test table."""
    plan = twin_module("at_ustc").plan("mini")
    return pd.concat([plan[plan["split"] == split] for split in ("query", "gallery")], ignore_index=True)


def without_pictures(name, root):
    """A dataset in its own layout whose images are empty files: counting reads names and lists alone. Returns it and its plan."""
    twin = twin_module(name)
    table = twin.plan("smoke")
    lists = twin.TWIN.lists(table, 0)
    for path in [*table["path"], *lists]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(lists.get(path, ""))
    return registry.load(name, root), table


def features_for(table, width=12, seed=0):
    """Features that know something of the person and something of the outfit."""
    rng = np.random.default_rng(seed)
    person, outfit = rng.standard_normal((400, width)), rng.standard_normal((400, 30, width))
    return person[table["pid"]] + outfit[table["pid"], table["clothes"]] + 1.5 * rng.standard_normal((len(table), width))


# ---- counting

@pytest.mark.parametrize("name", LISTED)
def test_everything_is_all_images_of_a_dataset(name, tmp_path):
    dataset, plan = without_pictures(name, tmp_path)
    assert sorted(counting.everything(dataset)["path"]) == sorted(plan["path"])


def test_counts_within_an_identity_by_hand(planned):
    cameras, occasions = {}, {}
    for row in planned.itertuples():
        cameras.setdefault(row.pid, set()).add(row.camid)
        occasions.setdefault(row.pid, set()).add((row.camid, row.date, row.clothes))
    assert counting.each(planned, counting.CAMERA).to_dict() == {pid: len(seen) for pid, seen in cameras.items()}
    assert counting.each(planned, counting.OCCASION).to_dict() == {pid: len(seen) for pid, seen in occasions.items()}


def test_junk_and_distractors_are_nobody():
    table = pd.DataFrame({"path": list("abcde"), "pid": [-1, 0, 4, 4, 4], "camid": [1, 2, 1, 1, 3]})
    assert counting.each(table, counting.CAMERA).to_dict() == {4: 2}


def test_a_shared_camera_number_counts_once_a_modality():
    """In LLCM a colour and an infrared camera at one place have one number."""
    table = pd.DataFrame({"pid": [1, 1, 1], "camid": [5, 5, 6], "modality": ["rgb", "ir", "rgb"]})
    assert counting.each(table, counting.CAMERA).to_dict() == {1: 3}


@pytest.mark.parametrize("name", LISTED)
def test_structure_is_what_section_3_says(name, tmp_path):
    found = counting.statistics(without_pictures(name, tmp_path)[0])
    assert found["has infrared images"] == (name in ("at_ustc", "sysu_mm01", "regdb", "llcm"))
    assert found["has clothes changes"] == (name in ("at_ustc", "prcc", "ltcc", "deepchange"))


def test_at_ustc_in_numbers(tmp_path):
    dataset, plan = without_pictures("at_ustc", tmp_path)
    found = counting.at_ustc_statistics(dataset)
    train = plan[plan["split"] == "train"]
    owned = [len(set(rows["clothes"])) for _, rows in train.groupby("pid")]
    assert (found["fewest outfits of a training identity"], found["most outfits of a training identity"]) == (min(owned), max(owned))
    assert found["outfits a training identity"] == pytest.approx(sum(owned) / len(owned))
    assert found["RGB cameras an identity"] + found["IR cameras an identity"] == pytest.approx(counting.statistics(dataset)["cameras an identity"])
    assert found["query images a clip"] == found["gallery images a clip"] == 1        # the smoke twin has one of each kind
    gallery = plan[plan["split"] == "gallery"]
    assert found["gallery images an identity"] == pytest.approx(len(gallery) / len({(row.part, row.pid) for row in gallery.itertuples()}))
    assert found["RGB images"] + found["IR images"] == len(plan) and found["validation images"] == (plan["part"] == "validation").sum()


def test_figure_4_has_a_number_for_each_of_its_cells(tmp_path):
    from reid_nb.cells import paper_cells

    dataset, _ = without_pictures("at_ustc", tmp_path)
    ours = counting.statistics(dataset) | counting.at_ustc_statistics(dataset)
    cells = paper_cells("uniat", "figure_4")
    assert set(cells[cells["row"] == "AT-USTC"]["column"]) == set(ours)
    assert set(cells[cells["row"] != "AT-USTC"]["column"]) == set(counting.statistics(dataset))


def test_counts_of_twins_settle_no_claim(tmp_path, monkeypatch):
    """From an artefact's file on disk to the claims, with cells that have no printed text beside those that have one."""
    from reid_nb.cells import Sheet, write_tables
    from reid_nb.plans import load_plan
    from reid_nb.reproduce import gather_cells, gather_claims

    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    plan = load_plan("uniat", "smoke")
    sheet = Sheet("uniat", "figure_4", plan.preset)
    for row, column in sheet.cells.index:
        sheet.put(row, column, 1, data=data_of("at_ustc", SIZES["smoke"]), origin="twin")
    folder = tmp_path / "smoke" / "uniat" / "figure_4"
    folder.mkdir(parents=True)
    write_tables(sheet.frame(), folder, "a caption")
    claims = gather_claims(plan, gather_cells(plan))
    assert set(claims[claims["artefact"] == "figure_4"]["status"]) == {"not here"}


def test_every_dot_is_where_it_was_counted():
    ours = pd.DataFrame({column: [3.0, np.nan] for column in counting.PANELS} | {"origin": ["twin", ""]}, index=["a", "b"])
    published = pd.DataFrame({column: [7.0] for column in counting.PANELS}, index=["b"])
    for axes in counting.statistics_figure(ours, published).axes:
        diamonds, dots = (part.get_offsets() for part in axes.collections)
        assert [list(point) for point in dots.data] == [[3.0, 1.0]] and [7.0, 0.0] in [list(point) for point in diamonds.data]


def test_an_example_of_each_camera_is_its_own(planned):
    seen = counting.cameras(planned)
    by_path = planned.set_index("path")
    assert list(seen.index) == sorted(planned["camid"].unique()) and (by_path.loc[seen["path"], "camid"].to_numpy() == seen.index).all()
    assert seen["images"].sum() == len(planned) and (seen["modality"] == ["rgb"] * 8 + ["ir"] * 8).all()


@pytest.mark.parametrize("known", [True, False])
def test_the_plan_shows_sketches_where_the_geometry_is_known(planned, tmp_path, known):
    """A twin's cameras hang somewhere; of the real dataset's nothing but their images is known."""
    from PIL import Image

    seen = counting.cameras(planned)
    for path in seen["path"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 4)).save(tmp_path / path)
    figure = counting.camera_plan(seen, tmp_path, "a title", counting.geometry(0) if known else None)
    assert sum(len(axes.images) for axes in figure.axes) == 16 and len(figure.axes) == (32 if known else 16)
    places = [text.get_text().split(",")[0] for axes in figure.axes for text in axes.texts]
    assert places.count("corridor") == (5 if known else 0) and len(places) == (16 if known else 0)


def test_the_twins_cameras_hang_as_the_paper_counts_them():
    hung = counting.geometry(0)
    assert (hung["place"] == "corridor").sum() == 5 and (hung["place"] == "street").sum() == 11 and hung["spot"].nunique() == 16
    rises = (hung["height"] - 1) / hung["distance"]     # the axis meets chest height at that distance
    assert np.allclose(np.tan(np.radians(hung["pitch"])), rises)


def test_a_figure_says_what_it_shows():
    assert "twin" in counting.source_words(data_of("at_ustc", SIZES["mini"]))
    assert "real" in counting.source_words(data_of("at_ustc", SIZES["paper"])) and "twin" not in counting.source_words(data_of("at_ustc", SIZES["paper"]))


# ---- the pipeline

@pytest.fixture(scope="module")
def tiny():
    with torch.device("meta"):
        return ScenarioHeads(vit_trunk(experts="moae-12", **TINY), Classes(4, 6, (0, 0, 1, 2, 3, 3)))


def test_shapes_at_the_papers_size():
    """128 patches and six tokens of 768 numbers; six logits of 486 outfits or 135 persons."""
    shapes = pipeline.flowing(pipeline.on_paper("moae-12"))
    assert shapes["trunk.vit.patch_embed"] == (128, 768) and shapes["trunk.vit.pos_drop"] == (134, 768)
    assert {shapes[f"trunk.vit.blocks.{block}.mlp.experts"] for block in range(12)} == {(6, 768)} and shapes["trunk.vit.blocks.3.mlp.fc2"] == (128, 768)
    assert shapes["trunk"] == shapes[""] == (6, 768) and [shapes[f"classifiers.{s}"] for s in range(6)] == [(486,), (135,)] * 3


def test_without_experts_the_ffn_works_on_all():
    shapes = pipeline.flowing(pipeline.on_paper(None))
    assert shapes["trunk.vit.blocks.0.mlp.fc2"] == (134, 768) and "trunk.vit.blocks.0.mlp.experts" not in shapes


def test_the_drawing_shows_what_flows(tiny):
    shapes = pipeline.flowing(tiny, (64, 32))
    boxes, arrows = pipeline.network_boxes(tiny, shapes, (64, 32))
    assert [boxes[key][3] for key in ("image", "patches", "tokens", "row", "six", "neck")] == ["3 x 64 x 32", "32 x 48", "6 x 48", "38 x 48", "6 x 48", "6 x 48"]
    for part, _, size in inventory(tiny):
        words = part.split(",")[0]
        assert words == "six classifiers" or any(pipeline.size_words(size) in text for _, _, text, _ in boxes.values()), part
    for each, links in ((boxes, arrows), pipeline.block_boxes(tiny, shapes)):
        assert {key for link in links for key in link} == set(each)


def test_a_line_is_an_expert():
    import matplotlib.pyplot as plt

    for name, layout in LAYOUTS.items():
        axes = plt.figure().gca()
        pipeline.experts_diagram(axes, layout, 8, 32)
        lines = [tuple(-int(y) for y in line.get_ydata()) for line in axes.lines]
        assert lines == [layout.experts[expert] for seen in layout.seen for expert in seen], name
        plt.close()


def test_multiply_adds_differ_by_the_gates_alone():
    assert pipeline.paper_macs("moae-12") - pipeline.paper_macs(None) == 12 * 6 * 2 * 768


def test_all_experts_computed_cost_one_more_ffn_a_token():
    """Two experts a scenario instead of one, in one block; the printed reference of Figure 6 is twelve times that above Uni-AT's."""
    sparse, dense = (multiply_adds(change(vit_trunk(depth=1, experts="moae-12"))) for change in (lambda model: model, compute_all))
    assert dense - sparse == 6 * 2 * 768 * 3072
    cells = paper_cells("uniat", "figure_6").set_index(["row", "column"])["paper_value"].loc["multiply-adds"]
    assert round(1e6 * (cells["Uni-AT (all computed)"] - cells["Uni-AT"])) == 12 * (dense - sparse)


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_expert_is_computed_for_a_token(name):
    assert pipeline.experts_a_token(name) == 1


# ---- features

@pytest.mark.parametrize("scenario", SCENARIOS)
def test_compactness_by_loops(planned, scenario):
    rows = pictures.taking_part(planned, scenario)
    table, features = planned.iloc[rows], features_for(planned.iloc[rows])
    points = features / np.linalg.norm(features, axis=1, keepdims=True)
    members = {}
    for point, row in zip(points, table.itertuples()):
        members.setdefault((row.pid, row.clothes) if scenario.endswith("ST") else (row.pid,), []).append(point)
    centres = {key: np.mean(each, axis=0) for key, each in members.items()}
    within = np.mean([np.linalg.norm(point - centres[key]) for key, each in members.items() for point in each])
    apart = np.mean([np.linalg.norm(centres[a] - centres[b]) for a in centres for b in centres if a[0] != b[0]])
    assert pictures.compactness(features, table, scenario) == pytest.approx(within / apart, rel=1e-5)
    assert pictures.compactness(7 * features, table, scenario) == pytest.approx(within / apart, rel=1e-5)


def test_classes_that_are_points_are_perfectly_compact(planned):
    rows = pictures.taking_part(planned, "DT-LT")
    assert pictures.compactness(np.eye(400)[planned["pid"].iloc[rows]], planned.iloc[rows], "DT-LT") == pytest.approx(0, abs=1e-6)


def test_one_person_has_no_compactness(planned):
    alone = planned[planned["pid"] == planned["pid"].iloc[0]]
    with pytest.raises(ReidError, match="AD-LT.*shows 1"):
        pictures.compactness(features_for(alone), alone, "AD-LT")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_neighbours_by_loops(planned, scenario):
    """The rules of the six scenarios, written out: no same camera, the moment's modalities, the interval's outfits."""
    some = planned["pid"].isin(sorted(planned["pid"].unique())[:12])
    table = planned[some].reset_index(drop=True)
    rows = pictures.taking_part(table, scenario)
    table, features = table.iloc[rows].reset_index(drop=True), features_for(table.iloc[rows])
    points = features / np.linalg.norm(features, axis=1, keepdims=True)
    records, found = list(table.itertuples()), []
    moment, interval = scenario.split("-")
    for i, asking in enumerate(records):
        best, right, findable = -9.0, None, False
        for j, other in enumerate(records):
            same = asking.pid == other.pid
            if moment == "AD" and asking.modality == other.modality or same and asking.camid == other.camid:
                continue
            if same and (asking.clothes == other.clothes) != (interval == "ST"):
                continue
            findable |= same
            if points[i] @ points[j] > best:
                best, right = points[i] @ points[j], same
        if findable:
            found.append(right)
    assert pictures.same_person_neighbours(features, table, scenario) == pytest.approx(np.mean(found))


def test_people_on_show_are_chosen_by_their_outfits(planned):
    people = pictures.people_on_show(planned, 8)
    owned = planned.groupby("pid")["clothes"].nunique()
    assert len(people) == 8 and min(owned[people]) >= max(owned.drop(people))
    for scenario in SCENARIOS:
        shown = planned.iloc[pictures.on_show(planned, scenario, people)]
        assert set(shown["pid"]) == set(people) and set(shown["part"]) == set(settings.parts_of(scenario))
        assert shown.groupby("pid")["clothes"].nunique().max() == (1 if scenario.endswith("ST") else owned.max())


def test_a_map_tells_modality_and_is_seeded(planned):
    import matplotlib.pyplot as plt

    table = planned[planned["pid"].isin(pictures.people_on_show(planned, 3))]
    points = pictures.flat(features_for(table), seed=1)
    assert np.array_equal(points, pictures.flat(features_for(table), seed=1))
    axes = plt.figure().gca()
    pictures.draw_map(axes, points, table)
    hollow = sum(len(part.get_offsets()) for part in axes.collections if not len(part.get_facecolor()))
    assert hollow == (table["modality"] == "ir").sum() and sum(len(part.get_offsets()) for part in axes.collections) == len(table)


# ---- ranking lists

def asked(table, scenario, seed):
    return settings.evaluate(settings.get(f"at_ustc/{scenario}"), features_for(table, seed=seed), table).per_query


def test_won_and_lost(planned):
    before, after = asked(planned, "DT-LT", 0), asked(planned, "DT-LT", 1)
    outcome = pictures.compared(before, after)
    assert len(outcome) == before["valid"].sum() and not (outcome["won"] & outcome["lost"]).any()
    gained = (after["first_hit"] == 1).sum() - (before["first_hit"] == 1).sum()
    assert outcome["won"].sum() - outcome["lost"].sum() == gained
    back = pictures.compared(after, before)
    assert (back["won"] == outcome["lost"]).all() and np.allclose(back["gain"], -outcome["gain"])


def test_models_must_answer_the_same_queries(planned):
    with pytest.raises(ReidError, match="same queries"):
        pictures.compared(asked(planned, "DT-ST", 0), asked(planned, "NT-ST", 0))


def test_the_query_that_is_shown_is_the_ordinary_one(planned):
    outcome = pictures.compared(asked(planned, "AD-ST", 0), asked(planned, "AD-ST", 1))
    gain = outcome["gain"][pictures.most_ordinary(outcome)]
    assert (outcome["gain"] < gain).sum() < len(outcome) / 2 and (outcome["gain"] > gain).sum() <= len(outcome) / 2
    assert outcome["gain"][pictures.greatest_gain(outcome)] == outcome["gain"].max()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_list_is_the_one_that_was_scored(planned, scenario):
    features = features_for(planned)
    per_query = settings.evaluate(settings.get(f"at_ustc/{scenario}"), features, planned).per_query
    for query in per_query[per_query["valid"]].iloc[::40].itertuples():
        listed = pictures.answers(features, planned, scenario, query.row, top=len(planned))
        assert "junk" not in set(listed["verdict"]) and list(listed["rank"]) == list(range(1, len(listed) + 1))
        assert listed[listed["verdict"] == "right"]["rank"].iloc[0] == query.first_hit and (listed["verdict"] == "right").sum() == query.hits
        assert len(pictures.answers(features, planned, scenario, query.row, top=10)) == 10


def test_the_sheet_frames_what_the_protocol_says(planned, tmp_path):
    from PIL import Image

    few = planned[planned["pid"].isin(sorted(planned["pid"].unique())[:10])].reset_index(drop=True)
    for path in few["path"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 4)).save(tmp_path / path)
    features = {name: np.stack([features_for(few, seed=seed + s) for s in range(6)], axis=1) for name, seed in (("a", 0), ("b", 9))}
    per_query = settings.measured("at_ustc/DT-LT", features["a"], few).per_query
    row = int(per_query[per_query["valid"]]["row"].iloc[0])
    figure = pictures.ranking_sheet({"DT-LT": row}, features, few, tmp_path, {("DT-LT", name): "" for name in "ab"}, top=5)
    for number, name in enumerate("ab"):
        listed = pictures.answers(features[name][:, SCENARIOS.index("DT-LT")], few, "DT-LT", row, top=5)
        signs = [axes.get_title()[0] for axes in figure.axes[6 * number + 1:6 * number + 6]]
        assert signs == [{"right": "✓", "wrong": "✗"}[verdict] for verdict in listed["verdict"]]


# ---- the mixed test

def test_the_mixed_test_taken_apart_is_its_parts(planned):
    features = features_for(planned)
    parts = pictures.by_scenario(settings.mixed_test(features, planned).per_query, planned)
    for scenario in SCENARIOS:
        alone = settings.evaluate(settings.get(f"at_ustc/mixed/{scenario}"), features, planned)
        found = pictures.scores(parts[scenario])
        assert found["mAP"] == pytest.approx(100 * alone.summary()["mAP"]) and found["R1"] == pytest.approx(100 * alone.summary()["Rank-1"])


def test_answers_to_other_queries_are_refused(planned):
    per_query = settings.mixed_test(features_for(planned), planned).per_query
    fewer = planned.drop(index=planned[planned["split"] == "query"].index[:3]).reset_index(drop=True)
    with pytest.raises(ReidError, match="other queries"):
        pictures.by_scenario(per_query, fewer)
