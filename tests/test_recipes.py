"""Recipes: the published numbers, strict reading, and a schedule that keeps its shape."""

import json

import pytest
import yaml

from reid_nb.errors import ReidError, UsageError
from reid_nb.recipes import STRONG_BASELINE, Recipe, build_model, learning_rate, load_recipe, save_recipe


def test_strong_baseline_is_the_published_one():
    r = STRONG_BASELINE
    assert (r.image_size, r.identities, r.images, r.epochs) == ((256, 128), 16, 4, 120)
    assert (r.lr, r.weight_decay, r.center_lr, r.milestones, r.gamma) == (3.5e-4, 5e-4, 0.5, (40, 70), 0.1)
    assert (r.warmup_epochs, r.warmup_factor, r.flip, r.pad, r.erasing) == (10, 0.01, 0.5, 10, 0.5)
    assert r.losses == {"cross_entropy": {"smoothing": 0.1}, "triplet": {"margin": 0.3}, "center": {"weight": 5e-4}}
    assert r.model_args["last_stride"] == 1 and r.init == "imagenet"


@pytest.mark.parametrize("epoch, rate", [(0, 3.5e-6), (5, 3.5e-4 * 0.505), (10, 3.5e-4), (39.99, 3.5e-4), (40, 3.5e-5), (70, 3.5e-6),
                                         (119.9, 3.5e-6)])
def test_learning_rate(epoch, rate):
    assert learning_rate(STRONG_BASELINE, epoch) == pytest.approx(rate, rel=1e-9)


def test_no_warmup_needs_no_division():
    assert learning_rate(Recipe("x", warmup_epochs=0), 0) == 3.5e-4


def test_scaled_keeps_the_shape():
    short = STRONG_BASELINE.scaled(epochs=12)
    assert short.milestones == (4, 7) and short.warmup_epochs == 1
    for share in (0.0, 0.03, 0.2, 0.34, 0.6, 0.99):
        assert learning_rate(short, 12 * share) == pytest.approx(learning_rate(STRONG_BASELINE, 120 * share))
    assert STRONG_BASELINE.scaled(epochs=12, milestones=(6,)).milestones == (6,)


def test_round_trips(tmp_path):
    plain = STRONG_BASELINE.to_dict()
    assert list(plain)[:2] == ["name", "image_size"] and Recipe.from_dict(json.loads(json.dumps(plain))) == STRONG_BASELINE
    save_recipe(STRONG_BASELINE, tmp_path / "r.yaml")
    assert load_recipe(tmp_path / "r.yaml") == STRONG_BASELINE


def test_misspelt_key_names_the_closest_and_all_allowed():
    with pytest.raises(UsageError) as error:
        Recipe.from_dict({"name": "x", "weigth_decay": 0.1})
    text = str(error.value)
    assert "'weigth_decay'" in text and "Did you mean 'weight_decay'" in text and "warmup_factor" in text


@pytest.mark.parametrize("field, value, said", [
    ("lr", "5e-4", "5.0e-4"), ("lr", float("nan"), "a number"), ("epochs", 1.5, "a whole number"), ("epochs", True, "a whole number"),
    ("image_size", [256], "2 entries"), ("image_size", 256, "a list"), ("losses", ["triplet"], "a mapping"), ("precision", False, "text"),
    ("precision", "fp8", "Known: bf16, fp16, no"), ("init", "imagnet", "Did you mean 'imagenet'"), ("milestones", [70, 40], "rise"),
    ("erasing", 1.5, "between 0 and 1"), ("identities", 0, "at least 1"), ("image_size", [0, 64], "pixels")])
def test_wrong_values_name_the_field(field, value, said):
    with pytest.raises(UsageError) as error:
        Recipe.from_dict({"name": "x", field: value})
    assert field in str(error.value) and said in str(error.value)


def test_recipe_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "r.yaml"
    with pytest.raises(ReidError, match="r.yaml"):
        load_recipe(path)
    for content in ("name: [", "- 1\n", "lr: 0.1\n", "name: x\nepoch: 3\n"):
        path.write_text(content)
        with pytest.raises(ReidError, match="r.yaml"):
            load_recipe(path)
    path.write_text("name: x\nlr: 5e-4\n")
    with pytest.raises(UsageError, match="5.0e-4"):
        load_recipe(path)
    path.write_text(yaml.safe_dump({"name": "x", "epochs": 3}))
    assert load_recipe(path).epochs == 3


@pytest.mark.parametrize("model, said", [("reid_nb.backbones", "module:function"), ("reid_nb.no_such:x", "no module"),
                                         ("reid_nb.backbones:resnext", "no function")])
def test_wrong_model_path(model, said):
    with pytest.raises(UsageError, match=said):
        build_model(Recipe("x", model=model), 3)


def test_wrong_model_argument():
    with pytest.raises(UsageError, match="Did you mean 'depth'"):
        build_model(Recipe("x", model_args={"depht": 18}), 3)


def test_init_says_which_weights():
    with pytest.raises(ReidError, match="(?i)imagenet"):
        build_model(Recipe("x", model_args={"depth": 18, "width": 0.25}, init="imagenet"), 3)
    assert build_model(Recipe("x", model_args={"depth": 18, "width": 0.25}), 3).classifier.weight.shape == (3, 128)
