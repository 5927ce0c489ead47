"""Rules and protocols against plain comparisons of one pair at a time: how they combine, what they say, and what they refuse."""
import operator

import numpy as np
import pandas as pd
import pytest

from reid_nb.errors import ReidError, UsageError
from reid_nb.metrics import evaluate, evaluate_distances
from reid_nb.protocols import (ALL_PAIRS, MARKET1501, PROTOCOLS, SAME_CAMERA, Protocol, check_columns, gallery_is, get, listed, parts_of,
                               query_is, same, single_shot, within)


def table(rows, seed, prefix):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"path": [f"{prefix}{row}" for row in range(rows)], "pid": rng.integers(-1, 5, rows), "camid": rng.integers(1, 4, rows),
                         "clothes": rng.integers(0, 3, rows), "time": rng.integers(0, 9, rows), "view": rng.integers(0, 2, rows),
                         "modality": rng.choice(["visible", "infrared"], rows)})


QUERY, GALLERY = table(12, 0, "q"), table(60, 1, "g")
QUERY["pid"] = np.arange(12) % 4 + 1
JUNK = [sorted(np.random.default_rng(row).permutation(60)[:row % 4]) for row in range(12)]

BASIC = {
    "person": (same("pid"), lambda i, q, j, g: q.pid == g.pid),
    "camera": (same("camid"), lambda i, q, j, g: q.camid == g.camid),
    "clothes": (same("clothes"), lambda i, q, j, g: q.clothes == g.clothes),
    "view": (same("view"), lambda i, q, j, g: q.view == g.view),
    "time": (within("time", 2), lambda i, q, j, g: abs(q.time - g.time) <= 2),
    "gallery modality": (gallery_is("modality", "visible"), lambda i, q, j, g: g.modality == "visible"),
    "query camera": (query_is("camid", 1, 3), lambda i, q, j, g: q.camid in (1, 3)),
    "junk": (gallery_is("pid", -1), lambda i, q, j, g: g.pid == -1),
    "list": (listed(JUNK), lambda i, q, j, g: j in JUNK[i]),
}


def pair_by_pair(test):
    return np.array([[bool(test(i, q, j, g)) for j, g in enumerate(GALLERY.itertuples())] for i, q in enumerate(QUERY.itertuples())])


def all_pairs(rule):
    return np.broadcast_to(rule.holds(QUERY, GALLERY, np.arange(12)[:, None], np.arange(60)[None]), (12, 60))


@pytest.mark.parametrize("name", BASIC)
def test_a_rule_and_its_opposite(name):
    rule, test = BASIC[name]
    np.testing.assert_array_equal(all_pairs(rule), pair_by_pair(test))
    np.testing.assert_array_equal(all_pairs(~rule), ~pair_by_pair(test))


def grown(seed):
    """A random rule of four basic ones, and which pairs it means."""
    rng = np.random.default_rng(seed)
    parts = [BASIC[name] for name in rng.permutation(list(BASIC))[:4]]
    rule, pairs = parts[0][0], pair_by_pair(parts[0][1])
    for other, test in parts[1:]:
        other, more = (~other, ~pair_by_pair(test)) if rng.random() < 0.3 else (other, pair_by_pair(test))
        combine = operator.and_ if rng.random() < 0.5 else operator.or_
        rule, pairs = combine(rule, other), combine(pairs, more)
        if rng.random() < 0.2:
            rule, pairs = ~rule, ~pairs
    return rule, pairs


@pytest.mark.parametrize("seed", range(40))
def test_any_combination_decides_and_evaluates_as_pair_by_pair(seed):
    """The evaluator takes a rule apart (gallery, same pid, pair); what counts must be what the rule says pair by pair."""
    rule, pairs = grown(seed)
    np.testing.assert_array_equal(all_pairs(rule), pairs)
    distances = np.random.default_rng(seed).integers(0, 9, (12, 60)).astype(float)
    expected = []
    for i in range(12):
        ranking = [j for j in sorted(range(60), key=lambda j: (distances[i, j], j)) if not pairs[i, j]]
        expected.append([rank for rank, j in enumerate(ranking, 1) if GALLERY.pid[j] == QUERY.pid[i]])
    if not any(expected):
        with pytest.raises(ReidError, match="No query has"):
            evaluate_distances(distances, QUERY, GALLERY, Protocol("grown", rule))
    else:
        found = evaluate_distances(distances, QUERY, GALLERY, Protocol("grown", rule))
        assert found.ranks.tolist() == [rank for ranks in expected for rank in ranks]
        assert found.skipped == sum(not ranks for ranks in expected)


def test_what_a_rule_reaches():
    assert [part.reach for part in parts_of(MARKET1501.left_out)] == ["same pid", "gallery"]
    assert (~gallery_is("modality", "visible")).reach == "gallery" and (same("pid") & same("clothes")).reach == "same pid"
    assert (~(same("pid") & same("camid"))).reach == same("camid").reach == listed([]).reach == "pair"


# In words

def test_market1501_in_words():
    assert MARKET1501.describe().endswith("Left out of a query's ranking is a record with the same pid and the same camid, or a gallery pid of -1.")


def test_words_of_different_rules_differ():
    a, b, c = same("pid"), same("camid"), gallery_is("view", 1)
    words = [rule.words for rule in (~(a & b), ~a & b, ~(a | b), ~a | b, (a | b) & c, a | b & c, a & b | c, a & (b | c))]
    assert words[0] == "not (the same pid and the same camid)" and len(set(words)) == len(words)


# What datasets need, each by its published rule in plain words

def right_and_counted(rule, query, gallery):
    """Gallery rows that count as hits for the first query."""
    q, g = np.zeros(len(gallery), int), np.arange(len(gallery))
    return np.flatnonzero((gallery["pid"] == query["pid"][0]) & ~np.broadcast_to(rule.holds(query, gallery, q, g), len(gallery))).tolist()


ASKED = pd.DataFrame({"path": ["q"], "pid": [1], "camid": [3], "clothes": [0], "modality": ["infrared"]})


def test_sysu_mm01_searches_one_modality_and_not_camera_2_from_camera_3():
    """Infrared camera 3 asks in a visible gallery; cameras 2 and 3 stand at the same place, so 2 is left out for queries of 3."""
    rule = ~gallery_is("modality", "visible") | query_is("camid", 3) & gallery_is("camid", 2)
    gallery = pd.DataFrame({"path": list("abcd"), "pid": 1, "camid": [1, 2, 6, 4], "modality": ["visible", "visible", "infrared", "visible"]})
    assert right_and_counted(rule, ASKED, gallery) == [0, 3]


def test_prcc_searches_the_same_or_other_clothes():
    gallery = pd.DataFrame({"path": list("abcd"), "pid": [1, 1, 2, 1], "camid": [1, 2, 1, 1], "clothes": [0, 1, 0, 1]})
    assert right_and_counted(~same("clothes"), ASKED, gallery) == [0]
    assert right_and_counted(same("pid") & same("clothes"), ASKED, gallery) == [1, 3]


def test_trap_8_single_shot_is_seeded_and_scored_on_its_own_gallery():
    """A near and a far image of the person, three strangers between: half of the draws give Rank-1 = 1, and AP is 1 or 1/4, never that of all images."""
    query = pd.DataFrame({"path": ["q"], "pid": [1], "camid": [1]})
    gallery = pd.DataFrame({"path": list("abcde"), "pid": [1, 5, 6, 7, 1], "camid": 2})
    distances = np.array([[1, 2, 3, 4, 5.0]])
    draws = [single_shot(gallery, seed=seed) for seed in range(400)]
    trials = [evaluate_distances(distances[:, rows], query, gallery.iloc[rows].reset_index(drop=True)) for rows in draws]
    assert {trial.mAP for trial in trials} == {1.0, 0.25} and np.mean([trial.rank(1) for trial in trials]) == pytest.approx(0.5, abs=0.08)
    assert all((single_shot(gallery, seed=seed) == draws[seed]).all() for seed in range(10))


def test_single_shot_draws_one_a_group():
    rows = single_shot(GALLERY, by=("pid", "camid"), seed=5)
    assert (np.diff(rows) > 0).all() and not GALLERY.iloc[rows].duplicated(["pid", "camid"]).any()
    assert len(rows) == GALLERY.groupby(["pid", "camid"]).ngroups


def test_all_pairs_leaves_out_the_query_image_itself():
    pool = pd.DataFrame({"path": ["a", "b", "c"], "pid": [1, 1, 2]})
    found = evaluate_distances(1 - np.eye(3), pool, pool, ALL_PAIRS)
    assert found.per_query["hits"].tolist() == [1, 1, 0] and found.skipped == 1


# Junk lists

def test_junk_lists_keep_their_row_numbers_beside_other_rules():
    """A rule that takes gallery records out for everybody must not shift the rows that a list names."""
    query, gallery = pd.DataFrame({"path": ["q"], "pid": [1]}), pd.DataFrame({"path": list("abc"), "pid": [-1, 9, 1]})
    protocol = Protocol("lists", gallery_is("pid", -1) | listed([[1]]))
    assert evaluate_distances([[0, 1, 2]], query, gallery, protocol).mAP == 1.0
    assert evaluate(np.array([[1.0, 0]]), np.array([[1, 0], [1, 0.1], [1, 1]]), query, gallery, protocol).mAP == 1.0


@pytest.mark.parametrize("lists, message", [([[0]], "1 junk lists for 2 queries"), ([[0], [3]], "name 1 rows .* first is 3; it has rows 0 to 1"),
                                            ([[], [-1]], "the first is -1")])
def test_junk_lists_of_another_table(lists, message):
    query, gallery = pd.DataFrame({"path": ["q", "r"], "pid": 1}), pd.DataFrame({"path": ["a", "b"], "pid": 1})
    with pytest.raises(ReidError, match=message):
        evaluate_distances(np.zeros((2, 2)), query, gallery, Protocol("lists", listed(lists)))


# What tables lack

@pytest.mark.parametrize("protocol", [MARKET1501, SAME_CAMERA])
@pytest.mark.parametrize("split", ["query", "gallery"])
def test_a_missing_camera_names_column_protocol_split_and_remedy(protocol, split):
    tables = {"query": QUERY, "gallery": GALLERY}
    tables[split] = tables[split].drop(columns="camid")
    with pytest.raises(ReidError, match=f"{protocol.name} needs the column 'camid', which the {split} table lacks.*protocol all_pairs"):
        check_columns(protocol, **tables)


@pytest.mark.parametrize("name, column", [("clothes", "clothes"), ("time", "time"), ("gallery modality", "modality"), ("query camera", "camid")])
def test_every_rule_names_its_column(name, column):
    for rule in (BASIC[name][0], ~BASIC[name][0], BASIC[name][0] & same("pid") | gallery_is("pid", -1)):
        with pytest.raises(ReidError, match=f"needs the column '{column}'"):
            check_columns(Protocol("own", rule), QUERY.drop(columns=column), GALLERY.drop(columns=column))


def test_without_identities_no_protocol_is_recommended():
    with pytest.raises(ReidError, match="'pid'.*who is in a picture") as error:
        check_columns(MARKET1501, QUERY.drop(columns="pid"), GALLERY)
    assert "all_pairs" not in str(error.value)


def test_protocols_by_name():
    assert all(get(name) is protocol and protocol.name == name for name, protocol in PROTOCOLS.items())
    with pytest.raises(UsageError, match="Did you mean 'market1501'"):
        get("market-1501")


def test_on_the_robot_the_session_takes_the_cameras_part():
    protocol = get("roreas")
    query = pd.DataFrame({"path": ["q"], "pid": [7], "camid": [1]})
    gallery = pd.DataFrame({"path": list("abc"), "pid": [7, 7, 8], "camid": [1, 2, 1]})
    assert protocol.left_out.holds(query, gallery, np.zeros(3, int), np.arange(3)).tolist() == [True, False, False]
    assert "the same pid and the same camid. There is one camera" in protocol.describe() and "leaves open" in protocol.describe()
