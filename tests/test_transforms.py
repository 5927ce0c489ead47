"""Transforms: geometry and colours by hand, statistics over many draws, and draws that depend on their seed alone."""
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from reid_nb import transforms
from reid_nb.errors import ReidError
from reid_nb.sampling import Draw, IdentitySampler
from reid_nb.transforms import IMAGENET_MEAN, IMAGENET_STD, ImageDataset, seeded, test_transform, train_transform

test_transform.__test__ = False   # a transform, no test
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))


@pytest.fixture
def pixels():
    return torch.randint(1, 256, (3, 40, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """Ten images of 40 x 20 pixels, five identities with gaps in their numbers."""
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(10)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path, pd.DataFrame({"path": names, "pid": np.repeat([90, 7, 40, 1500, 3], 2)})


def restored(image):
    """Back from the normalised image to pixel values 0..255."""
    return ((image * STD + MEAN) * 255).round().to(torch.uint8)


def test_test_transform_normalises(pixels):
    image = test_transform((40, 20))(pixels)
    assert type(image) is torch.Tensor and image.dtype == torch.float32
    for channel in range(3):
        by_hand = (pixels[channel, 5, 6].item() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert image[channel, 5, 6].item() == pytest.approx(by_hand, abs=1e-5)


def test_test_transform_resizes_and_is_deterministic(pixels):
    first, second = (test_transform((64, 48))(pixels) for _ in range(2))
    assert first.shape == (3, 64, 48) and torch.equal(first, second)
    constant = torch.full_like(pixels, 77)
    assert (restored(test_transform((64, 48))(constant)) == 77).all()


def test_pil_images_and_tensors_give_the_same(pixels):
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    torch.testing.assert_close(test_transform((40, 20))(picture), test_transform((40, 20))(pixels))


def test_flip_alone(pixels):
    always = train_transform((40, 20), flip=1, pad=0, erasing=0)(pixels)
    assert torch.equal(restored(always), pixels.flip(2))
    never = train_transform((40, 20), flip=0, pad=0, erasing=0)(pixels)
    assert torch.equal(never, test_transform((40, 20))(pixels))


def test_pad_and_crop_shift_the_image_over_black(pixels):
    transform, pad = train_transform((40, 20), flip=0, pad=3, erasing=0), 3
    black = torch.zeros(3, 40 + 2 * pad, 20 + 2 * pad, dtype=torch.uint8)
    black[:, pad:-pad, pad:-pad] = pixels
    windows = {black[:, y:y + 40, x:x + 20].numpy().tobytes(): (y, x) for y in range(7) for x in range(7)}
    torch.manual_seed(0)
    seen = {windows[restored(transform(pixels)).numpy().tobytes()] for _ in range(600)}
    assert seen == set(windows.values())


def test_erasing_puts_the_mean_colour_on_a_rectangle():
    white = torch.full((3, 128, 64), 255, dtype=torch.uint8)
    transform = train_transform((128, 64), flip=0, pad=0, erasing=1)
    torch.manual_seed(0)
    shares, ratios = [], []
    for _ in range(300):
        erased = (transform(white) == 0).all(0)
        rows, columns = erased.any(1).sum().item(), erased.any(0).sum().item()
        assert erased.sum() == rows * columns, "one rectangle"
        shares.append(rows * columns / erased.numel())
        ratios.append(rows / columns)
    rounding = 1.15   # sides are whole pixels
    assert 0.02 / rounding < min(shares) < 0.05 and 0.35 < max(shares) < 0.4 * rounding
    assert 0.3 / rounding < min(ratios) < 0.5 and 2.5 < max(ratios) < 3.33 * rounding


@pytest.mark.parametrize("flip, erasing", [(0.5, 0.5), (0.2, 0.0), (0.0, 0.8)])
def test_probabilities(flip, erasing):
    left = torch.zeros(3, 16, 16, dtype=torch.uint8)
    left[:, :, :8] = 255
    transform = train_transform((16, 16), flip=flip, pad=0, erasing=erasing)
    torch.manual_seed(0)
    images = torch.stack([transform(left) for _ in range(1000)])
    erased = (images == 0).flatten(1).any(1).float().mean()
    flipped = (images[:, 0].mean(1)[:, 8:].mean(1) > images[:, 0].mean(1)[:, :8].mean(1)).float().mean()
    sigma = math.sqrt(0.25 / 1000)
    assert abs(erased - erasing) < 4 * sigma and abs(flipped - flip) < 4 * sigma


def test_seeded_restores_the_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(2), first)


def test_dataset_numbers_identities_in_order(folder):
    root, table = folder
    dataset = ImageDataset(table, root, test_transform((40, 20)))
    assert len(dataset) == 10 and dataset.pids.tolist() == [3, 7, 40, 90, 1500]
    assert [dataset[i][1]["pid"] for i in range(10)] == [3, 3, 1, 1, 2, 2, 4, 4, 0, 0]
    with Image.open(root / "4.png") as picture:
        assert np.array_equal(restored(dataset[4][0]).permute(1, 2, 0).numpy(), np.asarray(picture))


def test_a_draw_depends_on_its_seed_alone(folder):
    root, table = folder
    dataset = ImageDataset(table, root, train_transform((40, 20), pad=3))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = [dataset[Draw(2, seed)][0] for seed in range(5)]
    assert torch.equal(torch.rand(1), expected), "the training's own generator is untouched"
    assert all(torch.equal(dataset[Draw(2, seed)][0], first[seed]) for seed in reversed(range(5)))
    assert not any(torch.equal(first[0], other) for other in first[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_the_same_after_an_interruption_and_in_workers(folder, workers):
    root, table = folder
    transform = train_transform((40, 20), pad=3)

    def epochs(first, last, workers):
        sampler = IdentitySampler(table["pid"], identities=2, images=2, seed=9)
        loader = DataLoader(ImageDataset(table, root, transform), batch_sampler=sampler, num_workers=workers)
        for epoch in range(first, last):
            sampler.epoch = epoch
            yield from loader

    whole, resumed = list(epochs(0, 4, 0)), list(epochs(2, 4, workers))
    assert len(whole) == 8 and len(resumed) == 4
    for (images, targets), (again, targets_again) in zip(whole[4:], resumed, strict=True):
        assert torch.equal(images, again) and targets.keys() == targets_again.keys()
        assert all(torch.equal(targets[name], targets_again[name]) for name in targets)


def test_memory_changes_nothing_but_the_number_of_files_read(folder, monkeypatch):
    root, table = folder
    transform, one_image = train_transform((40, 20), pad=3), 3 * 40 * 20
    plain = ImageDataset(table, root, transform)
    some = ImageDataset(table, root, transform, memory=4 * one_image + 1)
    expected = [[plain[Draw(i, 7 * i + k)][0] for i in range(10)] for k in range(3)]
    for k in range(3):
        assert all(torch.equal(some[Draw(i, 7 * i + k)][0], expected[k][i]) for i in range(10))
    reads = []
    read = transforms.read_image
    monkeypatch.setattr(transforms, "read_image", lambda path: reads.append(path.name) or read(path))
    for i in range(10):
        some[i]
    assert reads == [f"{i}.png" for i in range(4, 10)], "four images fit"


def test_an_unreadable_image_is_named(folder):
    root, table = folder
    (root / "3.png").write_bytes(b"no image")
    with pytest.raises(ReidError, match="3.png"):
        ImageDataset(table, root, test_transform((40, 20)))[3]
