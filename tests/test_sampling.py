"""P x K sampling: invariants over many epochs, brute force for the length, splitting over processes."""
import itertools
from collections import Counter

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import DataLoader, Dataset

from reid_nb.errors import ReidError, UsageError
from reid_nb.sampling import IdentitySampler, epoch_length, shuffled_groups

BALANCED = np.repeat(np.arange(150), 12)
LONG_TAIL = np.repeat(np.arange(40), [1, 2, 3, 200] + [4] * 10 + [9] * 10 + [30] * 16)   # one identity has a third of the images


class Indices(Dataset):
    """Gives back the row number that it is asked for."""

    def __len__(self):
        return len(BALANCED)

    def __getitem__(self, draw):
        return draw.index


def epoch_of(sampler, epoch=0):
    sampler.epoch = epoch
    return list(sampler)


@pytest.mark.parametrize("pids", [BALANCED, LONG_TAIL, np.random.default_rng(0).permutation(LONG_TAIL)])
@pytest.mark.parametrize("identities, images", [(16, 4), (3, 2), (1, 5), (40, 1)])
def test_every_batch_is_p_identities_times_k_images(pids, identities, images):
    sampler = IdentitySampler(pids, identities, images, seed=3)
    for epoch in range(5):
        batches = epoch_of(sampler, epoch)
        assert len(batches) == len(sampler) > 0
        used = Counter()
        for batch in batches:
            groups = np.array([draw.index for draw in batch]).reshape(identities, images)
            assert (pids[groups] == pids[groups[:, :1]]).all(), "an identity's images lie side by side"
            assert len(set(pids[groups[:, 0]])) == identities
            used.update(groups.ravel().tolist())
        short = {i for i in used if (pids == pids[i]).sum() < images}
        assert all(count == 1 for index, count in used.items() if index not in short), "no image twice in an epoch"


def test_balanced_identities_take_part_equally_often_and_nearly_all_images_are_seen():
    sampler = IdentitySampler(BALANCED, 16, 4)
    assert len(sampler) == 150 * 3 // 16
    batches = epoch_of(sampler)
    assert len({draw.index for batch in batches for draw in batch}) == 28 * 64
    parts = Counter(BALANCED[batch[i].index] for batch in batches for i in range(0, 64, 4))
    assert set(parts.values()) <= {1, 2, 3} and len(parts) == 150


def test_over_many_epochs_images_are_seen_equally_often():
    sampler = IdentitySampler(BALANCED, 16, 4)
    seen = Counter(draw.index for epoch in range(60) for batch in epoch_of(sampler, epoch) for draw in batch)
    counts = np.array([seen[i] for i in range(len(BALANCED))])
    assert counts.mean() == 60 * 28 * 64 / 1800 and counts.min() > 50


def test_with_one_batch_an_epoch_everybody_gets_a_turn():
    sampler = IdentitySampler(np.repeat(np.arange(20), 4), 16, 4)
    assert len(sampler) == 1
    turns = Counter(draw.index // 4 for epoch in range(100) for [batch] in [epoch_of(sampler, epoch)] for draw in batch[::4])
    assert len(turns) == 20 and min(turns.values()) > 60


def longest_by_brute_force(groups, identities):
    """Try every way to spend the groups, one batch after another."""
    best = 0
    for chosen in itertools.combinations([i for i, g in enumerate(groups) if g], identities):
        left = list(groups)
        for i in chosen:
            left[i] -= 1
        best = max(best, 1 + longest_by_brute_force(tuple(left), identities))
    return best


@pytest.mark.parametrize("groups", [(1, 1, 1), (5, 1, 1), (3, 3, 1), (2, 2, 2, 2), (4, 1, 1, 1), (3, 2, 2, 1)])
@pytest.mark.parametrize("identities", [1, 2, 3])
def test_epoch_length_is_the_longest_possible(groups, identities):
    assert epoch_length(np.array(groups), identities) == longest_by_brute_force(groups, identities)


def test_an_epoch_depends_on_seed_and_epoch_alone():
    sampler, again = (IdentitySampler(BALANCED, 16, 4, seed=1) for _ in range(2))
    third = epoch_of(sampler, 3)
    assert epoch_of(again, 7) != third
    assert epoch_of(again, 3) == third, "whatever was drawn before"
    assert epoch_of(IdentitySampler(BALANCED, 16, 4, seed=2), 3) != third
    np.random.seed(0)
    assert epoch_of(sampler, 3) == third


def test_every_draw_has_its_own_seed():
    seeds = [draw.seed for epoch in range(2) for batch in epoch_of(IdentitySampler(LONG_TAIL, 16, 4), epoch) for draw in batch]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**63


def test_few_images_repeat_evenly():
    [group] = shuffled_groups(np.array([7, 8, 9]), 8, np.random.default_rng(0))
    assert sorted(Counter(group.tolist()).values()) == [2, 3, 3]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_get_whole_identities(processes):
    sampler = IdentitySampler(BALANCED, 16, 4)
    whole = epoch_of(sampler, 2)
    parts = [list(BatchSamplerShard(sampler, processes, rank, split_batches=True)) for rank in range(processes)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert list(itertools.chain(*shares)) == batch
        for share in shares:
            assert set(Counter(BALANCED[draw.index] for draw in share).values()) == {4}


def test_a_prepared_loader_keeps_the_epoch_that_was_set():
    """accelerate's loader counts epochs from 0 in every process and would hand that count to a method `set_epoch`."""
    sampler = IdentitySampler(BALANCED, 16, 4)
    loader = Accelerator(cpu=True).prepare(DataLoader(Indices(), batch_sampler=sampler))
    expected = [[draw.index for draw in batch] for batch in epoch_of(sampler, 5)]
    assert [indices.tolist() for indices in loader] == expected


def test_errors_name_the_numbers():
    with pytest.raises(ReidError, match="has 3 identities, but a batch needs 16. Lower the recipe's `identities`"):
        IdentitySampler([5, 5, 6, 7], 16, 4)
    with pytest.raises(ReidError, match="has 0 identities"):
        IdentitySampler([], 16, 4)
    with pytest.raises(UsageError, match="16 identities x 0 images"):
        IdentitySampler(BALANCED, 16, 0)
