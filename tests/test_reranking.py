"""Re-ranking against the dense algorithm of the authors' released code, written with plain loops, and bad input."""
import numpy as np
import pytest
import torch

from reid_nb.errors import ReidError
from reid_nb.reranking import rerank, search


def dense(query, gallery, k1, k2, lam, power=1, itself=1):
    """The algorithm over full matrices in double precision, image by image. `power`, `itself`: see trap 12."""
    x = np.concatenate([query, gallery]).astype(float)
    d = np.maximum(((x[:, None] - x[None]) ** 2).sum(2), 0) ** power
    d = (d / d.max(axis=0)).T
    ranking = np.argsort(d, axis=1, kind="stable")

    def mutual(i, k):
        forward = ranking[i, :k + itself]
        return {int(j) for j in forward if i in ranking[j, :k + itself]}

    v = np.zeros_like(d)
    for i in range(len(x)):
        base = mutual(i, k1)
        members = set(base)
        for j in base:
            half = mutual(j, int(np.around(k1 / 2)))
            if 3 * len(half & base) > 2 * len(half):
                members |= half
        members = sorted(members)
        v[i, members] = np.exp(-d[i, members])
        v[i] /= v[i].sum()
    v = np.stack([v[ranking[i, :k2]].mean(axis=0) for i in range(len(x))])
    m = np.minimum(v[:len(query), None], v[None]).sum(2)
    return ((1 - lam) * (1 - m / (2 - m)) + lam * d[:len(query)])[:, len(query):]


def people(seed, ids=12, each=8, size=24, noise=0.8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ids, size))[np.arange(ids * each) % ids] + noise * rng.normal(size=(ids * each, size))
    return x[:ids * 2].astype("f4"), x[ids * 2:].astype("f4")


@pytest.mark.parametrize("k1, k2, lam", [(20, 6, 0.3), (7, 3, 0.0), (5, 1, 0.5), (6, 6, 1.0), (30, 2, 0.3), (1, 1, 0.2), (95, 6, 0.3)])
def test_equals_the_dense_algorithm(k1, k2, lam):
    for seed in range(3):
        query, gallery = people(seed)
        found = rerank(query, gallery, k1, k2, lam)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, dense(query, gallery, k1, k2, lam), atol=1e-5)


@pytest.mark.parametrize("variant", [{"power": 2}, {"itself": 0}])
def test_trap_12_other_toolboxes_compute_something_else(variant):
    """One squares the squared distances again, one asks for k1 neighbours with the image itself among them; the original does neither."""
    query, gallery = people(0)
    found = rerank(query, gallery)
    np.testing.assert_allclose(found, dense(query, gallery, 20, 6, 0.3), atol=1e-5)
    assert np.abs(found - dense(query, gallery, 20, 6, 0.3, **variant)).max() > 0.01


@pytest.mark.parametrize("tile", [7, 24, 32, 96])
def test_tiles_do_not_change_the_result(tile, monkeypatch):
    query, gallery = people(4)
    whole = rerank(query, gallery)
    monkeypatch.setattr("reid_nb.reranking.TILE", tile)
    np.testing.assert_allclose(rerank(query, gallery), whole, atol=1e-6)


def test_embeddings_far_from_the_origin():
    """Adding the same large vector to all embeddings changes no distance; in single precision the naive formula loses it."""
    query, gallery = people(5)
    np.testing.assert_allclose(rerank(query + 256, gallery + 256), rerank(query, gallery), atol=1e-4)


def test_copies_are_their_own_first_neighbours():
    x = torch.zeros(30, 4)
    x[20:] = 1
    places, farthest, _ = search(x, 5, 1)
    assert (places[:, 0] == np.arange(30)).all() and (farthest == 4).all()
    assert np.isfinite(rerank(np.zeros((3, 4)), np.zeros((30, 4)))).all()


def test_query_and_gallery_stay_as_they_were():
    query, gallery = people(6)
    before = query.copy(), gallery.copy()
    rerank(query, gallery)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(gallery, before[1])


@pytest.mark.parametrize("change, message", [
    (dict(query=np.full((3, 4), np.nan)), "query: 3 embeddings hold NaN or infinity, the first in row 0"),
    (dict(gallery=np.zeros((0, 4))), r"gallery embeddings have shape \(0, 4\)"),
    (dict(query=np.zeros(4)), "at least one row"),
    (dict(query=np.zeros((3, 5))), "one model for both"),
    (dict(k1=13), "Choose k1 from 1 to 12"),
    (dict(k1=0), "Choose k1 from 1 to 12"),
    (dict(k1=4, k2=6), "to k1 \\+ 1 = 5"),
    (dict(lam=1.5), "from 0 to 1"),
])
def test_bad_input(change, message):
    rng = np.random.default_rng(0)
    given = dict(query=rng.normal(size=(3, 4)), gallery=rng.normal(size=(10, 4)), k1=5, k2=2, lam=0.3) | change
    with pytest.raises(ReidError, match=message):
        rerank(*given.values())
