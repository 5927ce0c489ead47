"""Networks by name, blocks at named places, and `reid-nb profile` as a person calls it."""
import json

import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from reid_nb import candidates, cli
from reid_nb.backbones import count_parameters
from reid_nb.errors import ReidError, UsageError
from reid_nb.recipes import STRONG_BASELINE

SIZE = (64, 32)


@pytest.mark.parametrize("text, size", [("256x128", (256, 128)), ("64 x 32", (64, 32)), ("224X224", (224, 224))])
def test_image_sizes_are_read(text, size):
    assert candidates.image_size(text) == size


@pytest.mark.parametrize("text", ["256", "256*128", "0x128", "axb", "-1x2"])
def test_a_wrong_image_size_is_refused(text):
    with pytest.raises(UsageError, match="expected height x width"):
        candidates.image_size(text)


def test_maps_are_what_the_modules_give():
    shapes = candidates.maps(candidates.timm_network("resnet10t", SIZE), SIZE)
    stages = {name: shapes[name] for name in ("layer1", "layer2", "layer3", "layer4")}
    assert stages == {"layer1": (64, 16, 8), "layer2": (128, 8, 4), "layer3": (256, 4, 2), "layer4": (512, 2, 1)}
    assert "global_pool" not in shapes and "fc" not in shapes


def test_the_residual_stream_of_a_transformer_is_no_map():
    network = candidates.timm_network("vit_tiny_patch16_224", SIZE)
    shapes = candidates.maps(network, SIZE)
    assert shapes["patch_embed.proj"] == (192, 4, 2) and "blocks.0" not in shapes
    network.output_fmt = "NHWC"
    assert candidates.maps(network, SIZE) == {}


def test_a_timm_model_is_an_embedding_network():
    found = candidates.candidates("timm:resnet10t", size=SIZE)
    assert list(found) == ["timm:resnet10t"]
    with torch.inference_mode():
        assert found["timm:resnet10t"]()(torch.zeros(2, 3, *SIZE)).shape == (2, 512)


@pytest.mark.parametrize("model, words", [
    ("resnet51", r"no model 'resnet51'. Known: resnet18, .*timm:NAME"), ("timm:resnet51", "timm has no model named 'resnet51'. Near: .*resnet50"),
    ("timm:", "timm has no model named ''")])
def test_unknown_models_are_refused(model, words):
    with pytest.raises(UsageError, match=words):
        candidates.candidates(model)


def test_a_size_that_a_model_refuses_is_explained(monkeypatch):
    import timm

    class Picky(nn.Module):
        pretrained_cfg = {"input_size": (3, 96, 96)}

        def forward(self, x):
            raise AssertionError("Input height (64) doesn't match model (96).")

    monkeypatch.setattr(timm, "is_model", lambda name: True)
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: Picky())
    with pytest.raises(UsageError, match="timm:picky does not take images of 64x32 .*Its own size is --image-size 96x96"):
        candidates.candidates("timm:picky", size=SIZE)


@pytest.mark.parametrize("block, positions", [("cnl", []), (None, ["8"])])
def test_block_and_positions_belong_together(block, positions):
    with pytest.raises(UsageError, match="--block and --positions belong together"):
        candidates.candidates("resnet50", block, positions)


def test_numbered_positions_give_the_papers_network():
    found = candidates.candidates("resnet50", "cnl", ["6", "8", "14"], SIZE)
    plain, blocks = found.values()
    assert list(found) == ["resnet50", "resnet50 + cnl @ 6, 8, 14"]
    assert count_parameters(blocks()) - count_parameters(plain()) == 3_154_944


@pytest.mark.parametrize("block", ["hac", "cnl", "raga"])
def test_a_block_goes_after_a_named_module_of_any_network(block):
    found = candidates.candidates("timm:resnet10t", block, ["layer2", "layer3"], SIZE)
    plain, blocks = (build().eval() for build in found.values())
    added = count_parameters(blocks) - count_parameters(plain)
    assert added == sum(count_parameters(module) for name, module in blocks.named_children() if name == "attention") > 0
    with torch.inference_mode():
        assert blocks(torch.randn(2, 3, *SIZE)).shape == (2, 512)


@pytest.mark.parametrize("model, position, words", [
    ("timm:resnet10t", "layr2", "No module 'layr2' of timm:resnet10t gives a map. .*layer2"),
    ("timm:resnet10t", "fc", "No module 'fc'.*layer"), ("resnet18", "6", "ResNet-50"), ("resnet50", "18", "no position")])
def test_places_that_do_not_exist_are_refused(model, position, words):
    with pytest.raises(UsageError, match=words):
        candidates.candidates(model, "hac", [position], SIZE)


def run_folder(tmp_path, **model_args):
    recipe = STRONG_BASELINE.scaled(name="mine", model="reid_nb.papers.cnl.network:resnet_with_attention", init="random",
                                    model_args={"width": 0.25, **model_args})
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": recipe.to_dict(), "num_classes": 5}))
    return str(tmp_path)


def test_a_trained_run_is_measured_beside_its_plain_network(tmp_path):
    folder = run_folder(tmp_path, block="cnl", positions=[8])
    found = candidates.candidates(folder, size=SIZE)
    assert list(found) == ["plain", tmp_path.name]
    plain, own = (build() for build in found.values())
    assert count_parameters(own) - count_parameters(plain) == count_parameters(own.trunk.attention) > 0
    with pytest.raises(UsageError, match="Leave --block out"):
        candidates.candidates(folder, "cnl", ["8"])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ReidError, match="holds no trained run"):
        candidates.candidates(str(tmp_path))


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_backend_that_fails_leaves_the_others_alone(monkeypatch):
    from reid_nb.backends import BACKENDS, Backend

    def fails(model, images):
        raise RuntimeError("no such\n  operator")

    monkeypatch.setitem(BACKENDS, "failing", Backend(fails))
    monkeypatch.setitem(BACKENDS, "absent", Backend(fails, lambda: "needs a unicorn"))
    table, reasons = candidates.measure({"a": net, "b": net}, ["failing", "eager", "absent"], batch=2, image_size=(8, 8), rounds=4, threads=1)
    assert table.candidate.tolist() == ["a", "b"] and set(table.backend) == {"eager"}
    assert reasons == {"failing": "no such operator", "absent": "needs a unicorn"}
    lines = candidates.listing(table, reasons).splitlines()
    assert lines[-2:] == ["not here: failing: no such operator", "not here: absent: needs a unicorn"]
    assert "1.000 (1.000 to 1.000)" in lines[1]


def test_wrong_settings_are_not_taken_for_an_absent_backend():
    with pytest.raises(UsageError, match="rounds=2"):
        candidates.measure({"a": net}, ["eager"], batch=1, image_size=(8, 8), rounds=2)
    with pytest.raises(UsageError, match="no backend named 'egaer'"):
        candidates.measure({"a": net}, ["egaer"], batch=1, image_size=(8, 8), rounds=4)


def test_a_noisy_row_says_so():
    row = {"backend": "eager", "candidate": "a", "ms": 1.0, "ms_q1": 1.0, "ms_q3": 1.0, "ratio": 1.0, "ratio_q1": 1.0, "ratio_q3": 1.0,
           "speed": 1000.0, "memory": 0.0, "noisy": True}
    assert candidates.listing(pd.DataFrame([row]), {}).endswith("noisy")


def test_the_command_prints_costs_rows_and_reasons():
    words = ["profile", "timm:resnet10t", "--backend", "eager", "--backend", "tensorrt-fp16", "--batch", "2", "--image-size", "64x32", "--rounds", "4", "--threads", "1"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "M MACs" in result.output and "timm:resnet10t" in result.output and "not here: tensorrt-fp16: needs" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_command_fails_if_nothing_could_run():
    result = CliRunner().invoke(cli.app, ["profile", "timm:resnet10t", "--backend", "cudagraphs", "--image-size", "64x32"])
    assert result.exit_code == 1 and "not here: cudagraphs: needs an NVIDIA GPU" in result.output
