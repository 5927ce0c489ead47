"""ResNet-50 with attention at its 17 positions: shapes, names, warm starts, costs and refusals."""
from copy import deepcopy

import pytest
import torch

from reid_nb.backbones import ReIDModel, resnet
from reid_nb.cells import paper_cells
from reid_nb.errors import UsageError
from reid_nb.papers.cnl.blocks import build
from reid_nb.papers.cnl.variants import BLOCK_NAMES
from reid_nb.papers.cnl.network import (POSITIONS, SETTINGS, added_cost, attach, cost_table, network_cost, placement, position_shapes,
                                        residual_blocks, resnet_with_attention)


GROUPS = ["1", *3 * ["2-4"], *4 * ["5-8"], *6 * ["9-14"], *3 * ["15-17"]]  # positions 1 to 17 by the shape of their map


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    trunk = resnet(width=0.25).eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return trunk


def test_shapes_are_those_printed_at_the_top_of_figure_4():
    shapes = position_shapes()
    expected = [(64, 64, 32)] + [(256, 64, 32)] * 3 + [(512, 32, 16)] * 4 + [(1024, 16, 8)] * 6 + [(2048, 16, 8)] * 3
    assert [tuple(row) for row in shapes[["C", "H", "W"]].to_numpy()] == expected
    assert shapes.index.tolist() == list(POSITIONS) == list(range(1, 18))
    assert shapes.groupby("stage").size().tolist() == [1, 3, 4, 6, 3]
    trunk = resnet(width=0.25)
    assert [trunk.get_submodule(name) for name in shapes.module] == [trunk.maxpool, *residual_blocks(trunk)]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_block_sees_the_map_of_its_position_and_nothing_else_changes(position, plain):
    network = resnet_with_attention(width=0.25, block="cnl", positions=[position]).eval()
    network.load_state_dict(plain.state_dict(), strict=False)
    at, after = {}, {}
    network.attention[str(position)].register_forward_hook(lambda _, inputs, __: at.update(x=inputs[0]))
    place = [plain.maxpool, *residual_blocks(plain)][position - 1]
    handle = place.register_forward_hook(lambda _, __, output: after.update(x=output))
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))
    handle.remove()
    assert torch.equal(at["x"], after["x"])


@pytest.mark.parametrize("block, arguments", [("cnl", {}), ("cnl", {"reduction": 1}), ("cnl", {"normalisation": "scale"}), ("agw", {}),
                                              ("abd", {}), ("abd", {"part": "channel"})])
def test_residual_blocks_leave_a_pretrained_trunk_as_it_is_at_all_positions(block, arguments, plain):
    network = resnet_with_attention(width=0.25, block=block, positions=POSITIONS, block_args=arguments).eval()
    network.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))


@pytest.mark.parametrize("block", ["se", "hac", "raga"])
def test_gated_blocks_change_a_pretrained_trunk(block, plain):
    network = resnet_with_attention(width=0.25, block=block, positions=[8], image_size=(64, 32)).eval()
    network.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert not torch.allclose(network(images), plain(images), rtol=1e-2)


def test_the_trunks_names_are_unchanged_and_its_weights_load_from_disk(plain, tmp_path):
    from safetensors.torch import save_file
    save_file(plain.state_dict(), tmp_path / "trunk.safetensors")
    network = resnet_with_attention(width=0.25, block="hac", positions=[8, 14], weights=tmp_path / "trunk.safetensors")
    own = network.state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(own.pop(name), tensor)
    assert own and all(name.startswith(("attention.8.", "attention.14.")) for name in own)


def test_a_copy_of_a_network_uses_its_own_blocks(plain):
    network = resnet_with_attention(width=0.25, block="cnl", positions=[8]).eval()
    copied = deepcopy(network)
    torch.nn.init.ones_(copied.attention["8"].project[1].bias)
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert not torch.equal(copied(images), network(images))


def awake(block):
    """A block that does something: a norm or a gamma that starts at zero is moved away from it."""
    for name, parameter in block.named_parameters():
        if parameter.dim() == 1 and not parameter.any():
            torch.nn.init.normal_(parameter)
    return block.eval()


class Small(torch.nn.Module):
    """A network that knows nothing of attention."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.Conv2d(16, 32, 3, 2, 1)

    def forward(self, x):
        return self.second(self.first(x).relu())


def test_attach_puts_blocks_behind_modules_of_any_network():
    se, cnl, plain = awake(build("se", 16)), awake(build("cnl", 32)), Small()
    network = attach(deepcopy(plain), {"first": se, "second": cnl})
    x = torch.randn(2, 3, 16, 8)
    with torch.no_grad():
        assert torch.equal(network(x), cnl(plain.second(se(plain.first(x)).relu())))
    names = set(network.state_dict())
    assert {"attention.first.excite.weight", "attention.second.qkv.weight"} <= names - set(plain.state_dict())
    assert all(name in names or name.startswith("attention.") for name in plain.state_dict())


def test_attach_refuses_what_is_not_there_and_a_second_time(plain):
    with pytest.raises(UsageError, match="no module 'layer2.9'.*layer2"):
        attach(resnet(18, width=0.25), {"layer2.9": build("se", 16)})
    network = attach(resnet(18, width=0.25), {"layer2.0": build("se", 32)})
    assert "attention.layer2_0.excite.weight" in network.state_dict()
    with pytest.raises(UsageError, match="already has a part named 'attention'"):
        attach(network, {"layer2.1": build("se", 32)})
    with pytest.raises(UsageError, match="nn.Sequential calls every part"):
        attach(torch.nn.Sequential(torch.nn.ReLU()), {"0": build("se", 16)})


@pytest.mark.parametrize("block", SETTINGS)
def test_a_network_with_blocks_is_copied_saved_and_loaded(block, tmp_path):
    kind, arguments = SETTINGS[block]
    network = resnet_with_attention(width=0.25, block=kind, positions=[8], block_args=arguments, image_size=(64, 32)).eval()
    awake(network.attention)
    x = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(deepcopy(network)(x), expected)
        torch.save(network, tmp_path / "network.pt")
        assert torch.equal(torch.load(tmp_path / "network.pt", weights_only=False)(x), expected)


def small_network(block):
    """Two blocks of one kind in a small network, awake."""
    kind, arguments = SETTINGS[block]
    torch.manual_seed(0)
    blocks = {"first": build(kind, 16, (8, 4), **arguments), "second": build(kind, 32, (4, 2), **arguments)}
    network = attach(Small(), blocks).eval()
    awake(network.attention)
    return network


@pytest.mark.parametrize("block, dynamo", [*((block, False) for block in SETTINGS), *((block, True) for block in ("RAGA", "C-NL"))])
@pytest.mark.filterwarnings("ignore")
def test_both_onnx_exporters_take_the_blocks_along(block, dynamo, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, x = small_network(block), torch.randn(2, 3, 16, 8)
    with torch.no_grad():
        expected = network(x)
        assert not torch.allclose(expected, plain_forward(network, x))
    torch.onnx.export(network, (x,), str(tmp_path / "network.onnx"), dynamo=dynamo, verbose=False,
                      **({} if dynamo else {"opset_version": 17}))
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    assert torch.allclose(found, expected, atol=1e-4)


def plain_forward(network, x):
    """What the network without its blocks computes."""
    return network.second.forward(network.first.forward(x).relu())


@pytest.mark.parametrize("block", ["SE", "C-NL"])
def test_torch_compile_traces_the_blocks(block):
    network, x = small_network(block), torch.randn(2, 3, 16, 8)
    with torch.no_grad():
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)(x)
        assert torch.allclose(compiled, network(x), atol=1e-6) and not torch.allclose(compiled, plain_forward(network, x))


@pytest.mark.parametrize("block", ["se", "hac", "agw", "raga", "abd", "cnl"])
def test_a_model_around_it_trains_and_embeds(block):
    model = ReIDModel(resnet_with_attention(width=0.25, block=block, positions=[6, 8, 14], image_size=(64, 32)), num_classes=5)
    output = model.train()(torch.randn(4, 3, 64, 32))
    assert output.logits.shape == (4, 5) and output.embedding.shape == (4, 512)
    (output.logits.square().sum() + output.feature.square().sum()).backward()
    assert any(p.grad is not None and p.grad.any() for p in model.trunk.attention["8"].parameters())
    assert model.eval()(torch.randn(2, 3, 64, 32)).shape == (2, 512)


@pytest.mark.parametrize("block, arguments, parameters", [
    ("hac", {}, 203_136), ("cnl", {"reduction": 1}, 6_303_744), ("cnl", {}, 3_154_944), ("cnl", {"reduction": 16}, 399_744),
    ("agw", {"inner": 1}, 14_345), ("agw", {}, 3_154_944), ("se", {}, 196_608), ("abd", {}, 1_968_643), ("raga", {}, 1_328_500)])
def test_counted_and_formula_costs_agree_with_the_published_count(block, arguments, parameters):
    plain = network_cost()
    counted = network_cost(block=block, positions=[6, 8, 14], block_args=arguments)
    formula = added_cost(block, [6, 8, 14], arguments)
    assert counted.parameters - plain.parameters == formula.parameters == parameters
    assert counted.macs - plain.macs == formula.macs


def test_the_cost_table_holds_every_block_at_every_position():
    table = cost_table()
    assert len(table) == len(SETTINGS) * 17 and not table.duplicated(["block", "position"]).any()
    found = table.set_index(["block", "position"])
    assert tuple(found.loc[("RAGA", 17)]) == tuple(added_cost("raga", [17])) and found.loc[("RAGA", 17), "parameters"] == 2_642_220


def test_backbones_cost_what_is_published():
    # fvcore adds two for each number in a batch norm, hence the tolerance of 1 %
    for depth, parameters, gmacs in ((50, 23_508_032, 4.070), (101, 42_500_160, 6.501)):
        cost = network_cost(depth=depth)
        assert cost.parameters == parameters
        assert cost.macs == pytest.approx(gmacs * 1e9, rel=0.01)


def test_mixed_positions_equal_single_ones():
    mixed = resnet_with_attention(width=0.25, positions={"8": "hac", "14": {"block": "agw", "inner": 1}, 2: "cnl"})
    kinds = {position: type(block).__name__ for position, block in mixed.attention.items()}
    assert kinds == {"2": "CNL", "8": "HAC", "14": "AGW"}
    assert mixed.attention["14"].inner == 1
    assert placement("cnl", [8, 6], {"reduction": 1}) == placement(
        None, {p: {"block": "cnl", "reduction": 1} for p in ("8", "6")}, None)


def test_no_block_is_the_plain_trunk_at_any_depth():
    for depth in (50, 101):
        trunk = resnet_with_attention(depth, width=0.25)
        assert trunk.state_dict().keys() == resnet(depth, width=0.25).state_dict().keys()


@pytest.mark.parametrize("arguments, message", [
    (dict(block="cnl", positions=[0]), "no position 0.*1 .after the stem"),
    (dict(block="cnl", positions=[18]), "15 to 17 .stage 4"),
    (dict(block="cnl", positions=["8a"]), "no position '8a'"),
    (dict(block="cnl", positions=[8, 8]), "twice"),
    (dict(positions={"8": "cnl", 8: "hac"}), "twice"),
    (dict(block="cln", positions=[8]), "Did you mean 'cnl'"),
    (dict(block="cnl", positions=[8], block_args={"r": 1}), "Known: normalisation, output, reduction"),
    (dict(block="cnl"), "give both"),
    (dict(positions=[8]), "give both"),
    (dict(block="cnl", positions={"8": "cnl"}), "leave block and block_args out"),
    (dict(depth=101, block="cnl", positions=[8]), "depth=101 takes no attention blocks"),
])
def test_wrong_requests_are_refused_in_plain_words(arguments, message):
    with pytest.raises(UsageError, match=message):
        resnet_with_attention(**arguments)


@pytest.fixture(scope="module")
def cells():
    return paper_cells("cnl").set_index(["artefact", "row", "column"])


def architecture_row(row):
    """Block and positions of a row such as "C-NL @ 6, 8, 14 (circle loss)"."""
    kind, at = row.removesuffix(" (circle loss)").split(" @ ")
    return {name: block for block, name in BLOCK_NAMES.items()}[kind], [int(position) for position in at.split(", ")]


def test_references_of_the_architecture_cells_are_counted_on_the_network(cells):
    plain, counted = network_cost(), {}
    architecture = cells[cells.kind == "architecture"].loc[["table_1", "figure_4"]]
    for (_, row, column), cell in architecture.iterrows():
        block, positions = architecture_row(row)
        positions = [GROUPS.index(GROUPS[position - 1]) + 1 for position in positions]  # the first position of the same shape
        positions = positions if len(set(positions)) == len(positions) else architecture_row(row)[1]
        key = (block, *positions)
        if key not in counted:
            counted[key] = network_cost(block=block, positions=positions)
        field, unit = {"added parameters": ("parameters", 1), "added MACs": ("macs", 1e6)}[column]
        assert cell.paper_value == (getattr(counted[key], field) - getattr(plain, field)) / unit
    assert len(architecture) == 2 * (12 + 6 * 17)
    assert (architecture.paper_text == "").all()


def test_references_of_figure_2_are_the_costs_at_every_position(cells):
    """The references were written from formulas of their own; the blocks' costs are held against torch's counter elsewhere."""
    reference = cells.loc["figure_2"].paper_value
    for cost in cost_table().itertuples():
        row = reference[f"{cost.block} @ {GROUPS[cost.position - 1]}"]
        assert (row["parameters"], row["MACs"]) == (cost.parameters, cost.macs / 1e6)


def test_figure_3_states_the_positions_of_the_model(cells):
    figure = cells.loc["figure_3"]
    assert figure.loc[("network", "positions"), "paper_text"] == str(len(POSITIONS))
    for position, row in position_shapes().iterrows():
        reference = figure.paper_value[f"position {position}"]
        assert (reference[["C", "H", "W", "stage"]] == row[["C", "H", "W", "stage"]]).all()


def test_table_1_is_whole_and_the_papers_arithmetic_holds(cells):
    table = cells.loc["table_1"]
    cited = table[table.source == "cited"].index.unique("row").tolist()   # the loss without attention, from the text
    assert cited == ["ResNet-50 (circle loss)"]
    table = table.drop(index=cited, level="row")
    printed = table[table.paper_text != ""]
    assert len(table.index.unique("row")) == 12 and len(printed) == 24
    assert (printed.paper_text.astype(float) == printed.paper_value).all()
    assert cells.loc[("figure_1", "ResNet-101", "latency"), "paper_value"] == 53.454
    best = cells.loc[("figure_1", "C-NL @ 6, 8, 14", "latency"), "paper_value"]
    assert round(best - 36.917, 3) == 1.706  # "only 1.706 ms slower"
    slow = table.xs("slow-down", level="column").paper_value
    assert round(100 * (slow["HAC @ 6, 8, 14"] - 1)) == 9 and round(100 * (slow["C-NL @ 6, 8, 14"] - 1)) == 5
    for (row, column), cell in table.xs("speed", level="column", drop_level=False).iterrows():
        assert slow[row] == pytest.approx(1000 / cell.paper_value / 36.917, abs=2e-4)


def test_what_figure_4_only_draws_has_no_number(cells):
    figure = cells.loc["figure_4"]
    drawn = figure[figure.note == "drawn, not printed"]
    assert len(drawn) == 2 * (3 * 17 - 3)  # HAC @ 8, AGW @ 7 and C-NL @ 8 stand in Table I
    assert drawn.paper_value.isna().all() and (drawn.paper_text == "").all()
    assert len(figure.index.unique("row")) == 2 + 6 * 17
