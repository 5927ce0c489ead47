"""Bad input of anytime re-identification: each ends in a plain error that names file, field and remedy, or in a skip that the result counts."""
import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from test_datasets_people import make_at_ustc, make_deepchange, make_llcm, make_msmt17, make_regdb
from test_training import make_dataset

from reid_nb import runs, settings, training
from reid_nb.datasets import at_ustc, deepchange, llcm, msmt17, regdb, registry
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.uniat.losses import build
from reid_nb.papers.uniat.model import vit_trunk
from reid_nb.papers.uniat.recipe import small
from reid_nb.plans import PRESETS, Data, Plan, Train
from reid_nb.protocols import SCENARIOS
from reid_nb.records import Dataset
from reid_nb.recipes import build_model
from reid_nb.reproduce import check_ready
from reid_nb.retrieval import search
from reid_nb.transforms import Classes

RECIPE = small("Uni-AT", epochs=1, batches=2, identities=2, images=4)


# ---------------------------------------------------------------- training data that lack something

@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Six people of one colour each; `labelled(**columns)` gives them further labels."""
    plain = make_dataset(tmp_path_factory.mktemp("colours"), people=6, images=8)
    return lambda **columns: Dataset("colours", plain.root, plain.train.assign(**columns), plain.query, plain.gallery, "own")


def history(dataset, folder):
    training.train(RECIPE, dataset, 0, folder, threads=1, progress=False)
    return pd.read_csv(folder / "history.csv").iloc[-1]


@pytest.mark.parametrize("modality, lost", [("rgb", "NT"), ("ir", "DT")])
def test_training_on_one_modality_skips_the_other_moment_and_counts_it(people, tmp_path, modality, lost):
    """The released code ends in NaN."""
    last = history(people(modality=modality), tmp_path)
    assert np.isfinite(last.drop("epoch").astype(float)).all() and last["skipped"] == 2
    assert [name for name in SCENARIOS if last[name] == 0] == [f"{lost}-ST", f"{lost}-LT"]


def test_people_of_one_modality_beside_others_train_what_they_can(people, tmp_path):
    """Half of the people were never seen by night: a batch may lack the night, and the history says how often that was."""
    pids = people().train["pid"]
    last = history(people(modality=np.where((pids > 30) & (np.arange(len(pids)) % 2 == 0), "ir", "rgb")), tmp_path)
    assert np.isfinite(last.drop("epoch").astype(float)).all() and 0 <= last["skipped"] < 2


def test_data_without_clothes_and_modality_train_as_one_outfit_each_by_day(people, tmp_path):
    dataset = people()
    assert not {"clothes", "modality"} & set(dataset.train)
    last = history(dataset, tmp_path)
    assert last["skipped"] == 2 and last["NT-ST"] == last["NT-LT"] == 0 < last["DT-ST"]
    assert training.load_trained(tmp_path, "cpu").classes[:2] == (6, 6), "as many outfits as people"


def test_such_data_are_not_scored_by_scenario(people):
    dataset = people()
    table = settings.test_table(dataset)
    with pytest.raises(ReidError, match="lacks the column 'part'.*Load the dataset with its own loader"):
        settings.evaluate(settings.get("at_ustc/AD-LT"), np.ones((len(table), 2)), table)


def test_a_label_of_no_modality_names_column_and_remedy(people, tmp_path):
    with pytest.raises(ReidError, match="modality 'thermal'.*Correct the column `modality`"):
        training.train(RECIPE, people(modality="thermal"), 0, tmp_path, threads=1, progress=False)


# ---------------------------------------------------------------- test people who lack something

@pytest.fixture
def copy(tmp_path):
    """A small whole AT-USTC: person 2 in all six scenarios; person 3 with one outfit, asked for and kept in DT-LT."""
    make_at_ustc(tmp_path)
    return tmp_path


def scored(root, name):
    table = settings.test_table(at_ustc.load(root))
    return settings.measured(name, np.eye(4)[table["pid"]], table)


def without(root, *flags):
    for path in root.rglob("*.jpg"):
        if any(f"-f{flag}-" in path.name for flag in flags):
            path.unlink()


def test_one_outfit_in_a_long_term_scenario_is_skipped_and_counted(copy):
    alone, whole = scored(copy, "at_ustc/DT-LT"), scored(copy, "at_ustc/mixed")
    assert alone.summary() | {"queries": 5, "valid": 4, "skipped": 1} == alone.summary() and alone.summary()["mAP"] == 1
    table = settings.test_table(at_ustc.load(copy))
    assert table.loc[alone.per_query.loc[~alone.per_query["valid"], "row"], "pid"].tolist() == [3]
    assert whole.skipped == 2, "asked for in DT-LT and in AD-LT"
    assert at_ustc.counts(at_ustc.load(copy))["DT-LT valid queries"] == 4


def test_a_run_says_how_many_queries_were_skipped(copy, tmp_path, monkeypatch):
    """What `run.json` holds of a setting is the summary, skipped queries included."""
    from reid_nb import retrieval

    dataset = at_ustc.load(copy)
    table = settings.test_table(dataset)
    monkeypatch.setattr(runs, "prepare", lambda data: dataset)
    monkeypatch.setattr(training, "load_trained", lambda weights: training.nn.Linear(1, 1))
    monkeypatch.setattr(retrieval, "extract", lambda *_: np.eye(4)[table["pid"]])
    job = Train("a", RECIPE, Data("at_ustc", "smoke"), 0, ("at_ustc/DT-LT", "at_ustc/DT-ST"))
    found = runs.score(job, tmp_path / "model.safetensors", (64, 32), tmp_path / "run")["scores"]
    assert {name: scores["skipped"] for name, scores in found.items()} == {"at_ustc/DT-LT": 1, "at_ustc/DT-ST": 0}


@pytest.mark.parametrize("name", ["at_ustc/DT-LT", "at_ustc/AD-LT", "at_ustc/NT-LT"])
def test_a_scenario_without_a_valid_query_is_named(copy, name):
    """Nobody changes clothes: every long-term answer is left out."""
    for path in copy.glob("*-c02"):
        if path.name.startswith("p002"):
            shutil.rmtree(path)
    with pytest.raises(ReidError, match=rf"{name}, trial 0: No query has a gallery record that counts.*lost all of theirs to the protocol {name[-5:]}.*labels for clothes"):
        scored(copy, name)
    assert at_ustc.counts(at_ustc.load(copy))[f"{name[-5:]} valid queries"] == 0
    assert scored(copy, "at_ustc/DT-ST").valid, "the other scenarios are scored as ever"


@pytest.mark.parametrize("flag, name, told", [(5, "NT-LT", "no record of the test table is a query.*Load the dataset 'at_ustc' whole"),
                                              (9, "NT-LT", "The gallery split is empty"), (8, "NT-ST", "The gallery split is empty")])
def test_a_scenario_without_queries_or_gallery_is_named_and_counted_as_none(copy, flag, name, told):
    without(copy, flag)
    with pytest.raises(ReidError, match=rf"at_ustc/{name}.*{told}"):
        scored(copy, f"at_ustc/{name}")
    dataset = at_ustc.load(copy)
    assert at_ustc.counts(dataset)[f"{name} valid queries"] == 0 and not registry.verify(dataset).loc[f"{name} valid queries", "ok"]


# ---------------------------------------------------------------- labels that disagree with names, lists that name a missing file

@pytest.mark.parametrize("name, told", [
    ("cam01-f2-000009.jpg", "names that are not AT-USTC's, for example 'cam01-f2-000009.jpg'"),
    ("p002-d01-c01/night/cam09-f4-000009.jpg", "names that are not AT-USTC's"), ("p002-d01-c01/notes.txt", "names that are not AT-USTC's"),
    ("p002-d01-c01/cam09-f2-000009.jpg", "its flag and its camera disagree on day and night"),
    ("p002-d01-c01/cam09-f7-000009.jpg", "its flag and its camera disagree on day and night"),
    ("p002-d00-c01/cam01-f2-000009.jpg", "days go from 1 to 13"), ("p003-d01-c01/cam01-f0-000009.jpg", "1 people are trained and tested on, for example 3")])
def test_a_name_that_contradicts_itself(copy, name, told):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(copy.rglob("*.jpg")), copy / name)
    with pytest.raises(ReidError, match=told) as error:
        at_ustc.load(copy)
    assert str(copy) in str(error.value)


# How a small copy is made, its lists, and how a name becomes that of a picture that nobody took
LISTED = {"msmt17": (make_msmt17, [file for file, _, _ in msmt17.LISTS.values()], (r"_(\d{3})_", "_999_")),
          "llcm": (make_llcm, list(llcm.LISTS.values()), (r"_f(\d+)_", "_f999_")),
          "regdb": (make_regdb, [f"idx/test_{kind}_{split}.txt" for kind in regdb.KINDS for split in (1, 10)], (r"_(\d{5})_", "_99999_")),
          "deepchange": (make_deepchange, [f"{folder}-bbox.txt" for folder in deepchange.FOLDERS[:1] + deepchange.FOLDERS[3:]], (r"_(\d{6})_bbox", "_999999_bbox"))}


@pytest.mark.parametrize("name, file", [(name, file) for name, (_, files, _) in LISTED.items() for file in files])
def test_every_list_that_names_a_missing_file_is_named_with_the_line(tmp_path, name, file):
    """The missing one stands in the last line, so the number has to be that one."""
    make, _, (number, another) = LISTED[name]
    make(tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    (tmp_path / file).write_text("\n".join([*lines[:-1], re.sub(number, another, lines[-1], count=1)]))
    with pytest.raises(ReidError, match=rf"{file}, line {len(lines)}: .*{another}.* is missing \(1 such lines\)"):
        registry.load(name, tmp_path)


@pytest.mark.parametrize("name, file", [("msmt17", "list_query.txt"), ("llcm", "idx/train_nir.txt"), ("regdb", "idx/test_visible_3.txt")])
def test_an_empty_list_is_named(tmp_path, name, file):
    LISTED[name][0](tmp_path)
    (tmp_path / file).write_text("\n")
    with pytest.raises(ReidError, match=rf"{file} names no image"):
        registry.load(name, tmp_path)


def test_an_image_that_asks_and_answers_is_named(tmp_path):
    make_msmt17(tmp_path)
    query, gallery = ((tmp_path / msmt17.LISTS[name][0]).read_text() for name in ("query", "gallery"))
    (tmp_path / "list_gallery.txt").write_text(gallery + query)
    with pytest.raises(ReidError, match=r"test/0000/0000_000_01_.*\.jpg is a query and in the gallery \(1 such images\)"):
        registry.load("msmt17", tmp_path)


# ---------------------------------------------------------------- runs that are asked for what does not fit

def plan_of(data, *names):
    job = Train("a", RECIPE, data, 0, names)
    return Plan("uniat", "title", PRESETS["smoke"], 1, {"a": job, "b": dataclasses.replace(job, name="b", start="a")}, {})


@pytest.mark.parametrize("data, names, told", [
    (Data("market1501", "smoke"), ("at_ustc/DT-ST",), "job 'a' is to be scored in 'at_ustc/DT-ST', which is no setting of market1501. Choose among market1501/standard"),
    (Data("prcc", "smoke"), ("prcc/cloth-changing", "at_ustc/mixed"), "'at_ustc/mixed', which is no setting of prcc"),
    (Data("at_ustc", "smoke"), ("at_ustc/DT-SL",), "'at_ustc/DT-SL', which is no setting of at_ustc.*at_ustc/DT-ST.*at_ustc/mixed$|at_ustc/mixed\\."),
    (Data("veri", "smoke"), ("veri/standard",), "no dataset with settings named 'veri'")])
def test_a_setting_of_other_data_is_found_before_anything_is_rendered(monkeypatch, data, names, told):
    monkeypatch.setattr(runs, "prepare", lambda data: pytest.fail("rendered"))
    with pytest.raises(UsageError, match=told):
        runs.execute(plan_of(data, *names), "a")
    with pytest.raises(UsageError, match=told):
        check_ready(plan_of(data, *names), [])


def test_a_twin_of_an_unknown_size():
    with pytest.raises(UsageError, match="no size of the twin of at_ustc named 'smokee'. Did you mean 'smoke'"):
        runs.prepare(Data("at_ustc", "smokee"))


# ---------------------------------------------------------------- networks and losses whose parts do not fit

TINY = {"image_size": (64, 32), "embed_dim": 48, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("arguments, told", [
    ({"patch_sise": 8}, "no argument of a ViT named 'patch_sise'. Did you mean 'patch_size'"), ({"num_heads": 5}, "cannot be built with .*'num_heads': 5.*multiple of num_heads"),
    ({"image_size": (60, 32)}, r"image_size=\(60, 32\) is no multiple of the patches of 16 x 16"), ({"patch_size": 24}, "no multiple of the patches of 24 x 24"),
    ({"image_size": (64,)}, "height and width in pixels"), ({"image_size": (0, 32)}, "height and width in pixels"), ({"drop_path": 1.5}, "drop_path=1.5"), ({"tokens": 0}, "tokens=0"),
    ({"stem": {"depht": 50}}, "no argument of a stem named 'depht'. Did you mean 'depth'")])
def test_arguments_of_a_trunk_that_do_not_fit(arguments, told):
    with pytest.raises(UsageError, match=told):
        vit_trunk(**TINY | arguments)


def test_six_heads_on_a_trunk_without_tokens():
    recipe = RECIPE.scaled(model="reid_nb.backbones:resnet", model_args={"depth": 18, "width": 0.125})
    model = build_model(recipe, Classes.of(3))
    with pytest.raises(UsageError, match="2 x 64 x 4 x 2 where six heads need images x tokens x channels.*vit_trunk"):
        model(training.torch.zeros(2, 3, 64, 32))


@pytest.mark.parametrize("value", ["no", 0, None])
def test_a_switch_that_is_neither_true_nor_false(value):
    with pytest.raises(UsageError, match="losses, hdw: true or false is expected"):
        build({"said": True, "hdw": value}, Classes.of(3))


def test_a_search_with_six_heads_asks_the_one_for_unknown_scenarios(people, tmp_path):
    dataset = people()
    training.train(RECIPE, dataset, 0, tmp_path, threads=1, progress=False)
    found = search(dataset.root / dataset.train["path"][0], dataset.root, tmp_path)
    assert len(found) == len(dataset.train) - 1 and found["distance"].is_monotonic_increasing and found["distance"].between(0, 2).all()


def test_embeddings_of_another_number_of_heads_are_named(copy):
    table = settings.test_table(at_ustc.load(copy))
    with pytest.raises(ReidError, match="at_ustc/DT-ST: embeddings of 4 heads.*6 scenarios"):
        settings.measured("at_ustc/DT-ST", np.ones((len(table), 4, 2)), table)
