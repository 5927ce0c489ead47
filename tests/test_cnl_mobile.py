"""Mobile networks with attention: published sizes, positions, names, warm starts and refusals."""
import pytest
import timm
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from reid_nb.backbones import ReIDModel, count_macs, count_parameters
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.cnl.mobile import NETWORKS, cached_weights, counterparts, mobile_position_shapes, mobile_trunk, mobile_with_attention
from reid_nb.papers.cnl.network import SETTINGS, position_shapes


def published(name: str) -> torch.nn.Module:
    """The whole classifier, as its library builds it."""
    return torchvision.models.shufflenet_v2_x1_0() if name == "shufflenet_v2" else timm.create_model("mobilenetv3_large_100")


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """Name, and a trunk whose batch norms do something."""
    torch.manual_seed(0)
    trunk = mobile_trunk(request.param).eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return request.param, trunk


@pytest.mark.parametrize("name, parameters, macs", [
    ("shufflenet_v2", 2.28e6, 146e6),   # Ma et al., ECCV 2018, Table 5 (2.3 M, 146 M); torchvision: 2,278,604 parameters
    ("mobilenet_v3", 5.48e6, 218e6)])   # Howard et al., ICCV 2019, Table 3 (5.4 M, 219 M); timm: 5.48 M, 217 M
def test_the_whole_networks_cost_what_is_published(name, parameters, macs):
    with torch.device("meta"):
        whole, trunk = published(name), mobile_trunk(name)
    assert count_parameters(whole) == pytest.approx(parameters, rel=0.005)
    assert count_macs(whole, (224, 224)) == pytest.approx(macs, rel=0.01)
    sizes = {key: tensor.shape for key, tensor in whole.state_dict().items()}
    own = {key: tensor.shape for key, tensor in trunk.state_dict().items()}
    assert own.items() <= sizes.items()
    assert {key.split(".")[0] for key in sizes.keys() - own.keys()} <= {"fc", "conv_head", "classifier"}


def test_a_trunk_computes_the_features_of_its_library():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        net, trunk = timm.create_model("mobilenetv3_large_100").eval(), mobile_trunk("mobilenet_v3").eval()
        trunk.load_state_dict(net.state_dict(), strict=False)
        assert torch.equal(trunk(x), net.forward_features(x))
        net, trunk = torchvision.models.shufflenet_v2_x1_0().eval(), mobile_trunk("shufflenet_v2").eval()
        trunk.load_state_dict(net.state_dict(), strict=False)
        assert torch.allclose(net.fc(trunk(x).mean((2, 3))), net(x), atol=1e-6)


def test_positions_are_those_of_the_papers():
    shuffle, mobile = (mobile_position_shapes(name) for name in ("shufflenet_v2", "mobilenet_v3"))
    assert shuffle.groupby("stage").size().tolist() == [1, 4, 8, 4]           # Ma et al., Table 5
    assert shuffle.C.tolist() == [24] + [116] * 4 + [232] * 8 + [464] * 4
    assert shuffle.H.tolist() == [64] + [32] * 4 + [16] * 8 + [8] * 4
    assert mobile.C.tolist() == [16, 16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160]  # Howard et al., Table 1
    assert mobile.H.tolist() == [128, 128, 64, 64, 32, 32, 32] + [16] * 6 + [8] * 3
    assert (mobile.W * 2 == mobile.H).all() and (shuffle.W * 2 == shuffle.H).all()


def test_counterparts_of_the_papers_positions():
    assert counterparts(position_shapes()) == (6, 8, 14)
    assert counterparts(mobile_position_shapes("shufflenet_v2")) == (3, 5, 13)
    assert counterparts(mobile_position_shapes("mobilenet_v3", (128, 64)), 128) == (5, 7, 13)


@pytest.mark.parametrize("block", ["agw", "abd", "cnl"])
def test_residual_blocks_leave_a_pretrained_network_as_it_is_at_all_positions(block, trained):
    name, trunk = trained
    network = mobile_with_attention(name, block, mobile_position_shapes(name).index).eval()
    network.load_state_dict(trunk.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(network(x), trunk(x))


@pytest.mark.parametrize("block", SETTINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_formulas_equal_torchs_counter(name, block):
    kind, arguments = SETTINGS[block]
    positions = counterparts(mobile_position_shapes(name))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        plain, network = mobile_trunk(name).eval(), mobile_with_attention(name, kind, positions, arguments).eval()
        costs = [network.attention[str(p)].cost(*mobile_position_shapes(name).loc[p, ["H", "W"]]) for p in positions]
        network(torch.empty(1, 3, 256, 128))
    assert counter.get_total_flops() // 2 - count_macs(plain, (256, 128)) == sum(cost.macs for cost in costs)
    assert count_parameters(network) - count_parameters(plain) == sum(cost.parameters for cost in costs)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_a_model_around_it_trains_and_embeds(name, width):
    model = ReIDModel(mobile_with_attention(name, positions={"5": "hac", 7: "cnl", "13": "raga"}, width=width, image_size=(64, 32)), 5)
    output = model.train()(torch.randn(4, 3, 64, 32))
    (output.logits.square().sum() + output.feature.square().sum()).backward()
    assert all(any(p.grad.any() for p in block.parameters()) for block in model.trunk.attention.values())
    assert model.eval()(torch.randn(2, 3, 64, 32)).shape == (2, model.num_features)


def test_weights_of_the_whole_network_load_from_a_file(tmp_path):
    whole = torchvision.models.shufflenet_v2_x1_0()
    torch.save(whole.state_dict(), tmp_path / "shuffle.pth")
    network = mobile_with_attention("shufflenet_v2", "cnl", [5], weights=tmp_path / "shuffle.pth")
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in network.state_dict().items() if not key.startswith("attention"))


@pytest.mark.parametrize("name", NETWORKS)
def test_absent_weights_are_named_and_never_fetched(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(ReidError, match="Nothing is downloaded by itself: fetch https"):
        cached_weights(name)


@pytest.mark.parametrize("arguments, message", [
    (dict(name="shufflenet"), "Did you mean 'shufflenet_v2'"),
    (dict(name="mobilenet_v3", block="cnl", positions=[17]), "no position 17.*14 to 16 .stage 6"),
    (dict(block="clm", positions=[5]), "Did you mean 'cnl'"), (dict(block="cnl"), "give both")])
def test_wrong_requests_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        mobile_with_attention(**arguments)
