"""The attention blocks against the published code's arithmetic, written out by loops, and against hand-counted costs."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reid_nb.errors import UsageError
from reid_nb.papers.cnl.blocks import ABD, AGW, BLOCKS, CNL, HAC, RAGA, SE, build, softmax_attention
from reid_nb.papers.cnl.diagrams import LAYOUTS, numbers, symbols
from reid_nb.papers.cnl.network import POSITIONS, position_shapes

SHAPES = {"1": (64, 64, 32), "2-4": (256, 64, 32), "5-8": (512, 32, 16), "9-14": (1024, 16, 8), "15-17": (2048, 16, 8)}

# Counted independently, from the authors' modules with fvcore: parameters, and MACs in millions as printed there.
COUNTED = {
    ("hac", ()): [(716, "0.00"), (9008, "0.01"), (34400, "0.03"), (134336, "0.13"), (530816, "0.53")],
    ("cnl", (("reduction", 1),)): [(16768, "0.02"), (263680, "0.39"), (1051648, "1.57"), (4200448, "6.29"), (16789504, "25.2")],
    ("cnl", ()): [(8480, "0.01"), (132224, "0.16"), (526592, "0.66"), (2101760, "2.62"), (8397824, "10.5")],
    ("cnl", (("reduction", 8),)): [(2264, "0.00"), (33632, "0.04"), (132800, "0.14"), (527744, "0.56"), (2104064, "2.23")],
    ("cnl", (("reduction", 16),)): [(1228, "0.00"), (17200, "0.02"), (67168, "0.07"), (265408, "0.27"), (1055104, "1.09")],
    ("agw", (("inner", 1),)): [(451, "9.2"), (1795, "11.5"), (3587, "2.1"), (7171, "0.8"), (14339, "1.6")],
    ("se", ()): [(512, "0.13"), (8192, "0.53"), (32768, "0.29"), (131072, "0.26"), (524288, "0.79")],
    ("raga", (("parts", "s"),)): [(1058994, "2202"), (1082178, "2351"), (164898, "101"), (398154, "53"), (1578570, "206")],
    ("raga", (("parts", "c"),)): [(1575454, "102"), (1590994, "424"), (164898, "101"), (270754, "294"), (1063650, "2245")],
    ("raga", ()): [(2634448, "2304"), (2673172, "2775"), (329796, "202"), (668908, "347"), (2642220, "2452")],
    ("abd", ()): [(5201, "312"), (82241, "1376"), (328321, "319"), (1312001, "187"), (5245441, "709")],
    ("abd", (("part", "channel"),)): [(1, "17"), (1, "268"), (1, "268"), (1, "268"), (1, "1074")],
    ("agw", ()): [(8480, "285"), (132224, "1343"), (526592, "403"), (2101760, "285"), (8397824, "1108")],
}
CASES = [(name, dict(arguments), shape, expected) for (name, arguments), row in COUNTED.items()
         for shape, expected in zip(SHAPES.values(), row, strict=True)]


def randomised(block: nn.Module) -> nn.Module:
    """The block in eval mode with batch norms that do something."""
    for module in block.modules():
        if isinstance(module, ABD):
            module.gamma.data.fill_(0.7)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return block.eval()


@pytest.mark.parametrize("name, arguments, shape, expected", CASES)
def test_costs_equal_torchs_counter_and_the_independent_count(name, arguments, shape, expected):
    channels, height, width = shape
    with torch.device("meta"):
        block, normalised = build(name, channels, (height, width), **arguments).eval(), []
        for module in block.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.register_forward_hook(lambda _, __, output: normalised.append(output.numel()))
        with FlopCounterMode(display=False) as counter:
            assert block(torch.empty(1, *shape)).shape == (1, *shape)
    cost, (parameters, printed) = block.cost(height, width), expected
    assert cost.parameters == parameters == sum(p.numel() for p in block.parameters())
    assert cost.macs == counter.get_total_flops() // 2
    decimals, pooled = len(printed.partition(".")[2]), channels * height * width if name == "se" else 0
    # fvcore adds 2 a normalised number, and counts the pooling of SE, which is a module there
    assert f"{(cost.macs + 2 * sum(normalised) + pooled) / 1e6:.{decimals}f}" == printed


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("position", POSITIONS)
def test_formula_equals_torchs_counter_at_every_position(name, position):
    shape = tuple(int(n) for n in position_shapes().loc[position, ["C", "H", "W"]])
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        block = build(name, shape[0], shape[1:]).eval()
        block(torch.empty(1, *shape))
    assert block.cost(*shape[1:]) == (sum(p.numel() for p in block.parameters()), counter.get_total_flops() // 2)


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


def test_se_equals_the_formula_written_out():
    torch.manual_seed(1)
    block, x = SE(32), torch.randn(3, 32, 5, 4)
    first, last = block.squeeze[0].weight[:, :, 0, 0], block.excite.weight[:, :, 0, 0]
    for image, y in zip(x, block(x), strict=True):
        gate = 1 / (1 + torch.exp(-(last @ (first @ image.mean((1, 2))).clamp(min=0))))
        assert torch.allclose(y, image * gate[:, None, None], atol=1e-6)


def by_hand(sequence: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """A chain of bias-free 1x1 convolutions, norms and ReLUs on nodes: features x N, in plain matrix algebra."""
    for module in sequence:
        if isinstance(module, nn.Sequential):
            x = by_hand(module, x)
        elif isinstance(module, nn.Conv1d):
            x = module.weight[:, :, 0] @ x
        elif isinstance(module, nn.BatchNorm1d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            x = (x - module.running_mean[:, None]) * scale[:, None] + module.bias[:, None]
        else:
            x = x.clamp(min=0)
    return x


def gate_by_hand(gate, nodes: torch.Tensor) -> torch.Tensor:
    """The published code's order of operations, for one image: what each node gives, then what it gets, node by node."""
    theta, phi = by_hand(gate.theta, nodes), by_hand(gate.phi, nodes)
    count = nodes.shape[1]
    joint = torch.empty(2 * count, count, dtype=nodes.dtype)
    for n in range(count):
        for other in range(count):
            joint[other, n] = theta[:, n] @ phi[:, other]
            joint[count + other, n] = theta[:, other] @ phi[:, n]
    own = by_hand(gate.own, nodes).mean(0, keepdim=True)
    return 1 / (1 + torch.exp(-by_hand(gate.decide, torch.cat([own, by_hand(gate.relations, joint)]))))


@pytest.mark.parametrize("parts", ["s", "c", "sc"])
def test_raga_equals_its_relations_written_out(parts):
    torch.manual_seed(7)
    block, x = randomised(RAGA(16, (4, 2), parts=parts)).double(), torch.randn(2, 16, 4, 2, dtype=torch.float64)
    for image, y in zip(x.flatten(2), block(x).flatten(2), strict=True):
        if "s" in parts:
            image = image * gate_by_hand(block.pixels, image)
        if "c" in parts:
            image = image * gate_by_hand(block.channels, image.T).T
        assert torch.allclose(y, image, atol=1e-10)


def test_raga_meets_its_own_size_only():
    with pytest.raises(UsageError, match=r"built for maps of \(4, 2\) and met one of \(8, 4\)"):
        RAGA(16, (4, 2))(torch.randn(1, 16, 8, 4))
    with pytest.raises(UsageError, match="built for one size"):
        build("raga", 16)


@pytest.mark.parametrize("part", ["position", "channel"])
def test_abd_equals_a_loop(part):
    torch.manual_seed(8)
    block, x = randomised(ABD(16, part)).double(), torch.randn(2, 16, 3, 2, dtype=torch.float64)
    for image, y in zip(x, block(x), strict=True):
        flat = image.flatten(1)
        if part == "position":
            query, key, value = (layer(image[None])[0].flatten(1).T for layer in (block.query, block.key, block.value))
            logits = [[query[a] @ key[b] for b in range(6)] for a in range(6)]
        else:
            value = flat
            energy = [[flat[a] @ flat[b] for b in range(16)] for a in range(16)]
            logits = [[max(row) - entry for entry in row] for row in energy]
        rows = [sum(torch.stack(row).softmax(0)[b] * value[b] for b in range(len(row))) for row in logits]
        added = torch.stack(rows, 1 if part == "position" else 0).reshape(image.shape)
        assert torch.allclose(y, image + 0.7 * added, atol=1e-10)


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
    query, key, value = block.branches(x)
    y = torch.zeros_like(value)
    for a in range(16 // reduction):
        weights = (query[:, a:a + 1] * key).exp()
        y[:, a] = (weights * value).sum(1) / weights.sum(1)
    expected = x + block.project(y)[:, :, None, None]
    assert torch.allclose(block(x), expected, atol=1e-10)


@pytest.mark.parametrize("channels", [64, 512])
@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("normalisation", ["softmax", "scale"])
@pytest.mark.parametrize("output", ["residual", "gate"])
def test_cnl_equals_three_plain_convolutions_and_the_whole_matrix(channels, reduction, normalisation, output):
    """The block as the paper draws it: three 1x1 convolutions on the pooled map, an i x i matrix, a 1x1 convolution, a norm."""
    torch.manual_seed(9)
    block, x = randomised(CNL(channels, reduction, normalisation, output)), torch.randn(3, channels, 8, 4)
    inner, pooled = channels // reduction, F.adaptive_avg_pool2d(x, 1)
    q, k, v = (F.conv2d(pooled, w[:, :, None, None], b)[:, :, 0] for w, b in
               zip(block.qkv.weight.split(inner), block.qkv.bias.split(inner), strict=True))
    f = q @ k.transpose(1, 2)
    f = F.softmax(f, 2) if normalisation == "softmax" else f / inner
    linear, norm = block.project
    z = F.conv2d((f @ v)[..., None], linear.weight[:, :, None, None], linear.bias)
    z = F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    with torch.no_grad():
        assert torch.allclose(block(x), x + z if output == "residual" else x * torch.sigmoid(z), atol=1e-5)
        assert torch.allclose(block.matrix(x), f, atol=1e-5)


def test_a_gate_starts_at_one_half():
    x = torch.randn(4, 32, 6, 3)
    assert torch.equal(CNL(32, output="gate").eval()(x), x / 2)


def test_cheap_channel_attention_has_the_gradients_of_the_plain_one():
    torch.manual_seed(4)
    plain = [torch.randn(3, 40, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    cheap = [tensor.detach().clone().requires_grad_() for tensor in plain]
    q, k, v = plain
    (F.softmax(q[:, :, None] * k[:, None, :], 2) @ v[:, :, None]).square().sum().backward()
    softmax_attention(*cheap).square().sum().backward()
    for one, other in zip(plain, cheap, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-10)


@pytest.mark.parametrize("name, arguments", [("agw", {}), ("agw", {"inner": 1}), ("cnl", {}), ("cnl", {"reduction": 1}), ("abd", {}),
                                             ("abd", {"part": "channel"}), ("cnl", {"normalisation": "scale"})])
@pytest.mark.parametrize("training", [True, False])
def test_residual_blocks_start_as_the_identity(name, arguments, training):
    x = torch.randn(4, 32, 6, 3)
    assert torch.equal(build(name, 32, **arguments).train(training)(x), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_learns(name):
    torch.manual_seed(5)
    block = randomised(build(name, 32, (6, 3))).train()
    for _ in range(2):
        block(torch.randn(4, 32, 6, 3)).square().sum().backward()
    # a bias in front of a batch norm is taken out by it again, so its gradient is zero up to rounding
    assert all(p.grad is not None for p in block.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in block.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_do_not_mix_the_images_of_a_batch(name):
    block, x = randomised(build(name, 32, (6, 4))), torch.randn(3, 32, 6, 4)
    alone = torch.cat([block(image[None]) for image in x])
    assert torch.allclose(block(x), alone, atol=1e-5)


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'cnl'.*abd, agw, cnl, hac, raga, se"):
        build("c-nl", 64)
    with pytest.raises(UsageError, match="'reductoin'.*Did you mean 'reduction'"):
        build("cnl", 64, reductoin=2)
    with pytest.raises(UsageError, match="reduction=0 is not a width to divide 64 channels by"):
        build("cnl", 64, reduction=0)
    for arguments, kind in (({"normalisation": "softmx"}, "normalisation"), ({"output": "gated"}, "output")):
        with pytest.raises(UsageError, match=f"There is no {kind} of block 'cnl'.*Did you mean"):
            build("cnl", 64, **arguments)
    with pytest.raises(UsageError, match="part of block 'abd'"):
        build("abd", 64, part="pixel")
    with pytest.raises(UsageError, match="parts of block 'raga'"):
        build("raga", 64, (4, 2), parts="cs")


def test_widths_that_a_reduction_does_not_divide_are_rounded_down():
    assert (HAC(116).inner, HAC(8).inner, CNL(7).inner) == (7, 1, 3)
    assert build("raga", 24, (8, 4))(torch.randn(2, 24, 8, 4)).shape == (2, 24, 8, 4)


def inner_of(block, channels):
    return block.pixels.inner if isinstance(block, RAGA) else block.inner


@pytest.mark.parametrize("name", BLOCKS)
def test_diagrams_show_the_shapes_that_flow(name):
    """What the boxes of a diagram say leaves them is what leaves the modules that they name."""
    channels, height, width = 64, 8, 4
    block, seen = build(name, channels, (height, width)).eval(), {}
    boxes = LAYOUTS[name].boxes.values()
    for module in {box.module for box in boxes if box.module}:
        block.get_submodule(module).register_forward_hook(lambda _, __, output, module=module: seen.update({module: output[0].numel()}))
    block(torch.randn(1, channels, height, width))
    known = symbols(channels, height, width, inner_of(block, channels), 8 if name == "raga" else 16)
    drawn = {module: sum(torch.Size(numbers(box.out, known)).numel() for box in boxes if box.module == module) for module in seen}
    assert drawn == seen and seen


@pytest.mark.parametrize("name", ["agw", "abd", "cnl"])
def test_diagrams_show_the_size_of_the_matrix(name):
    block, x = build(name, 64), torch.randn(1, 64, 8, 4)
    assert tuple(block.matrix(x).shape[1:]) == numbers(LAYOUTS[name].boxes["f"].out, symbols(64, 8, 4, block.inner))
