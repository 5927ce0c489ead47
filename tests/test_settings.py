"""What a number is measured on: golden values of the six scenarios, brute force, draws that do not depend on a listing's order."""
import random

import numpy as np
import pandas as pd
import pytest

from reid_nb import metrics, protocols, settings
from reid_nb.errors import ReidError, UsageError
from reid_nb.protocols import MARKET1501, MOMENTS, SCENARIOS, Protocol, same
from reid_nb.settings import Setting, drawn, evaluate, fixed, get, mixed_test, of, test_table, valid_queries

test_table.__test__ = False

# Golden values of the released evaluator: how the tables and features were made, and what came out


def made(count, split, offset, people, step):
    i = np.arange(count)
    pid = i % people
    table = pd.DataFrame({"path": [f"{split}{n:03}" for n in i], "split": split, "pid": pid, "clothes": i // people % 3 + 1,
                          "modality": np.where(i // (4 if split == "query" else 3) % 2 == 0, "rgb", "ir"), "camid": 1 + step * i % 8})
    k = np.arange(1, 17)
    return table, np.sin(.7 * (i[:, None] + offset) * k) + .9 * np.cos(1.3 * (pid[:, None] + 1) * k)


QUERY, GALLERY = made(60, "query", 1, 12, 5), made(240, "gallery", 101, 15, 7)
TABLE, FEATURES = pd.concat([QUERY[0], GALLERY[0]], ignore_index=True), np.concatenate([QUERY[1], GALLERY[1]])
CAMERA = same("pid") & same("camid")
GOLDEN = [
    (protocols.get("DT-ST"), 32, .343750, .875000, .517617), (protocols.get("DT-LT"), 32, .468750, .843750, .589980),
    (protocols.get("NT-ST"), 28, .250000, .857143, .480507), (protocols.get("NT-LT"), 28, .285714, .857143, .545107),
    (protocols.get("AD-ST"), 60, .333333, .866667, .477304), (protocols.get("AD-LT"), 60, .383333, .883333, .550086),
    (Protocol("market", CAMERA | MOMENTS["DT"]), 32, .531250, .875000, .651764),
    (Protocol("sysu", protocols.SYSU_MM01.left_out | CAMERA), 60, .500000, .933333, .613260),
    (protocols.LLCM, 60, .483333, .933333, .610757),
    (Protocol("deepchange", MOMENTS["DT"] | same("pid") & same("clothes")), 32, .468750, .875000, .600006),
]


@pytest.mark.parametrize("protocol, valid, r1, r5, ap", GOLDEN, ids=lambda value: getattr(value, "name", ""))
def test_golden_values_of_the_evaluator(protocol, valid, r1, r5, ap):
    setting = Setting("golden", "golden", protocol, "AD-LT", fixed())
    scores = evaluate(setting, FEATURES, TABLE)
    found = scores.summary()
    assert (scores.valid, scores.skipped) == (valid, 60 - valid) and valid_queries(setting, TABLE) == valid
    assert [round(found[name], 6) for name in ("Rank-1", "Rank-5", "mAP")] == [r1, r5, ap]


@pytest.mark.parametrize("name, protocol", [("DT-ST", protocols.SAME_CLOTHES), ("DT-LT", protocols.CLOTH_CHANGING)])
def test_a_dataset_in_colour_is_the_colour_part_of_a_scenario(name, protocol):
    """The rows of a moment may be taken out by the protocol or not be chosen at all."""
    chosen = Setting("colour", "golden", protocol, "DT-ST", fixed({"modality": "rgb"}, {"modality": "rgb"}))
    whole = Setting("all", "golden", protocols.get(name), "DT-ST", fixed())
    first, second = (evaluate(each, FEATURES, TABLE).summary() for each in (chosen, whole))
    assert first["mAP"] == pytest.approx(second["mAP"], abs=1e-12) and first["valid"] == second["valid"]


# Scenarios against plain loops

def kept(scenario, q, g, mixed=False):
    """Whether a gallery record stays in a query's ranking, written out."""
    moment, interval = scenario.split("-")
    mine = q.pid == g.pid
    wrong_moment = {"DT": "ir" in (q.modality, g.modality), "NT": "rgb" in (q.modality, g.modality), "AD": q.modality == g.modality}[moment]
    if wrong_moment and (mine or not mixed):
        return False
    if mine and q.camid == g.camid:
        return False
    return not (mine and (q.clothes == g.clothes) == (interval == "LT"))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mixed", [False, True])
def test_scenarios_against_loops(scenario, mixed):
    protocol = (protocols.mixed if mixed else protocols.anytime)(scenario)
    query, gallery = QUERY[0][:20], GALLERY[0][:80]
    q, g = np.mgrid[:len(query), :len(gallery)]
    found = ~protocol.left_out.holds(query, gallery, q, g)
    assert found.tolist() == [[kept(scenario, a, b, mixed) for b in gallery.itertuples()] for a in query.itertuples()]


def anytime_tables(seed=0):
    """A test table in the manner of AT-USTC: each person in two outfits, at two places by day and two at night; one owns one outfit."""
    rows = [(pid, clothes, camid, number) for pid in range(1, 7) for clothes in ((1,) if pid == 6 else (1, 2)) for camid in (1, 2, 9, 10) for number in range(4)]
    table = pd.DataFrame(rows, columns=["pid", "clothes", "camid", "number"])
    table["modality"] = np.where(table.camid <= 8, "rgb", "ir")
    table["part"] = np.where(table.camid <= 8, "DT", "NT") + np.where(table.number % 2 == 0, "-ST", "-LT").astype(object)
    table["split"] = np.where(table.number < 2, "query", "gallery")
    table = table.sort_values("split", ascending=False, ignore_index=True).assign(path=lambda t: [f"{i:03}" for i in range(len(t))])
    return table, np.random.default_rng(seed).normal(size=(len(table), 8))


def test_settings_of_at_ustc_count_as_the_released_evaluator_does():
    """There, features of the flags of day and night together are evaluated, and the protocol alone takes out what does not belong."""
    table, features = anytime_tables()
    for name in SCENARIOS:
        both = tuple(f"{moment}-{name[3:]}" for moment in ("DT", "NT"))
        released = Setting("released", "at_ustc", protocols.get(name), name, fixed({"part": both}, {"part": both}))
        ours, theirs = (evaluate(each, features, table).summary() for each in (get(f"at_ustc/{name}"), released))
        assert ours["valid"] == theirs["valid"] and ours["mAP"] == pytest.approx(theirs["mAP"], abs=1e-12)


def test_a_person_with_one_outfit_is_skipped_and_counted():
    table, features = anytime_tables()
    long, short = (evaluate(get(f"at_ustc/DT-{interval}"), features, table).summary() for interval in ("LT", "ST"))
    assert (long["queries"], long["valid"], long["skipped"]) == (22, 20, 2) and short["skipped"] == 0
    with pytest.raises(ReidError, match="at_ustc/AD-LT, trial 0: No query has a gallery record that counts"):
        evaluate(get("at_ustc/AD-LT"), features, table.assign(clothes=1))


def test_the_mixed_test_is_the_mean_over_all_queries():
    table, features = anytime_tables()
    scores = mixed_test(features, table)
    queries = scores.per_query[scores.per_query["valid"]]
    assert scores.summary()["mAP"] == pytest.approx(queries["ap"].mean()) and set(queries["setting"]) == {f"at_ustc/mixed/{s}" for s in SCENARIOS}
    assert scores.summary()["Rank-1"] == pytest.approx((queries["first_hit"] == 1).mean())
    assert scores.valid == sum(valid_queries(get(f"at_ustc/{s}"), table) for s in SCENARIOS)


# Draws

def sysu(order=None):
    """Six people, cameras 1 to 6, five pictures each."""
    rows = [(f"cam{camid}/{pid:04}/{number:04}.jpg", "query" if camid in (3, 6) else "gallery", pid, camid, "ir" if camid in (3, 6) else "rgb")
            for camid in range(1, 7) for pid in (6, 10, 17, 21, 24, 25) for number in range(1, 6)]
    table = pd.DataFrame(rows, columns=["path", "split", "pid", "camid", "modality"])
    return table if order is None else table.sample(frac=1, random_state=order).reset_index(drop=True)


@pytest.mark.parametrize("trial", [0, 3, 9])
def test_sysu_draws_what_the_common_practice_draws(trial):
    """Python's generator seeded by the trial; for each person, for each camera, one choice from the sorted files."""
    random.seed(trial)
    wanted = [random.choice([f"cam{camid}/{pid:04}/{number:04}.jpg" for number in range(1, 6)]) for pid in (6, 10, 17, 21, 24, 25) for camid in (1, 2, 4, 5)]
    for table in (sysu(), sysu(order=1)):
        _, gallery = get("sysu_mm01/all-search").rows(table, trial)
        assert sorted(table.loc[gallery, "path"]) == sorted(wanted)


def test_sizes_of_sysu_galleries():
    table = sysu()
    sizes = {name: len(get(f"sysu_mm01/{name}").rows(table, 0)[1]) for name in ("all-search", "indoor-search", "all-search/multi-shot")}
    assert sizes == {"all-search": 24, "indoor-search": 12, "all-search/multi-shot": 120}   # five pictures where ten are asked for
    assert len(get("sysu_mm01/all-search").rows(table, 0)[0]) == 60


def test_a_draw_of_many_is_without_repetition():
    table = sysu()
    rows = drawn(table, np.arange(len(table)), ("pid",), 0, shots=10)
    assert len(set(rows)) == len(rows) == 60 and set(table.loc[rows].groupby("pid").size()) == {10}


def test_trials_are_averaged():
    table = sysu()
    features = np.random.default_rng(0).normal(size=(len(table), 8))
    scores = evaluate(get("sysu_mm01/all-search"), features, table)
    assert scores.summary()["trials"] == 10 and len(scores.per_query) == 600
    assert scores.summary()["mAP"] == pytest.approx(scores.per_query.groupby("trial")["ap"].mean().mean())
    one = metrics.evaluate(features[:60], features[:60], table[:60], table[:60], protocols.ALL_PAIRS)
    assert len(scores.evaluations) == 10 and one.total == 60


def test_cameras_beside_each_other_are_left_out_in_the_original_alone():
    table = sysu()
    table = table[(table["camid"] == 3) | (table["camid"] == 2)].reset_index(drop=True)
    with pytest.raises(ReidError, match="No query"):
        evaluate(get("sysu_mm01/indoor-search"), np.ones((len(table), 2)), table)
    assert evaluate(get("sysu_mm01/indoor-search/released"), np.eye(len(table)), table).valid == 300


def test_trials_of_regdb_are_splits():
    table = pd.DataFrame([(f"{kind}{pid}", kind, pid, 1 + (kind == "ir"), part, "query" if kind == "rgb" else "gallery")
                          for pid, part in ((1, "1,2"), (2, "2,10"), (3, "1")) for kind in ("rgb", "ir")],
                         columns=["path", "modality", "pid", "camid", "part", "split"])
    asked = {trial: table.loc[query, "path"].tolist() for trial, query, _ in settings.trials(get("regdb/thermal-to-visible"), table)}
    assert asked == {0: ["ir1", "ir3"], 1: ["ir1", "ir2"], 9: ["ir2"]}
    assert len(list(settings.trials(get("regdb/both-directions"), table))) == 6
    assert evaluate(get("regdb/both-directions"), np.eye(3)[table["pid"] - 1], table).summary()["mAP"] == 1


def test_single_shot_prcc_has_one_picture_a_person_and_multi_shot_all():
    table = pd.DataFrame([(f"{part}{pid}{n}", part, pid, camid, clothes, "gallery" if part == "A" else "query")
                          for part, camid, clothes in (("A", 1, 1), ("B", 2, 1), ("C", 3, 2)) for pid in (1, 2) for n in range(3)],
                         columns=["path", "part", "pid", "camid", "clothes", "split"])
    features = np.eye(2)[table["pid"] - 1]
    for name, gallery in (("cloth-changing", 2), ("same-clothes", 2), ("cloth-changing/released", 6)):
        setting = get(f"prcc/{name}")
        query, rows = setting.rows(table, 0)
        assert len(query) == 6 and len(rows) == gallery
        assert evaluate(setting, features, table).summary()["mAP"] == 1


# The list of settings, and errors

def test_originals_come_first_and_departures_say_what_they_are():
    datasets = {each.dataset for each in settings.SETTINGS.values()}
    assert datasets == {"market1501", "at_ustc", "msmt17", "cuhk03", "sysu_mm01", "llcm", "regdb", "deepchange", "prcc", "ltcc", "vc_clothes"}
    for dataset in datasets:
        originals = [each.original for each in of(dataset)]
        assert originals[0] and originals == sorted(originals, reverse=True)
    for each in settings.SETTINGS.values():
        assert each.scenario in SCENARIOS and each.name.startswith(each.dataset + "/") and get(each.name) is each
        assert each.original or each.note and each.name.endswith("/released")
    assert [each.name for each in of("at_ustc")[:6]] == [f"at_ustc/{scenario}" for scenario in SCENARIOS]
    assert SCENARIOS == ("DT-ST", "DT-LT", "NT-ST", "NT-LT", "AD-ST", "AD-LT")


def test_what_is_not_there_is_named():
    with pytest.raises(UsageError, match="Did you mean 'at_ustc/DT-ST'"):
        get("at_ustc/DTST")
    with pytest.raises(UsageError, match="Known: at_ustc, cuhk03"):
        of("duke")
    with pytest.raises(UsageError, match="Known: AD-LT"):
        protocols.anytime("noon")
    with pytest.raises(ReidError, match="at_ustc/DT-ST: 3 embeddings for a test table of 300"):
        evaluate(get("at_ustc/DT-ST"), np.ones((3, 2)), TABLE)
    for name in ("at_ustc/DT-ST", "regdb/visible-to-thermal", "prcc/same-clothes", "ltcc/cloth-changing/released"):
        with pytest.raises(ReidError, match="lacks the column 'part'"):
            evaluate(get(name), FEATURES, TABLE)
    with pytest.raises(ReidError, match="no record of the test table is a query"):
        evaluate(get("at_ustc/DT-ST"), FEATURES, TABLE.assign(part="validation"))
    with pytest.raises(ReidError, match=r"needs the column 'seqid'.*bbox.txt"):
        evaluate(get("deepchange/standard"), FEATURES, TABLE)


def test_a_test_table_is_queries_then_gallery(tmp_path):
    from reid_nb.records import Dataset

    dataset = Dataset("d", tmp_path, TABLE[:0], QUERY[0].drop(columns="split"), GALLERY[0].drop(columns="split"), "own")
    pd.testing.assert_frame_equal(test_table(dataset)[list(TABLE)], TABLE)


def test_market_is_evaluated_as_ever():
    setting = get("market1501/standard")
    plain = metrics.evaluate(QUERY[1], GALLERY[1], QUERY[0], GALLERY[0], MARKET1501)
    assert evaluate(setting, FEATURES, TABLE).summary()["mAP"] == plain.mAP
