"""BoT and TransReID: published rows, the released jigsaw by hand, parameters by arithmetic, and one training each."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import make_dataset

from reid_nb import training
from reid_nb.backbones import count_macs, count_parameters
from reid_nb.errors import ReidError, UsageError
from reid_nb.losses import cross_entropy, soft_triplet
from reid_nb.methods import bot, transreid
from reid_nb.recipes import STRONG_BASELINE, build_criterion, build_model
from reid_nb.retrieval import extract
from reid_nb.transforms import Classes

CLASSES = Classes(10, 10, tuple(range(10)), camids=(1, 2, 6))
TINY = {"name": "vit_tiny_patch16_224", "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("colours"))


def tiny(**head):
    torch.manual_seed(0)
    return transreid.TransReID(transreid.vit(image_size=(32, 16), stride=4, drop_path=0.0, **TINY), CLASSES, **head)


# ---------------------------------------------------------------- BoT
def test_the_ladder_changes_one_thing_a_line_and_ends_at_the_strong_baseline():
    lines = bot.ladder()
    changed = [set(bot.differences(a.recipe, b.recipe)) for a, b in zip(lines, lines[1:])]
    assert changed == [{"warmup_epochs"}, {"erasing"}, {"losses"}, {"model_args"}, {"head"}, {"losses"}]
    assert [line.mAP for line in lines] == [74.0, 75.2, 79.3, 80.3, 81.7, 85.7, 85.9] and lines[-1].rank1 == 94.5
    assert lines[-1].recipe.scaled(name=STRONG_BASELINE.name) == STRONG_BASELINE


def test_without_neck_the_losses_and_the_comparison_share_one_feature():
    recipe = bot.ladder()[4].recipe.scaled(init="random", model_args={"depth": 18, "width": 0.125})
    model, images = build_model(recipe, 5), torch.randn(4, 3, 64, 32)
    output = model.train()(images)
    assert torch.equal(output.feature, output.embedding) and output.logits.shape == (4, 5)
    assert not any("neck" in name for name, _ in model.named_parameters())


def test_parameters_of_bot_at_paper_size():
    model = build_model(bot.BOT.scaled(init="random"), 751)
    assert count_parameters(model) == 23_508_032 + 2 * 2048 + 2048 * 751   # He et al.'s trunk, neck, classifier


# ---------------------------------------------------------------- TransReID: patches, cameras, jigsaw
@pytest.mark.parametrize("stride, grid", [(16, (16, 8)), (14, (18, 9)), (12, (21, 10))])
def test_overlapping_patches(stride, grid):
    assert transreid.patch_grid((256, 128), 16, stride) == grid
    trunk = transreid.vit(image_size=(256, 128), stride=stride, name="vit_tiny_patch16_224", embed_dim=24, depth=1, num_heads=2)
    assert trunk(torch.zeros(1, 3, 256, 128)).shape == (1, 1 + math.prod(grid), 24)


def test_patches_that_do_not_overlap_are_timms_own():
    trunk, images = transreid.vit(image_size=(32, 16), drop_path=0.0, **TINY).eval(), torch.randn(2, 3, 32, 16)
    torch.testing.assert_close(trunk(images), trunk.vit.forward_features(images))


def test_vit_b_at_paper_size_has_the_published_parameters_and_costs():
    with torch.device("meta"):
        trunk = transreid.vit()
        wide = transreid.vit(stride=12)
    block = 4 * 768 + 4 * 768**2 + 4 * 768 + 2 * 768 * 3072 + 3072 + 768
    expected = 768 * 3 * 256 + 768 + 768 + 129 * 768 + 12 * block + 2 * 768
    assert count_parameters(trunk) == expected == 85_798_656 - (197 - 129) * 768   # ViT-B/16 for 224 x 224, without its classifier
    assert count_parameters(wide) - count_parameters(trunk) == (210 - 128) * 768


def test_overlap_makes_the_network_two_thirds_dearer():
    costs = [count_macs(transreid.vit(stride=stride, name="vit_tiny_patch16_224", depth=2), (256, 128)) for stride in (16, 12)]
    assert 1.6 < costs[1] / costs[0] < 1.75


def test_heads_by_arithmetic():
    model, c, hidden = tiny(), 48, 192
    block = 4 * c + 4 * c * c + 4 * c + 2 * c * hidden + hidden + c
    assert count_parameters(model) - count_parameters(model.trunk) == 3 * c + block + 2 * c + 5 * (2 * c + 10 * c)
    assert count_parameters(tiny(cameras=0.0, groups=0)) - count_parameters(model.trunk) == 2 * c + 10 * c


def released_jigsaw(tokens, shift, hands, groups):
    """What the released code does with tokens 1..N behind a CLS token 0, in lists."""
    order = tokens[shift:] + tokens[1:shift]
    if len(order) % hands:
        order.append(order[-2])
    runs = [order[len(order) // hands * h:len(order) // hands * (h + 1)] for h in range(hands)]
    shuffled = [run[i] for i in range(len(runs[0])) for run in runs]
    size = (len(tokens) - 1) // groups
    return [shuffled[size * g:size * (g + 1)] for g in range(groups)]


@pytest.mark.parametrize("patches", [128, 210, 162, 21, 22])
def test_jigsaw_as_released(patches):
    found = transreid.jigsaw(torch.arange(1.0, patches + 1).view(1, -1, 1))
    assert [group[0, :, 0].long().tolist() for group in found] == released_jigsaw(list(range(patches + 1)), 5, 2, 4)


def test_cameras_shift_every_token_and_strangers_none():
    model, images = tiny(groups=0).eval(), torch.randn(3, 3, 32, 16)
    seen = []
    model.trunk.vit.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        plain = model(images)
        told = model(images, torch.tensor([6, 5, 2]))
    shift = seen[1] - seen[0]
    for image, row in ((0, 2), (1, None), (2, 1)):
        expected = torch.zeros(48) if row is None else 3 * model.side.table[row]
        torch.testing.assert_close(shift[image], expected.expand(shift.shape[1], -1), atol=1e-6, rtol=1e-5)
    assert torch.equal(plain[1], told[1]) and not torch.equal(plain[0], told[0])


def test_test_features_are_joined_before_the_necks():
    model, images = tiny(), torch.randn(4, 3, 32, 16)
    output = model.train()(images)
    joined = model.eval()(images)
    assert joined.shape == (4, 5 * 48)
    torch.testing.assert_close(joined[:, :48], output.features[:, 0])
    torch.testing.assert_close(joined[:, 96:144] * 4, output.features[:, 2])


# ---------------------------------------------------------------- losses and training
def test_soft_triplet_by_hand():
    features, pids = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
    by_hand = [math.log1p(math.exp(1 - 3)), math.log1p(math.exp(1 - 2)), math.log1p(math.exp(0 - 2))]
    assert soft_triplet(features, pids).item() == pytest.approx(np.mean(by_hand))
    same = torch.zeros(4, 2, requires_grad=True)
    soft_triplet(same, torch.zeros(4)).backward()
    assert same.grad.isfinite().all()


def test_half_the_loss_is_global_and_half_local():
    output, pids = tiny().train()(torch.randn(4, 3, 32, 16)), torch.tensor([0, 0, 1, 1])
    recipe = transreid.small()
    total, parts = build_criterion(recipe, CLASSES, 48)(output, {"pid": pids})
    identity = [cross_entropy(logits, pids, smoothing=0.0) for logits in output.logits]
    metric = [soft_triplet(output.features[:, branch], pids) for branch in range(5)]
    expected = {"cross_entropy": identity[0] / 2 + sum(identity[1:]) / 8, "soft_triplet": metric[0] / 2 + sum(metric[1:]) / 8}
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
    torch.testing.assert_close(total, sum(expected.values()))
    with pytest.raises(UsageError, match="center"):
        build_criterion(recipe.scaled(losses={"center": {}}), CLASSES, 48)


def test_the_published_recipe():
    recipe = transreid.TRANSREID
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.epochs, recipe.optimizer) == (0.008, 0.9, 1e-4, 120, "sgd")
    model = build_model(recipe.scaled(init="random", model_args=TINY | {"image_size": [32, 16]}), CLASSES)
    for group in training.groups(recipe, model):
        assert all((p.ndim == 1) for p in group["params"]) or group["factor"] == 1
    assert sum(len(group["params"]) for group in training.groups(recipe, model) if group["factor"] == 2) > 10


def test_transreid_trains_and_is_told_the_camera(dataset, tmp_path):
    recipe = transreid.small(2, (32, 16), identities=4, images=2, model_args=TINY | {"image_size": [32, 16], "stride": 4})
    weights = training.train(recipe, dataset, 0, tmp_path, threads=1, progress=False)
    history, model = pd.read_csv(tmp_path / "history.csv"), training.load_trained(weights, "cpu")
    assert {"cross_entropy", "soft_triplet"} < set(history) and model.side.camids.tolist() == [0, 1]
    told, alone = (extract(model, table, dataset.root, recipe.image_size) for table in (dataset.query, dataset.query.drop(columns="camid")))
    assert told.shape == (2, 5 * 48) and not np.allclose(told, alone, atol=1e-4)


def test_weights_for_square_images_are_interpolated_and_others_refused(tmp_path):
    from safetensors.torch import save_file
    square, path = transreid.vit(image_size=(32, 32), **TINY), tmp_path / "square.safetensors"
    save_file(square.vit.state_dict(), path)
    loaded = transreid.vit(image_size=(64, 32), stride=4, weights=path, **TINY)
    assert torch.equal(loaded.vit.patch_embed.proj.weight, square.vit.patch_embed.proj.weight)
    assert loaded.vit.pos_embed.shape == (1, 1 + 15 * 7, 48) and torch.equal(loaded.vit.pos_embed[:, 0], square.vit.pos_embed[:, 0])
    with pytest.raises(ReidError, match="same ViT"):
        transreid.vit(image_size=(64, 32), weights=path, **TINY | {"embed_dim": 24})
    for name in ("resnet18", "vit_tinny", "vit_base_patch14_reg4_dinov2"):
        with pytest.raises(UsageError, match="Vision Transformer|no network named"):
            transreid.vit(name, depth=1)
