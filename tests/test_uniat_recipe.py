"""The recipe of Uni-AT: the released code's schedule and groups, the rows of Tables 2 and 3, and one training with everything on."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import day_and_night

from reid_nb import training
from reid_nb.errors import UsageError
from reid_nb.papers.uniat.experts import EXPERTS
from reid_nb.papers.uniat.recipe import ABLATION, RESNET_RECIPE, RIVALS, UNIAT_RECIPE, released, row, small, unified
from reid_nb.recipes import Recipe, build_criterion, build_model, learning_rate
from reid_nb.records import Dataset
from reid_nb.retrieval import extract
from reid_nb.transforms import Classes, class_numbers, classes_of

PAPER_CLASSES = Classes(135, 486, tuple(n * 135 // 486 for n in range(486)), tuple(range(1, 17)))


def on_meta(recipe: Recipe):
    with torch.device("meta"):
        return build_model(recipe.scaled(init="random"), PAPER_CLASSES)


def sizes(recipe):
    return {(g["factor"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in training.groups(recipe, on_meta(recipe))}


def test_groups_of_the_released_optimiser():
    """Counted on the released code with 486 outfits: rate x decay -> elements."""
    base = {(1.0, 0.0): 138_240, (1.0, 5e-4): 71_484_672, (10.0, 0.0): 7_680, (10.0, 5e-4): 15_614_208}
    assert sizes(released(row("SAID"))) == base
    with_experts = {**base, (1.0, 5e-4): 307_652_352, (10.0, 5e-4): 62_847_744}
    assert sizes(released(row("Uni-AT"))) == with_experts


def test_rate_of_the_released_code():
    published = {1: 8e-4, 2: 1.6e-3, 5: 4e-3, 10: 8e-3, 11: 0.00799837, 20: 0.0078383, 60: 0.00457612, 65: 0.004008, 120: 1.6e-5}
    assert all(learning_rate(UNIAT_RECIPE, epoch - 0.5) == pytest.approx(rate, rel=1e-6) for epoch, rate in published.items())
    assert UNIAT_RECIPE.epochs * UNIAT_RECIPE.batches == 24_000 and UNIAT_RECIPE.identities * UNIAT_RECIPE.images == 64


def test_rows_differ_in_network_and_loss_alone():
    for name, (said, experts, hdw) in ABLATION.items():
        recipe = row(name)
        assert recipe.model_args["experts"] == experts and recipe.losses == {"said": said, "hdw": hdw}
        assert recipe.scaled(name="x", model_args={}, losses={}) == UNIAT_RECIPE.scaled(name="x", model_args={}, losses={})
    assert {*RIVALS.values(), "moae-12"} == set(EXPERTS) and row("MS-ReID") == row("SAID") and row("MoAE 12") == row("SAID + MoAE")
    for name, experts in RIVALS.items():
        assert row(name).model_args["experts"] == experts and row(name).losses == row("SAID").losses
    with pytest.raises(UsageError, match="Did you mean 'SAID \\+ HDW'"):
        row("SAID + HWD")


def test_the_loss_refuses_what_it_does_not_know():
    with pytest.raises(UsageError, match="Did you mean 'said'"):
        build_criterion(UNIAT_RECIPE.scaled(losses={"siad": True}), PAPER_CLASSES, 768)


def test_the_resnet_of_table_1_is_the_plain_one():
    model = on_meta(RESNET_RECIPE)
    assert sum(p.numel() for p in model.parameters()) == 23_508_032 + 2 * 2048 + 135 * 2048
    assert sizes(RESNET_RECIPE) == {(1.0, 5e-4): 23_508_032, (10.0, 5e-4): 2048 + 135 * 2048}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return day_and_night(tmp_path_factory.mktemp("colours"))


def tiny(name, **changes):
    recipe = small(name, 2, 3, identities=4, images=4, **changes)
    return recipe.scaled(model_args=recipe.model_args | {"embed_dim": 24, "depth": 2, "num_heads": 2, "image_size": [32, 16]}, image_size=(32, 16),
                         fast="trunk.vit.blocks.1 trunk.vit.norm neck classifiers")


@pytest.mark.parametrize("name", [*ABLATION, "PLE 7"])
def test_every_row_trains_and_gives_six_embeddings(dataset, tmp_path, name):
    weights = training.train(tiny(name), dataset, 0, tmp_path, threads=1, progress=False)
    assert np.isfinite(pd.read_csv(tmp_path / "history.csv")["loss"]).all()
    model = training.load_trained(weights, "cpu")
    assert model.classes.clothes == 12 and extract(model, dataset.query, dataset.root, (32, 16)).shape == (4, 6, 24)


def test_unified_gives_one_feature_behind_six_necks(dataset):
    model = build_model(unified(tiny("Baseline")), classes_of(class_numbers(dataset.train)))
    output = model.train()(torch.randn(8, 3, 32, 16))
    assert torch.equal(output.features[:, 0], output.features[:, 5]) and [logits.shape[1] for logits in output.logits] == [12, 6] * 3


def test_experts_start_from_the_trunk_of_a_network_without_them(dataset, tmp_path):
    start = training.train(tiny("Baseline"), dataset, 0, tmp_path, threads=1, progress=False)
    plain, mixed = (training.new_learner(tiny(name), classes_of(class_numbers(dataset.train)), 1, start).model.eval() for name in ("Baseline", "SAID + MoAE"))
    images = torch.randn(3, 3, 32, 16)
    with torch.no_grad():
        gate_free = mixed.trunk.vit.blocks[0].mlp.experts
        assert torch.equal(gate_free.first[0].weight, plain.trunk.vit.blocks[0].mlp.fc1.weight)
        assert plain(images).shape == mixed(images).shape == (3, 6, 24)


# ---------------------------------------------------------------- scores of six heads
class ByHead(torch.nn.Module):
    """Six embeddings of an image: its mean colour, in the head that is asked, and noise in all others."""

    def __init__(self, asked: int):
        super().__init__()
        self.asked, self.scale = asked, torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        noise = torch.randn(len(images), 6, 3, generator=torch.Generator().manual_seed(0))
        noise[:, self.asked] = images.mean(dim=(2, 3))
        return noise


def test_every_setting_is_answered_by_its_own_head(dataset):
    from reid_nb import settings
    number = np.arange(len(dataset.train)) % 8   # of a person's images: ST asks 0, 1 in 2, 3, all in one outfit; LT asks 4, 5 in 6, 7, in two
    part = np.where(dataset.train["modality"] == "rgb", "DT", "NT").astype(object) + np.where(number < 4, "-ST", "-LT")
    table, asked = dataset.train.assign(part=part, clothes=np.isin(number, (4, 5)) + 1), number % 4 < 2
    test = Dataset("at_ustc", dataset.root, dataset.train, table[asked].reset_index(drop=True), table[~asked].assign(camid=9).reset_index(drop=True), "own")
    names, table = ["at_ustc/DT-LT", "at_ustc/AD-LT", "at_ustc/mixed"], settings.test_table(test)

    def found(asked):
        embeddings = extract(ByHead(asked).eval(), table, test.root, (32, 16))
        assert embeddings.shape == (len(table), 6, 3)
        scores = {name: settings.measured(name, embeddings, table) for name in names}
        assert scores["at_ustc/AD-LT"].summary() == settings.evaluate(settings.get("at_ustc/AD-LT"), embeddings[:, 5], table).summary()
        return {name: each.summary()["mAP"] for name, each in scores.items()}, scores["at_ustc/mixed"].valid

    all_day, valid = found(5)
    assert all_day["at_ustc/AD-LT"] > 0.8 > all_day["at_ustc/DT-LT"] and valid > 0
    by_day, _ = found(1)
    assert by_day["at_ustc/DT-LT"] > 0.8 > by_day["at_ustc/AD-LT"]
