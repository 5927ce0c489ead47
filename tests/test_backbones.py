"""Backbones against published counts, a network with edited strides, and numbers worked out by hand."""
import copy
import math

import pytest
import timm
import torch
from safetensors.torch import save_file

from reid_nb.backbones import (ReIDModel, count_macs, count_parameters, imagenet_weights, load_matching, read_weights, resnet)
from reid_nb.errors import ReidError, UsageError


def randomise_norms(net, seed=0):
    """Random statistics and scales in every batch norm, so that no branch is switched off by its zero initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.3, 0.7), (module.bias, -0.2, 0.2),
                                      (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)):
                tensor.data.uniform_(low, high, generator=generator)
    return net


@pytest.mark.parametrize("depth, parameters, gmacs_stride_1, gmacs_stride_2",
                         [(50, 23_508_032, 4.070, 2.684), (101, 42_500_160, 6.501, 5.115)])
def test_counts_are_the_published_ones(depth, parameters, gmacs_stride_1, gmacs_stride_2):
    for stride, gmacs in ((1, gmacs_stride_1), (2, gmacs_stride_2)):
        net = resnet(depth, last_stride=stride)
        assert count_parameters(net) == parameters
        assert math.isclose(count_macs(net, (256, 128)), gmacs * 1e9, rel_tol=0.01)


def test_bnneck_and_classifier_add_what_the_anchors_say():
    trunk = resnet(50)
    model = ReIDModel(trunk, 751)
    assert count_parameters(model) - count_parameters(trunk) == 2 * 2048 + 751 * 2048


@pytest.mark.parametrize("depth, strided", [(18, ("conv1",)), (50, ("conv2",))])
def test_last_stride_1_is_the_plain_network_with_two_strides_edited(depth, strided):
    plain = randomise_norms(timm.create_model(f"resnet{depth}", num_classes=0, global_pool=""))
    edited = copy.deepcopy(plain)
    block = edited.layer4[0]
    getattr(block, strided[0]).stride = (1, 1)
    block.downsample[0].stride = (1, 1)
    ours = resnet(depth)
    ours.load_state_dict(plain.state_dict())
    dilated = timm.create_model(f"resnet{depth}", num_classes=0, global_pool="", output_stride=16)
    dilated.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected, found, other = (net.eval()(images) for net in (edited, ours, dilated))
    assert torch.equal(found, expected)
    assert other.shape == expected.shape and not torch.allclose(other, expected, rtol=0.01)


@pytest.mark.parametrize("depth, blocks, features", [(18, 8, 128), (34, 16, 128), (50, 16, 512), (101, 33, 512)])
def test_quarter_width_keeps_every_block(depth, blocks, features):
    net = resnet(depth, width=0.25)
    assert sum(len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)) == blocks
    assert net.conv1.out_channels == 16 and net.num_features == features
    full = resnet(depth).state_dict()
    for name, tensor in net.state_dict().items():
        quarter = [n if n == 3 or i > 1 else n // 4 for i, n in enumerate(full[name].shape)]
        assert list(tensor.shape) == quarter, name
    assert net(torch.zeros(2, 3, 128, 64)).shape == (2, features, 8, 4)


def test_the_quarter_width_network_starts_as_timm_starts_the_full_one():
    net = resnet(50, width=0.25)
    assert all((m.bn3.weight == 0).all() for m in net.modules() if hasattr(m, "bn3"))
    fan_out = net.layer1[0].conv2.weight.shape[0] * 9
    assert math.isclose(net.layer1[0].conv2.weight.std().item(), math.sqrt(2 / fan_out), rel_tol=0.1)


def test_model_pools_normalises_and_classifies():
    torch.manual_seed(0)
    model = ReIDModel(resnet(18, width=0.25), num_classes=5)
    images = torch.randn(6, 3, 64, 32)
    output = model(images)
    trunk_map = copy.deepcopy(model.trunk)(images)
    feature = trunk_map.flatten(2).sum(2) / (trunk_map.shape[2] * trunk_map.shape[3])
    torch.testing.assert_close(output.feature, feature)
    standard = (feature - feature.mean(0)) / (feature.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(output.embedding, standard, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.logits, output.embedding @ model.classifier.weight.T)
    assert output.weight is model.classifier.weight and output.weight.shape == (5, model.num_features)
    assert 0.0008 < output.weight.std() < 0.0012
    assert not model.neck.bias.requires_grad and (model.neck.bias == 0).all() and model.classifier.bias is None


def test_evaluation_returns_the_embedding_and_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = ReIDModel(randomise_norms(resnet(18, width=0.25)), 5).eval()
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        together, alone = model(images), model(images[:1])
    assert together.shape == (3, model.num_features)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_counting_leaves_the_mode_alone():
    model = ReIDModel(resnet(18, width=0.25), 5)
    count_macs(model, (64, 32))
    assert model.training and model.neck.num_batches_tracked == 0


def test_deeper_network_starts_as_the_shallower_one(tmp_path):
    trained = randomise_norms(resnet(50, width=0.25))
    save_file(trained.state_dict(), tmp_path / "r50.safetensors")
    deeper = resnet(101, width=0.25)
    report = load_matching(deeper, tmp_path / "r50.safetensors")
    assert set(report.loaded) == set(trained.state_dict()) and report.unused == []
    assert {name.split(".")[1] for name in report.fresh} == {str(i) for i in range(6, 23)}
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(deeper.eval()(images), trained.eval()(images))


def test_load_matching_reports_shapes_that_differ(tmp_path):
    source, target = (ReIDModel(resnet(18, width=0.25), n) for n in (5, 7))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    before = target.classifier.weight.clone()
    report = load_matching(target, tmp_path / "w.safetensors")
    assert report.fresh == report.unused == ["classifier.weight"]
    assert torch.equal(target.classifier.weight, before)
    assert torch.equal(target.trunk.conv1.weight, source.trunk.conv1.weight)


def test_weights_by_path_load_all_or_raise(tmp_path):
    source = resnet(18, width=0.25)
    save_file({**source.state_dict(), "fc.weight": torch.zeros(3, 128)}, tmp_path / "w.safetensors")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        assert torch.equal(resnet(18, width=0.25, weights=tmp_path / name).conv1.weight, source.conv1.weight)
    with pytest.raises(ReidError, match="lacks .* layer"):
        resnet(34, width=0.25, weights=tmp_path / "w.safetensors")


def test_bad_weights_name_the_file(tmp_path):
    with pytest.raises(ReidError, match="absent.safetensors is missing"):
        read_weights(tmp_path / "absent.safetensors")
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(b"\x01\x02")
        with pytest.raises(ReidError, match=name):
            read_weights(tmp_path / name)
    torch.save(tmp_path, tmp_path / "code.pth")   # an object, which only running code could restore
    with pytest.raises(ReidError, match="code.pth cannot be read"):
        read_weights(tmp_path / "code.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ReidError, match="list.pth holds a list"):
        read_weights(tmp_path / "list.pth")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ReidError, match="No tensor in .*other.safetensors"):
        load_matching(resnet(18, width=0.25), tmp_path / "other.safetensors")


def test_imagenet_weights_come_from_the_caches_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    with pytest.raises(ReidError, match="Nothing is downloaded by itself"):
        resnet(18, weights="imagenet")
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(timm.create_model("resnet18").state_dict(), cached)
    assert imagenet_weights(18) == cached
    assert torch.equal(resnet(18, weights="imagenet").conv1.weight, torch.load(cached)["conv1.weight"])


def test_usage_errors():
    with pytest.raises(UsageError, match="no ResNet depth named 51"):
        resnet(51)
    with pytest.raises(UsageError, match="last stride"):
        resnet(50, last_stride=3)
    with pytest.raises(UsageError, match="width 0.25"):
        resnet(50, width=0.25, weights="imagenet")
