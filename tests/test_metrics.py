"""Metrics against plain loops, the MATLAB code's rule, and the published traps of ReID evaluation, each with its numbers."""
import numpy as np
import pandas as pd
import pytest

from reid_nb.errors import ReidError, UsageError
from reid_nb.metrics import evaluate, evaluate_distances
from reid_nb.protocols import ALL_PAIRS, MARKET1501, SAME_CAMERA, Protocol, query_is, same, within


def table(pids, camids, prefix="g"):
    return pd.DataFrame({"path": [f"{prefix}{i}" for i in range(len(pids))], "pid": pids, "camid": camids})


def one_query(pids, camids=None, pid=1, camid=1):
    return table([pid], [camid], "q"), table(pids, camids or [2] * len(pids))


def by_loops(distances, query, gallery, left_out, ap="rectangular", ties="stable"):
    """The definition, query by query: sort, remove what is left out, walk down the list."""
    results = []
    for i in range(len(query)):
        right = [gallery["pid"][j] == query["pid"][i] for j in range(len(gallery))]
        second = {"stable": lambda j: j, "pessimistic": lambda j: right[j], "optimistic": lambda j: not right[j]}[ties]
        ranking = [j for j in sorted(range(len(gallery)), key=lambda j: (distances[i][j], second(j)))
                   if not left_out(query.iloc[i], gallery.iloc[j])]
        ranks = [r + 1 for r, j in enumerate(ranking) if right[j]]
        if ranks:
            at = [(k + 1) / r for k, r in enumerate(ranks)]
            before = [k / (r - 1) if r > 1 else 1.0 for k, r in enumerate(ranks)]
            parts = at if ap == "rectangular" else [(a + b) / 2 for a, b in zip(at, before)]
            results.append((np.mean(parts), len(ranks) / ranks[-1], ranks[0]))
    return np.array(results)


PROTOCOLS = [
    (MARKET1501, lambda q, g: (q.pid == g.pid and q.camid == g.camid) or g.pid == -1),
    (ALL_PAIRS, lambda q, g: q.path == g.path),
    (SAME_CAMERA, lambda q, g: q.camid != g.camid or g.pid == -1),
    (Protocol("other camera for all", same("camid")), lambda q, g: q.camid == g.camid),
    (Protocol("mixed", same("pid") & within("camid", 1) | query_is("camid", 3)), lambda q, g: (q.pid == g.pid and abs(q.camid - g.camid) <= 1) or q.camid == 3),
]


@pytest.mark.parametrize("ap", ["rectangular", "trapezoid"])
@pytest.mark.parametrize("ties", ["stable", "pessimistic", "optimistic"])
@pytest.mark.parametrize("protocol, left_out", PROTOCOLS, ids=lambda value: getattr(value, "name", ""))
def test_agrees_with_plain_loops(protocol, left_out, ties, ap):
    """Random tables with junk, distractors and many ties (distances of eight values)."""
    rng = np.random.default_rng(3)
    for _ in range(12):
        query = table(rng.integers(1, 6, 9), rng.integers(1, 4, 9), "q")
        gallery = table(rng.integers(-1, 6, 40), rng.integers(1, 4, 40))
        distances = rng.integers(0, 8, (9, 40)).astype(float)
        expected = by_loops(distances, query, gallery, left_out, ap, ties)
        found = evaluate_distances(distances, query, gallery, protocol, ap=ap, ties=ties)
        valid = found.per_query.query("valid")
        np.testing.assert_allclose(valid[["ap", "inp", "first_hit"]], expected)
        assert found.skipped == 9 - len(expected) and found.mAP == pytest.approx(expected[:, 0].mean())
        np.testing.assert_allclose(found.cmc[:10], [(expected[:, 2] <= k).mean() for k in range(1, 11)])


def test_embeddings_and_their_distances_agree():
    rng = np.random.default_rng(0)
    query, gallery = table(rng.integers(1, 9, 30), rng.integers(1, 4, 30), "q"), table(rng.integers(-1, 9, 200), rng.integers(1, 4, 200))
    q, g = rng.normal(size=(30, 16)), rng.normal(size=(200, 16))
    cosine = 1 - (q / np.linalg.norm(q, axis=1)[:, None]) @ (g / np.linalg.norm(g, axis=1)[:, None]).T
    euclidean = ((q[:, None] - g[None]) ** 2).sum(2)
    for metric, distances in [("cosine", cosine), ("euclidean", euclidean)]:
        a, b = evaluate(q, g, query, gallery, metric=metric), evaluate_distances(distances, query, gallery)
        np.testing.assert_array_equal(a.ranks, b.ranks)


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(1)
    query, gallery = table(rng.integers(1, 9, 30), rng.integers(1, 4, 30), "q"), table(rng.integers(1, 9, 100), rng.integers(1, 4, 100))
    q, g = rng.normal(size=(30, 8)).astype("f4"), rng.normal(size=(100, 8)).astype("f4")
    whole = {metric: evaluate(q, g, query, gallery, SAME_CAMERA, metric=metric).ranks for metric in ("cosine", "euclidean")}
    monkeypatch.setattr("reid_nb.metrics.BLOCK_BYTES", 3000)
    for metric, ranks in whole.items():
        np.testing.assert_array_equal(evaluate(q, g, query, gallery, SAME_CAMERA, metric=metric).ranks, ranks)


# Traps: each is a number that two public toolboxes compute differently.

@pytest.mark.parametrize("ap, hits_at_1_and_3, hit_at_2", [("rectangular", 0.8333, 0.5), ("trapezoid", 0.7917, 0.25)])
def test_trap_1_two_rules_of_average_precision(ap, hits_at_1_and_3, hit_at_2):
    assert evaluate_distances([[1, 2, 3]], *one_query([1, 9, 1]), ap=ap).mAP == pytest.approx(hits_at_1_and_3, abs=5e-5)
    assert evaluate_distances([[1, 2]], *one_query([9, 1]), ap=ap).mAP == hit_at_2


@pytest.mark.parametrize("unmatched, expected", [("skip", 1.0), ("zero", 0.5)])
def test_trap_2_a_query_without_a_hit(unmatched, expected):
    query = table([1, 5], [1, 1], "q")
    found = evaluate_distances([[1, 2], [1, 2]], query, table([1, 2], [2, 2]), unmatched=unmatched)
    assert found.mAP == found.rank(1) == expected and found.skipped == 1


def test_trap_3_junk_is_taken_out_distractors_are_wrong():
    assert evaluate_distances([[1, 2]], *one_query([-1, 1])).summary()["Rank-1"] == 1.0
    assert evaluate_distances([[1, 2]], *one_query([0, 1])).mAP == 0.5
    same_camera = one_query([1, 1, 9, 1], [1, 2, 2, 2])
    assert evaluate_distances([[1, 2, 3, 4]], *same_camera).mAP == pytest.approx(0.8333, abs=5e-5)
    assert evaluate_distances([[1, 2, 3, 4]], *same_camera, ap="trapezoid").mAP == pytest.approx(0.7917, abs=5e-5)


def test_trap_4_junk_is_removed_and_not_only_masked():
    found = evaluate_distances([[1, 2]], *one_query([1, 1], [1, 2]))
    assert (found.mAP, found.mINP, found.rank(1)) == (1.0, 1.0, 1.0)


def test_trap_5_ties():
    query, gallery = one_query([9, 9, 9, 1])
    assert evaluate_distances(np.zeros((1, 4)), query, gallery).mAP == 0.25
    assert evaluate_distances(np.zeros((1, 4)), query, gallery, ap="trapezoid").mAP == 0.125
    assert evaluate_distances(np.zeros((1, 4)), query, gallery, ties="optimistic").mAP == 1.0


def test_trap_5_the_bounds_enclose_the_stable_result():
    rng = np.random.default_rng(5)
    query, gallery = table(rng.integers(1, 9, 50), [1] * 50, "q"), table(rng.integers(1, 9, 300), [2] * 300)
    distances = np.round(rng.random((50, 300)), 1)
    low, mid, high = (evaluate_distances(distances, query, gallery, ties=ties).mAP for ties in ("pessimistic", "stable", "optimistic"))
    assert low < mid < high


def test_trap_6_double_precision_is_kept():
    query, gallery = one_query([9, 1])
    assert evaluate_distances(np.array([[1.0, 1.0 + 1e-9]]), query, gallery, ties="optimistic").mAP == 0.5


def test_trap_7_short_galleries_hold_the_last_value():
    query = table([1, 2], [1, 1], "q")
    cmc = evaluate_distances([[1, 2, 3], [2, 3, 1]], query, table([1, 2, 2], [2, 2, 1])).cmc
    assert len(cmc) == 50 and (np.diff(cmc) >= 0).all() and cmc[-1] == 1.0


def test_trap_9_a_query_counts_once_in_cmc():
    assert evaluate_distances([[1, 2, 3]], *one_query([1, 9, 1])).rank(1) == 1.0


def test_trap_10_sums_are_in_double_precision():
    rng = np.random.default_rng(0)
    query, gallery = table([1] * 2000, [1] * 2000, "q"), table(rng.integers(1, 3, 30), [2] * 30)
    found = evaluate_distances(rng.random((2000, 30)).astype("f4"), query, gallery)
    assert found.mAP == pytest.approx(np.mean(found.per_query["ap"].to_numpy().tolist()), abs=1e-12)


def test_trap_11_large_norms_do_not_swallow_small_distances():
    """|x - y|^2 = 1e-6 between vectors of norm 1,400: single precision gives 0.25 and the wrong neighbour."""
    base = np.full(2048, 1400 / np.sqrt(2048), dtype=np.float64)
    near, far = base.copy(), base.copy()
    near[0] += 1e-3
    far[0] += 2e-3
    query, gallery = one_query([9, 1])
    assert evaluate(base[None], np.stack([far, near]), query, gallery, metric="euclidean").mAP == 1.0


def test_trap_11_close_cosines_stay_apart():
    """A clip at 1 - 1e-5 makes one value of the cosines 0.9999956, 0.9999995 and 1; then the wrong ones, stored first, would win."""
    cosines = np.array([0.9999956, 0.9999995, 1.0])
    gallery = np.stack([cosines, np.sqrt(1 - cosines ** 2)], axis=1).astype("f4")
    assert evaluate(np.array([[1, 0]], "f4"), gallery, *one_query([9, 9, 1])).mAP == 1.0


def test_trap_13_read_only_distances_and_nan():
    query, gallery = one_query([9, 1])
    distances = np.array([[1.0, 2.0]])
    distances.flags.writeable = False
    assert evaluate_distances(distances, query, gallery).mAP == 0.5
    with pytest.raises(ReidError, match="query row 0 hold NaN"):
        evaluate_distances([[np.nan, 1]], query, gallery)


def test_trap_13_read_only_memory_map(tmp_path):
    """Junk in the gallery, too: the map is read some rows at a time."""
    np.save(tmp_path / "d.npy", np.array([[0.0, 1.0, 2.0]]))
    assert evaluate_distances(np.load(tmp_path / "d.npy", mmap_mode="r"), *one_query([-1, 9, 1])).mAP == 0.5


def test_trap_14_all_hits_count_and_the_same_camera_does_not():
    """Nearest: the same camera (without the rule Rank-1 would be 1). Hits at ranks 2 and 5: 0.45; the first three neighbours alone give 0.25."""
    found = evaluate_distances([[0, 1, 2, 3, 4, 5]], *one_query([1, 9, 1, 9, 9, 1], [1, 2, 2, 2, 2, 2]))
    assert found.rank(1) == 0 and found.mAP == pytest.approx((1 / 2 + 2 / 5) / 2) and found.map_at(3) == 0.25


def test_trap_15_map_and_rank_1_are_not_averaged():
    summary = evaluate_distances([[1, 2]], *one_query([9, 1])).summary()
    assert (summary["mAP"], summary["Rank-1"]) == (0.5, 0.0)
    assert list(summary) == ["mAP", "Rank-1", "Rank-5", "Rank-10", "mINP", "queries", "skipped"]


def test_map_at_k():
    found = evaluate_distances([[1, 2, 3, 4]], *one_query([1, 9, 1, 1]))
    assert found.map_at(1) == 1.0 and found.map_at(3) == pytest.approx((1 + 2 / 3) / 3) and found.map_at(50) == found.mAP


# Bad input

def embeddings(rows):
    return np.random.default_rng(0).normal(size=(rows, 4)).astype("f4")


def test_empty_splits_are_named():
    query, gallery = one_query([1, 2])
    with pytest.raises(ReidError, match="gallery split is empty"):
        evaluate(embeddings(1), embeddings(0), query, gallery[:0])
    with pytest.raises(ReidError, match="query split is empty"):
        evaluate(embeddings(0), embeddings(2), query[:0], gallery)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_embeddings_are_counted_and_placed(value):
    query, gallery = one_query([1, 2, 3])
    broken = embeddings(3)
    broken[1, 2] = broken[2, 0] = value
    with pytest.raises(ReidError, match=r"gallery: 2 embeddings .* row 1 \(g1\)"):
        evaluate(embeddings(1), broken, query, gallery)


def test_embeddings_of_another_table():
    query, gallery = one_query([1, 2, 3])
    with pytest.raises(ReidError, match="table of 3 records"):
        evaluate(embeddings(1), embeddings(2), query, gallery)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_embeddings_of_two_models(metric):
    with pytest.raises(ReidError, match="have 4 numbers and gallery embeddings 3"):
        evaluate(embeddings(1), embeddings(2)[:, :3], *one_query([1, 2]), metric=metric)


def test_the_finer_precision_of_the_two_is_kept():
    gallery = np.array([[1.0, 2e-5], [1.0, 1e-5]])             # cosines that single precision cannot tell apart
    assert evaluate(np.array([[1, 0]], "f4"), gallery, *one_query([9, 1])).mAP == 1.0


def test_no_place_zero():
    with pytest.raises(UsageError, match="mAP@0"):
        evaluate_distances([[1, 2]], *one_query([9, 1])).map_at(0)


def test_one_camera_says_which_rule_struck_and_what_to_do():
    query, gallery = table([1, 2, 7], [1, 1, 1], "q"), table([1, 2, 3], [1, 1, 1])
    with pytest.raises(ReidError, match="of 3 queries, 1 have nobody.*2 lost all.*market1501.*all_pairs"):
        evaluate(embeddings(3), embeddings(3), query, gallery)
    assert evaluate(embeddings(3), embeddings(3), query, gallery, ALL_PAIRS).skipped == 1


def test_no_cameras_at_all():
    query, gallery = (part.drop(columns="camid") for part in one_query([1, 2]))
    with pytest.raises(ReidError, match="needs the column 'camid'.*all_pairs"):
        evaluate(embeddings(1), embeddings(2), query, gallery)
    assert evaluate(embeddings(1), embeddings(2), query, gallery, ALL_PAIRS).total == 1


def test_one_identity_can_be_evaluated():
    query, gallery = one_query([1, 1])
    assert evaluate(embeddings(1), embeddings(2), query, gallery).mAP == 1.0


@pytest.mark.parametrize("choice", [{"metric": "cosin"}, {"ap": "rect"}, {"ties": "none"}, {"unmatched": "drop"}])
def test_misspelt_choices(choice):
    with pytest.raises(UsageError, match="Known"):
        evaluate(embeddings(1), embeddings(2), *one_query([1, 2]), **choice)
