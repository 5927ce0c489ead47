"""The attention blocks against the published code's arithmetic, written out by loops, and against hand-counted costs."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reid_nb.errors import UsageError
from reid_nb.papers.cnl.blocks import AGW, BLOCKS, CNL, HAC, build, channel_attention

SHAPES = {"1": (64, 64, 32), "2-4": (256, 64, 32), "5-8": (512, 32, 16), "9-14": (1024, 16, 8), "15-17": (2048, 16, 8)}

# Counted independently, from the authors' modules with fvcore: parameters, and MACs in millions as printed there.
COUNTED = {
    ("hac", ()): [(716, "0.00"), (9008, "0.01"), (34400, "0.03"), (134336, "0.13"), (530816, "0.53")],
    ("cnl", (("reduction", 1),)): [(16768, "0.02"), (263680, "0.39"), (1051648, "1.57"), (4200448, "6.29"), (16789504, "25.2")],
    ("cnl", ()): [(8480, "0.01"), (132224, "0.16"), (526592, "0.66"), (2101760, "2.62"), (8397824, "10.5")],
    ("cnl", (("reduction", 8),)): [(2264, "0.00"), (33632, "0.04"), (132800, "0.14"), (527744, "0.56"), (2104064, "2.23")],
    ("cnl", (("reduction", 16),)): [(1228, "0.00"), (17200, "0.02"), (67168, "0.07"), (265408, "0.27"), (1055104, "1.09")],
    ("agw", (("inner", 1),)): [(451, "9.2"), (1795, "11.5"), (3587, "2.1"), (7171, "0.8"), (14339, "1.6")],
    ("agw", ()): [(8480, "285"), (132224, "1343"), (526592, "403"), (2101760, "285"), (8397824, "1108")],
}
CASES = [(name, dict(arguments), shape, expected) for (name, arguments), row in COUNTED.items()
         for shape, expected in zip(SHAPES.values(), row, strict=True)]


def randomised(block: nn.Module) -> nn.Module:
    """The block in eval mode with batch norms that do something."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return block.eval()


@pytest.mark.parametrize("name, arguments, shape, expected", CASES)
def test_costs_equal_torchs_counter_and_the_independent_count(name, arguments, shape, expected):
    channels, height, width = shape
    with torch.device("meta"):
        block, normalised = build(name, channels, **arguments).eval(), []
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, __, output: normalised.append(output.numel()))
        with FlopCounterMode(display=False) as counter:
            assert block(torch.empty(1, *shape)).shape == (1, *shape)
    cost, (parameters, printed) = block.cost(height, width), expected
    assert cost.parameters == parameters == sum(p.numel() for p in block.parameters())
    assert cost.macs == counter.get_total_flops() // 2
    decimals = len(printed.partition(".")[2])
    assert f"{(cost.macs + 2 * sum(normalised)) / 1e6:.{decimals}f}" == printed  # fvcore adds 2 a normalised number


def test_hac_equals_the_formula_written_out():
    torch.manual_seed(1)
    block, x = randomised(HAC(32)), torch.randn(3, 32, 5, 4)
    z = x.mean((2, 3))
    for conv, norm, _ in (block.squeeze, block.excite):
        z = z @ conv.weight[:, :, 0, 0].T + conv.bias
        z = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        z = z.clamp(min=0)
    expected = x * (1 / (1 + (-z).exp()))[:, :, None, None]
    assert torch.allclose(block(x), expected, atol=1e-6)
    assert block.gate(x).min() >= 0.5


@pytest.mark.parametrize("inner", [None, 1, 5])
def test_agw_equals_a_loop_over_pixels(inner):
    torch.manual_seed(2)
    block, x = randomised(AGW(8, inner)).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    query, key, value = (branch(x).flatten(2) for branch in (block.query, block.key, block.value))
    y = torch.zeros_like(value)
    for p in range(12):
        for other in range(12):
            weight = (query[:, :, p] * key[:, :, other]).sum(1, keepdim=True) / 12
            y[:, :, p] += weight * value[:, :, other]
    expected = x + block.project(y.reshape(2, -1, 3, 4))
    assert torch.allclose(block(x), expected, atol=1e-10)


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_cnl_equals_a_loop_over_channels(reduction):
    torch.manual_seed(3)
    block, x = randomised(CNL(16, reduction)).double(), torch.randn(2, 16, 3, 4, dtype=torch.float64)
    pooled = x.mean((2, 3), keepdim=True)
    query, key, value = (branch(pooled)[:, :, 0, 0] for branch in (block.query, block.key, block.value))
    y = torch.zeros_like(value)
    for a in range(16 // reduction):
        weights = (query[:, a:a + 1] * key).exp()
        y[:, a] = (weights * value).sum(1) / weights.sum(1)
    expected = x + block.project(y[:, :, None, None])
    assert torch.allclose(block(x), expected, atol=1e-10)


def test_cheap_channel_attention_has_the_gradients_of_the_plain_one():
    torch.manual_seed(4)
    plain = [torch.randn(3, 40, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    cheap = [tensor.detach().clone().requires_grad_() for tensor in plain]
    q, k, v = plain
    (F.softmax(q[:, :, None] * k[:, None, :], 2) @ v[:, :, None]).square().sum().backward()
    channel_attention(*cheap).square().sum().backward()
    for one, other in zip(plain, cheap, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-10)


@pytest.mark.parametrize("name, arguments", [("agw", {}), ("agw", {"inner": 1}), ("cnl", {}), ("cnl", {"reduction": 1})])
@pytest.mark.parametrize("training", [True, False])
def test_residual_blocks_start_as_the_identity(name, arguments, training):
    x = torch.randn(4, 32, 6, 3)
    assert torch.equal(build(name, 32, **arguments).train(training)(x), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_learns(name):
    torch.manual_seed(5)
    block = randomised(build(name, 32)).train()
    for _ in range(2):
        block(torch.randn(4, 32, 6, 3)).square().sum().backward()
    # a bias in front of a batch norm is taken out by it again, so its gradient is zero up to rounding
    assert all(p.grad is not None for p in block.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in block.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_do_not_mix_the_images_of_a_batch(name):
    block, x = randomised(build(name, 32)), torch.randn(3, 32, 6, 4)
    alone = torch.cat([block(image[None]) for image in x])
    assert torch.allclose(block(x), alone, atol=1e-5)


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'cnl'.*agw, cnl, hac"):
        build("c-nl", 64)
    with pytest.raises(UsageError, match="'reductoin'.*Did you mean 'reduction'"):
        build("cnl", 64, reductoin=2)
    with pytest.raises(UsageError, match="reduction=3 does not divide 64 channels"):
        build("cnl", 64, reduction=3)
