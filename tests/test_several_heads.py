"""Training beyond one head: targets, balanced modalities, groups of parameters, the cosine, clipping; and today's recipes to the bit."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_training import TINY, day_and_night
from torch import nn

from reid_nb import training
from reid_nb.errors import ReidError, UsageError
from reid_nb.losses import build
from reid_nb.recipes import Recipe, build_model, learning_rate
from reid_nb.retrieval import extract
from reid_nb.sampling import IdentitySampler, ModalitySampler
from reid_nb.transforms import Classes, class_numbers, classes_of, seeded, train_transform

HERE = Path(__file__).stem


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six people with two outfits, by day and by night."""
    return day_and_night(tmp_path_factory.mktemp("colours"))


# ---------------------------------------------------------------- a network with two heads, as a recipe names it
class TwoOutputs(NamedTuple):
    features: torch.Tensor
    logits: list


class TwoHeads(nn.Module):
    """Outfits and identities, each with a classifier of its own; may be told the camera."""

    inputs = ("camid",)

    def __init__(self, trunk, classes, told: list | None = None):
        super().__init__()
        self.trunk, self.num_features, self.told = trunk, trunk.num_features, told
        self.classifiers = nn.ModuleList(nn.Linear(trunk.num_features, n, bias=False) for n in (classes.clothes, classes.pids))

    def forward(self, images, camid=None):
        feature = self.trunk(images).mean(dim=(2, 3))
        seen = torch.zeros(len(images), 1) if camid is None else camid[:, None].float()
        if not self.training:
            return torch.stack([feature, feature + seen], dim=1)
        return TwoOutputs(feature, [classifier(feature) for classifier in self.classifiers])


class BothLosses(nn.Module):
    def __init__(self, weight, owners):
        super().__init__()
        self.weight, self.owners = weight, torch.tensor(owners)

    def forward(self, output, targets):
        assert torch.equal(self.owners[targets["clothes"]], targets["pid"])
        parts = {name: nn.functional.cross_entropy(logits, targets[name]) for name, logits in zip(("clothes", "pid"), output.logits)}
        return parts["pid"] + self.weight * parts["clothes"], parts


def both_losses(losses, classes):
    return BothLosses(losses["weight"], classes.owners)


TWO = TINY.scaled(name="two heads", head=f"{HERE}:TwoHeads", criterion=f"{HERE}:both_losses", losses={"weight": 0.5}, sampler="modalities",
                  batches=2, optimizer="nesterov", lr=0.02, clip=5.0, fast="classifiers", undecayed="*.bn? *.bn?.*", schedule="cosine")


def test_two_heads_train_resume_and_give_an_embedding_each(dataset, tmp_path, monkeypatch):
    weights = training.train(TWO, dataset, 0, tmp_path / "whole", threads=1, progress=False)
    history = pd.read_csv(tmp_path / "whole" / "history.csv")
    assert {"clothes", "pid", "accuracy"} < set(history) and history["loss"].iloc[-1] < history["loss"].iloc[0]
    model = training.load_trained(weights, "cpu")
    assert [classifier.weight.shape[0] for classifier in model.classifiers] == [12, 6]
    embeddings = extract(model, dataset.query, dataset.root, TWO.image_size)
    assert embeddings.shape == (4, 2, 64)
    assert np.allclose(embeddings[:, 1] - embeddings[:, 0], dataset.query["camid"].to_numpy()[:, None], atol=1e-5)
    unseen = extract(model, dataset.query.drop(columns="camid"), dataset.root, TWO.image_size)
    assert np.array_equal(unseen[:, 0], unseen[:, 1])

    def interrupted(*arguments):
        if arguments[4] == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    plain = training.run_epoch
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "run_epoch", interrupted)
        patched.setattr(training, "CHECKPOINT_SECONDS", 0)
        training.train(TWO, dataset, 0, tmp_path / "stopped", threads=1, progress=False)
    assert training.train(TWO, dataset, 0, tmp_path / "stopped", threads=1, progress=False).read_bytes() == weights.read_bytes()


def test_a_broken_embedding_of_one_head_is_named(dataset):
    model = build_model(TWO, classes_of(class_numbers(dataset.train))).eval()
    model.register_forward_hook(lambda module, inputs, output: output.index_fill(1, torch.tensor([1]), math.nan))
    with pytest.raises(ReidError, match=f"{dataset.query['path'][0]}.*not finite"):
        extract(model, dataset.query, dataset.root, TWO.image_size)


# ---------------------------------------------------------------- today's recipes
def eight_lines(recipe, dataset):
    """The strong baseline's loop as one would write it by hand."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    from reid_nb.records import read_image
    pids = np.unique(dataset.train["pid"], return_inverse=True)[1]
    transform = train_transform(recipe.image_size, recipe.flip, recipe.pad, recipe.erasing)
    pixels = [pil_to_tensor(read_image(dataset.root / path)) for path in dataset.train["path"]]
    torch.manual_seed(0)
    model = build_model(recipe, 6).to(memory_format=torch.channels_last)
    criterion = build(recipe.losses, 6, model.num_features)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], weight_decay=recipe.weight_decay, fused=True)
    sgd = torch.optim.SGD(criterion.parameters(), lr=recipe.center_lr)
    sampler = IdentitySampler(pids, recipe.identities, recipe.images, 0)
    for epoch in range(recipe.epochs):
        sampler.epoch = epoch
        for number, batch in enumerate(sampler):
            images = []
            for draw in batch:
                with seeded(draw.seed):
                    images.append(transform(pixels[draw.index]))
            adam.param_groups[0]["lr"] = learning_rate(recipe, epoch + number / len(sampler))
            output = model.train()(torch.stack(images).to(memory_format=torch.channels_last))
            criterion(output, {"pid": torch.tensor([pids[draw.index] for draw in batch])})[0].backward()
            for stepper in (adam, sgd):
                stepper.step()
                stepper.zero_grad()
    return model.state_dict()


def test_a_recipe_of_the_first_kind_trains_to_the_bits_of_a_plain_loop(dataset, tmp_path):
    recipe = TINY.scaled(epochs=1, warmup_epochs=0.5)
    trained = load_file(training.train(recipe, dataset, 0, tmp_path, threads=1, progress=False))
    with training.settled(1):
        expected = eight_lines(recipe, dataset)
    assert trained.keys() == expected.keys() and all(torch.equal(trained[name], expected[name]) for name in trained)


# ---------------------------------------------------------------- targets
def test_targets_number_people_outfits_and_light():
    table = pd.DataFrame({"pid": [9, 4, 9, 4, 9], "clothes": [2, 1, 1, 1, 2], "modality": ["ir", "rgb", "rgb", "ir", "ir"], "camid": [10, 3, 3, 10, 11]})
    targets = class_numbers(table)
    assert {name: numbers.tolist() for name, numbers in targets.items()} == {
        "pid": [1, 0, 1, 0, 1], "clothes": [2, 0, 1, 0, 2], "modality": [1, 0, 0, 1, 1], "camid": [10, 3, 3, 10, 11]}
    assert classes_of(targets) == Classes(2, 3, (0, 1, 1), (3, 10, 11))
    plain = class_numbers(table[["pid"]])
    assert plain["clothes"].tolist() == plain["pid"].tolist() and not plain["modality"].any() and "camid" not in plain
    assert classes_of(plain) == Classes.of(2)
    with pytest.raises(ReidError, match="modality 'thermal'.*rgb, ir"):
        class_numbers(table.assign(modality="thermal"))


# ---------------------------------------------------------------- balanced modalities
PIDS = np.repeat(np.arange(30), 20)
NIGHT = np.tile(np.arange(20) >= 15, 30) & (PIDS >= 5)   # 15 by day, 5 by night; the first five people by day only


def test_half_of_each_light_and_identities_side_by_side():
    sampler = ModalitySampler(PIDS, np.where(NIGHT, "ir", "rgb"), 8, 8, seed=1, batches=50)
    turns = Counter()
    assert len(sampler) == 50 == len(list(sampler))
    for batch in sampler:
        rows = np.array([draw.index for draw in batch]).reshape(8, 8)
        assert (PIDS[rows] == PIDS[rows[:, :1]]).all() and len(set(PIDS[rows[:, 0]])) == 8
        for own in rows:
            assert NIGHT[own].sum() == (0 if PIDS[own[0]] < 5 else 4) and len(set(own)) == 8
        turns.update(PIDS[rows[:, 0]].tolist())
    assert len(turns) == 30


def test_images_repeat_only_where_there_are_too_few():
    pids, night = np.repeat([1, 2], [10, 10]), np.tile([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 2)
    for batch in ModalitySampler(pids, night, 2, 8, batches=20):
        for own in np.array([draw.index for draw in batch]).reshape(2, 8):
            assert night[own].tolist() == [0] * 4 + [1] * 4 and len(set(own[:4])) == 4 and len(set(own[4:])) <= 2


def test_balanced_batches_depend_on_seed_and_epoch_alone():
    first, second = (ModalitySampler(PIDS, NIGHT, 8, 8, seed=2) for _ in range(2))
    assert len(first) == 600 // 64
    first.epoch = second.epoch = 3
    assert list(first) == list(first) == list(second)
    second.epoch = 4
    assert list(first) != list(second)


def test_uneven_shares_are_refused_and_one_light_is_not():
    with pytest.raises(UsageError, match="7 images.*2 modalities.*multiple of 2"):
        ModalitySampler(PIDS, NIGHT, 8, 7)
    with pytest.raises(ReidError, match="30 identities, but a batch needs 31"):
        ModalitySampler(PIDS, NIGHT, 31, 8)
    assert len(next(iter(ModalitySampler(PIDS, np.zeros(600), 8, 7)))) == 56


@pytest.mark.parametrize("batches", [1, 5, 40])
def test_an_epoch_of_a_fixed_length_begins_like_a_pass(batches):
    one_pass, fixed = IdentitySampler(PIDS, 8, 4, seed=3), IdentitySampler(PIDS, 8, 4, seed=3, batches=batches)
    found, whole = list(fixed), list(one_pass)
    assert len(found) == len(fixed) == batches
    assert found[:len(whole)] == whole[:batches]
    assert all(len({PIDS[draw.index] for draw in batch}) == 8 for batch in found)
    with pytest.raises(UsageError, match="-1 batches"):
        IdentitySampler(PIDS, 8, 4, batches=-1)


# ---------------------------------------------------------------- schedule
def test_cosine_of_the_released_code():
    """Li et al., AT-ReID: one rate an epoch, ten of warm-up, then half a wave. Printed values of the released schedule, epochs from 1."""
    recipe = Recipe("x", lr=0.008, epochs=120, warmup_epochs=9, warmup_factor=0.1, schedule="cosine", floor=0.002, rate_changes="epoch")
    published = {1: 8e-4, 2: 1.6e-3, 5: 4e-3, 10: 8e-3, 11: 0.00799837, 20: 0.0078383, 60: 0.00457612, 65: 0.004008, 119: 1.763e-5, 120: 1.6e-5}
    for epoch, rate in published.items():
        for part in (0, 0.37, 0.999):
            assert learning_rate(recipe, epoch - 1 + part) == pytest.approx(rate, rel=3e-4 if epoch == 119 else 1e-6)


def test_cosine_by_steps_ends_at_the_floor():
    recipe = Recipe("x", lr=1.0, epochs=10, warmup_epochs=2, warmup_factor=0.5, schedule="cosine", floor=0.1)
    assert learning_rate(recipe, 1) == 0.75 and learning_rate(recipe, 2) == 1 and learning_rate(recipe, 6) == pytest.approx(0.55)
    assert learning_rate(recipe, 10 - 1e-9) == pytest.approx(0.1)
    assert learning_rate(recipe.scaled(epochs=1, warmup_epochs=1.0), 0.5) == 0.75


# ---------------------------------------------------------------- groups, optimisers, clipping
def learner_of(recipe, dataset):
    return training.new_learner(recipe, classes_of(class_numbers(dataset.train)), 0, None)


def test_groups_hold_every_parameter_once(dataset):
    learner = learner_of(TWO, dataset)
    names = {parameter: name for name, parameter in learner.model.named_parameters()}
    seen = {}
    for group in training.groups(TWO, learner.model):
        seen |= {names[parameter]: (group["factor"], group["weight_decay"]) for parameter in group["params"]}
    assert seen.keys() == set(names.values())
    for name, treatment in seen.items():
        norm = ".bn" in name
        assert treatment == (10.0 if name.startswith("classifiers") else 1.0, 0.0 if norm else 5e-4), name


@pytest.mark.parametrize("field", ["fast", "undecayed"])
def test_a_pattern_without_a_parameter_is_refused(dataset, field):
    with pytest.raises(UsageError, match=f"{field}.*classifier"):
        training.optimizers(TWO.scaled(**{field: "clasifiers"}), learner_of(TWO, dataset))


def test_nesterov_by_hand(dataset):
    """Two steps on one weight with gradient 1: v = mu v + g, w -= lr (g + mu v), g with its weight decay."""
    recipe = TWO.scaled(fast="", undecayed="", lr=0.1, momentum=0.5, weight_decay=0.2)
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    [stepper] = training.optimizers(recipe, SimpleNamespace(model=model, criterion=nn.Module()))
    weight, velocity = 1.0, 0.0
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        stepper.step()
        gradient = 1 + 0.2 * weight
        velocity = 0.5 * velocity + gradient
        weight -= 0.1 * (gradient + 0.5 * velocity)
        assert model.weight.item() == pytest.approx(weight)


def test_clipping_scales_the_gradient_and_finds_nan(dataset):
    learner, scaler = learner_of(TWO, dataset), torch.amp.GradScaler("cpu", enabled=False)
    steppers = training.optimizers(TWO, learner)
    sum((100 * p).sum() for p in learner.parameters()).backward()
    before = [p.grad.clone() for p in learner.parameters()]
    norm = torch.stack([g.norm() for g in before]).norm()
    training.clip_gradient(learner, 5.0, steppers, scaler, "")
    for old, parameter in zip(before, learner.parameters()):
        torch.testing.assert_close(parameter.grad, old * 5 / norm)
    learner.model.classifiers[0].weight.grad[0, 0] = math.nan
    with pytest.raises(ReidError, match="gradient became nan at epoch 3"):
        training.clip_gradient(learner, 5.0, steppers, scaler, "epoch 3")


def test_noise_in_the_erased_rectangle():
    white = torch.full((3, 64, 32), 255, dtype=torch.uint8)
    kept = train_transform((64, 32), 0, 0, 0)(white)
    torch.manual_seed(0)
    erased = torch.cat([image[image != kept] for image in (train_transform((64, 32), 0, 0, 1, "noise")(white) for _ in range(30))])
    assert abs(erased.mean()) < 0.03 and abs(erased.std() - 1) < 0.03


# ---------------------------------------------------------------- recipes
@pytest.mark.parametrize("field, value, said", [
    ("optimizer", "adamw", "adam, nesterov, sgd|adam, sgd, nesterov"), ("schedule", "cosin", "Did you mean 'cosine'"), ("sampler", "modality", "modalities"),
    ("erased_to", "black", "mean"), ("rate_changes", "batch", "epoch"), ("momentum", 1.5, "between 0 and 1"), ("batches", -1, "at least 0"),
    ("clip", -1.0, "at least 0"), ("head", "reid_nb.backbones", "module:function")])
def test_wrong_values_name_the_field(field, value, said):
    with pytest.raises(UsageError, match=said) as error:
        build_model(Recipe("x", **{field: value}), 3)
    assert field in str(error.value)


def test_a_head_is_told_its_own_arguments_only():
    with pytest.raises(UsageError, match="Known: .*told|told"):
        build_model(TWO.scaled(head_args={"tolld": []}), Classes.of(3))
