"""A glimpse at any time: its picture, its six rankings against rules written out by hand, HDW's weights, and controls that follow."""
from dataclasses import replace
from math import exp, sqrt

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb.errors import UsageError
from reid_nb.metrics import evaluate
from reid_nb.papers.uniat import widgets
from reid_nb.papers.uniat.scenarios import SCENARIOS
from reid_nb.papers.uniat.widgets import Glimpse, Search, explore, explore_hdw, hdw_panel, hdw_table, in_words, lists, panel, score, scores, shown, snapshot
from reid_nb.protocols import get
from reid_nb.twins import at_ustc

OUTFITS = {3: {1: 2, 2: 7}, 5: {1: 4}}   # person -> outfit -> date
NOON, NIGHT = Glimpse(3, 1, 12, 2), Glimpse(3, 1, 23, 2)


def head(degrees):
    """Six unit vectors in the plane, all the same."""
    return np.tile([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], (6, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A gallery of two people, each outfit at two cameras of each modality, in every part; embeddings are angles, a query's is 0."""
    root, rows = tmp_path_factory.mktemp("gallery"), []
    for pid, owned in OUTFITS.items():
        for clothes, date in owned.items():
            for camid in (2, 4, 10, 13):
                for interval in ("ST", "LT"):
                    rows.append(dict(path=f"{len(rows)}.png", pid=pid, camid=camid, clothes=clothes, date=date, modality="rgb" if camid < 9 else "ir",
                                     part=f"{'DT' if camid < 9 else 'NT'}-{interval}"))
    for row in rows:
        Image.new("RGB", (8, 16), "green").save(root / row["path"])
    angles = np.random.default_rng(4).permutation(len(rows)) * 3.0
    return Search("made up", root, pd.DataFrame(rows), np.stack([head(angle) for angle in angles]), lambda picture: head(0), (32, 16))


# ---------------------------------------------------------------- pictures
@pytest.mark.parametrize("hour, modality, camid", [(0, "ir", 10), (6, "ir", 10), (7, "rgb", 2), (18, "rgb", 2), (19, "ir", 10), (23, "ir", 10)])
def test_the_hour_chooses_the_camera(hour, modality, camid):
    glimpse = Glimpse(3, 1, hour, 2)
    assert (glimpse.modality, glimpse.camid) == (modality, camid)


def test_a_picture_repeats_and_is_grey_by_night():
    first, again, night = (np.asarray(snapshot(glimpse, OUTFITS, 0, 64, 32)).astype(int) for glimpse in (NOON, NOON, NIGHT))
    assert first.shape == (64, 32, 3) and (first == again).all()
    assert np.ptp(night, axis=2).max() <= 2 < np.ptp(first, axis=2).max()


def test_another_outfit_changes_the_person_and_not_the_place():
    same_date = {3: {1: 2, 2: 2}}   # another date has another light
    one, other = (np.asarray(snapshot(replace(NOON, clothes=clothes), same_date)).astype(int) for clothes in (1, 2))
    moved = np.abs(one - other).mean(axis=2)
    corners = [moved[:12, :8], moved[:12, -8:]]
    assert moved[30:100, 16:48].mean() > 10 and max(corner.mean() for corner in corners) < 3


def test_numbers_stay_clear_of_the_twins_own():
    table = at_ustc.plan("gpu")
    assert widgets.WALKS > max(table["track"].max(), table["number"].max())


def test_outfits_are_the_plans():
    table = at_ustc.plan("smoke")
    found = widgets.outfits_of(table)
    assert found == {pid: {int(c): int(own["date"][own["clothes"] == c].iloc[0]) for c in sorted(own["clothes"].unique())} for pid, own in table.groupby("pid")}


# ---------------------------------------------------------------- six rankings
def counts(scenario, glimpse, record):
    """The rules of the six scenarios, written out: does this record count for this query?"""
    moment, interval = scenario.split("-")
    modalities = {glimpse.modality, record.modality}
    if moment == "DT" and modalities != {"rgb"} or moment == "NT" and modalities != {"ir"} or moment == "AD" and len(modalities) == 1:
        return False
    if record.pid != glimpse.pid:
        return True
    return record.camid != glimpse.camid and (record.clothes == glimpse.clothes) == (interval == "ST")


@pytest.mark.parametrize("glimpse", [NOON, NIGHT, Glimpse(3, 2, 9, 4), Glimpse(5, 1, 20, 5)])
def test_what_counts_is_what_the_rules_say(search, glimpse):
    for scenario, listed in lists(glimpse, search).items():
        gallery = search.gallery[[part[3:] == scenario[3:] and scenario[:2] in (part[:2], "AD") for part in search.gallery["part"]]]
        assert sorted(listed["path"]) == sorted(gallery["path"])
        for record in listed.itertuples():
            expected = "junk" if not counts(scenario, glimpse, record) else "right" if record.pid == glimpse.pid else "wrong"
            assert record.verdict == expected


def test_a_picture_by_day_is_asked_in_four_scenarios(search):
    told = scores(lists(NOON, search))
    assert list(told.index[told["count"] > 0]) == ["DT-ST", "DT-LT", "AD-ST", "AD-LT"]
    told = scores(lists(Glimpse(5, 1, 12, 2), search))
    assert told.loc[["DT-LT", "AD-LT"], "right"].tolist() == [0, 0] and told["AP"][["DT-LT", "AD-LT"]].isna().all()   # one outfit


def test_scores_are_the_evaluators(search):
    """The same query and gallery through `metrics.evaluate`."""
    for scenario, listed in lists(NOON, search).items():
        if score(listed)["right"]:
            gallery = search.gallery.loc[[search.gallery.index[search.gallery["path"] == path][0] for path in sorted(listed["path"], key=lambda p: int(p[:-4]))]]
            query = pd.DataFrame([{"pid": 3, "camid": 2, "clothes": 1, "modality": "rgb"}])
            found = evaluate(head(0)[:1], search.embeddings[gallery.index, 0], query, gallery.reset_index(drop=True), get(scenario)).per_query.iloc[0]
            assert (score(listed)["AP"], score(listed)["first"]) == pytest.approx((found["ap"], found["first_hit"]))


def test_each_scenario_asks_its_own_head(search):
    """Head 1 (DT-LT) alone is turned round: its ranking is reversed, the others stay."""
    turned = search.embeddings.copy()
    turned[:, 1] *= -1
    before, after = lists(NOON, search), lists(NOON, replace(search, embeddings=turned))
    assert [name for name in SCENARIOS if list(before[name]["path"]) != list(after[name]["path"])] == ["DT-LT"]
    assert list(before["DT-LT"]["path"]) == list(after["DT-LT"]["path"])[::-1]


def test_sentences():
    assert in_words({"count": 0, "gallery": 9, "right": 0}) == "cannot be asked: nothing here counts"
    assert in_words({"count": 4, "gallery": 9, "right": 0}) == "4 of 9 records count, and none is right"
    row = {"count": 4, "gallery": 9, "right": 2, "first": 1, "AP": 0.75}
    assert in_words(row) == "2 right among 4 that count (of 9); first at rank 1, AP 75%"


def test_few_left_out_records_are_shown():
    listed = pd.DataFrame({"verdict": ["junk"] * 5 + ["wrong", "junk", "right", "wrong"]})
    assert list(shown(listed, 5).index) == [0, 1, 2, 5, 7]


# ---------------------------------------------------------------- what is drawn
def test_the_panel_shows_every_row_with_signs_and_says_whose_people_these_are(search):
    figure = panel(NOON, search, top=4)
    texts = [text.get_text() for text in figure.axes[1].texts]
    told = scores(lists(NOON, search))
    assert [text for text in texts if ":" in text] == [f"{name}: {in_words(told.loc[name])}" for name in SCENARIOS]
    drawn = sum(len(shown(listed, 4)) for listed in lists(NOON, search).values())
    pale = sum((shown(listed, 4)["verdict"] == "junk").sum() for listed in lists(NOON, search).values())
    images = figure.axes[1].images
    assert len(images) == drawn and sum(image.get_alpha() < 1 for image in images) == pale > 0
    assert "made up" in figure.get_suptitle() and "Invented people" in figure.get_suptitle()
    assert "camera 2 (rgb)" in figure.axes[0].get_xlabel()


def test_no_figure_stays_open(search):
    import matplotlib.pyplot as plt

    plt.close("all")
    assert widgets.png(panel(NIGHT, search, top=2)).startswith(b"\x89PNG") and not plt.get_fignums()


def test_the_controls_change_picture_and_table(search):
    box = explore({"one": search, "two": replace(search, name="another", embeddings=-search.embeddings)}, top=2)
    who, (person, clothes, hour, camera), image, told = box.children[0], box.children[1].children, box.children[2], box.children[3]
    assert list(person.options) == [3, 5] and clothes.max == 2
    before = image.value
    hour.value = 23
    assert image.value != before and told.value == widgets.table_of(NIGHT, search)
    clothes.value = 2
    assert told.value == widgets.table_of(replace(NIGHT, clothes=2), search)
    person.value = 5          # owns one outfit: the slider follows
    assert (clothes.max, clothes.value) == (1, 1) and told.value == widgets.table_of(Glimpse(5, 1, 23, 2), search)
    person.value = 3
    assert clothes.max == 2
    before = image.value
    who.value = "two"
    assert image.value != before


def test_wrong_choices_are_refused(search):
    with pytest.raises(UsageError, match="no hour 24. Choose one from 0 to 23"):
        Glimpse(3, 1, 24, 1)
    with pytest.raises(UsageError, match="no camera 9"):
        Glimpse(3, 1, 12, 9)
    with pytest.raises(UsageError, match="no person 4. Known: 3, 5"):
        panel(Glimpse(4, 1, 12, 1), search)
    with pytest.raises(UsageError, match="Person 5 has no outfit 2. Known: 1"):
        panel(Glimpse(5, 2, 12, 1), search)


# ---------------------------------------------------------------- who searches
def test_without_runs_there_is_the_stand_in_and_it_says_so(tmp_path, monkeypatch, search):
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    assert widgets.trained_runs() == (None, {})
    found = widgets.by_colour(search.gallery, search.root, search.shape)
    assert "no network" in found.name and found.embeddings.shape == (len(search.gallery), 6, 384)
    assert (found.embeddings == found.embeddings[:, :1]).all()


@pytest.mark.parametrize("there, chosen, rows", [(("mini", "night"), "night", ["Baseline", "Uni-AT"]), (("smoke",), None, [])])
def test_runs_of_the_largest_preset_are_taken(monkeypatch, there, chosen, rows):
    monkeypatch.setattr(widgets, "finished", lambda plan, name: name if plan.preset.name in there else None)
    plan, runs = widgets.trained_runs()
    assert (plan and plan.preset.name) == chosen and list(runs) == rows and set(runs.values()) <= {"baseline-s0", "uni-at-s0"}


def test_a_histogram_counts_colours_in_stripes():
    picture = Image.new("RGB", (32, 66), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 33, 32, 66))
    found = widgets.stripes(picture).reshape(6, 64) ** 2
    assert found[:3, 48] == pytest.approx([176] * 3) and found[3:, 3] == pytest.approx([176] * 3) and found.sum() == pytest.approx(16 * 66)


def test_a_trained_network_embeds_gallery_and_query_alike(tmp_path, search):
    """A gallery picture as the query: the same six embeddings as from the gallery."""
    from safetensors.torch import save_file

    from reid_nb.files import write_json
    from reid_nb.papers.uniat.recipe import small
    from reid_nb.recipes import build_model
    from reid_nb.training import json_classes
    from reid_nb.transforms import Classes, seeded

    recipe, classes = small("Uni-AT", epochs=1), Classes(2, 3, (0, 0, 1))
    with seeded(0):
        model = build_model(recipe, classes)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    write_json(tmp_path / "recipe.json", {"recipe": recipe.to_dict(), "classes": json_classes(classes)})
    found = widgets.by_network("a network", tmp_path, search.gallery, search.root, search.shape)
    query = found.embed(Image.open(search.root / search.gallery["path"][0]))
    assert found.embeddings.shape == (len(search.gallery), 6, model.num_features) and query == pytest.approx(found.embeddings[0], abs=1e-4)


# ---------------------------------------------------------------- HDW
def test_weights_are_equations_7_to_9():
    losses = [0.3, 1.5, 0.8, 2.0, 1.8, 2.6]
    p = [exp(-loss) for loss in losses]
    moments = [sqrt(1 - (p[0] + p[1]) / 2), sqrt(1 - (p[2] + p[3]) / 2), sqrt(1 - (p[4] + p[5]) / 2)]
    intervals = [sqrt(1 - (p[0] + p[2] + 2 * p[4]) / 4), sqrt(1 - (p[1] + p[3] + 2 * p[5]) / 4)]   # all-day scenarios see both halves of a batch
    table = hdw_table(losses)
    assert table["weight"].tolist() == pytest.approx([moment * interval for moment in moments for interval in intervals], rel=1e-5)
    assert table["share"].sum() == pytest.approx(1)


def test_only_relatives_are_moved():
    gain = hdw_table([4, 1, 1, 1, 1, 1])["weight"] - hdw_table([1] * 6)["weight"]
    assert list(gain.index[gain > 1e-6]) == ["DT-ST", "DT-LT", "NT-ST", "AD-ST"] and gain[["NT-LT", "AD-LT"]].abs().max() < 1e-6


def test_certain_scenarios_weigh_nothing_and_divide_by_nothing():
    table = hdw_table([0] * 6)
    assert table["weight"].abs().max() < 1e-5 and table["share"].tolist() == [0] * 6


def test_the_grid_shows_the_table():
    figure = hdw_panel([0.3, 1.5, 0.8, 2.0, 1.8, 2.6])
    bars, grid = figure.axes
    assert [text.get_text() for text in grid.texts] == [f"{weight:.2f}" for weight in hdw_table([0.3, 1.5, 0.8, 2.0, 1.8, 2.6])["weight"]]
    assert [bar.get_height() for bar in bars.patches[:6]] == pytest.approx([0.3, 1.5, 0.8, 2.0, 1.8, 2.6])


def test_six_sliders_move_the_picture():
    sliders, image = explore_hdw().children
    assert [slider.description for slider in sliders.children] == list(SCENARIOS)
    before = image.value
    sliders.children[0].value = 5.0
    assert image.value != before


@pytest.mark.parametrize("losses", [[1] * 5, [1, 1, 1, 1, 1, -1], [1, 1, 1, 1, 1, float("nan")]])
def test_other_losses_are_refused(losses):
    with pytest.raises(UsageError, match="six numbers"):
        hdw_table(losses)
