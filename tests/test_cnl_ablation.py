"""The ablation: each variant is one choice away from the default, costs what the facts say, and shares Table I's run."""
import inspect

import pytest
import torch

from reid_nb.cells import paper_cells
from reid_nb.papers.cnl.ablation import ABLATION, CHOICES, DEFAULT, EVERYWHERE, RAW, changed, everywhere_jobs, raw_jobs, trained
from reid_nb.papers.cnl.blocks import CNL
from reid_nb.papers.cnl.network import network_cost, resnet_with_attention
from reid_nb.papers.cnl.variants import SIZES
from reid_nb.plans import PRESETS, load_plan
from reid_nb.recipes import build_model


def test_every_variant_is_one_choice_away_from_the_default():
    defaults = {name: p.default for name, p in inspect.signature(CNL).parameters.items() if name != "channels"}
    for variant in ABLATION[1:]:
        assert len(variant.block_args) == 1 and set(variant.block_args) <= set(defaults)
        assert all(defaults[name] != value for name, value in variant.block_args.items())
        assert (variant.block, variant.positions) == ("cnl", (6, 8, 14))
    assert len({variant.row for variant in ABLATION}) == len(ABLATION) == 7


@pytest.mark.parametrize("variant, parameters", [(changed("reduction 1"), 6_303_744), (DEFAULT, 3_154_944), (changed("reduction 16"), 399_744)],
                         ids=lambda each: getattr(each, "row", ""))
def test_added_parameters_are_those_of_an_independent_count(variant, parameters):
    """The counts were made by another counter on another implementation of the block."""
    assert network_cost(**variant.model_args).parameters - network_cost().parameters == parameters


def test_cells_hold_what_the_networks_count():
    cells = paper_cells("cnl", "ablation").set_index(["row", "column"])["paper_value"]
    plain = network_cost()
    assert list(dict.fromkeys(cells.index.get_level_values(0))) == [*(variant.row for variant in [*ABLATION, *EVERYWHERE]), *RAW]
    for variant in [*ABLATION, *EVERYWHERE]:
        cost = network_cost(**variant.model_args)
        assert cells[variant.row, "added parameters"] == cost.parameters - plain.parameters
        assert cells[variant.row, "added MACs"] == pytest.approx((cost.macs - plain.macs) / 1e6, abs=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_the_default_as_table_1_does(preset):
    plan = load_plan("cnl", preset)
    needs, table = plan.artefact("ablation").needs, plan.artefact("table_1").needs
    assert "c-nl-6-8-14-s0" in set(needs) & set(table)
    assert sum(plan.job(name).kind == "train" for name in needs) == (len(trained(preset)) + (len(RAW) + len(EVERYWHERE)) * (plan.seeds > 1)) * plan.seeds
    assert not plan.artefact("ablation").core and trained(preset)[0] == DEFAULT


def test_a_measured_network_is_the_one_that_is_trained():
    plan = load_plan("cnl", "mini")
    measured = plan.job("ablation-latency").candidates
    assert list(measured)[0] == "ResNet-50" and list(measured)[1:] == [variant.row for variant in ABLATION]
    for variant in trained("mini"):
        recipe = plan.job([name for name in plan.artefact("ablation").needs if plan.jobs[name].kind == "train"
                           and plan.jobs[name].recipe.name == variant.row][0]).recipe
        assert {**measured[variant.row][1], "width": 0.25} == recipe.model_args


def test_a_block_in_front_of_the_network_is_trained_from_the_same_trunk():
    plain = load_plan("cnl", "night").job("resnet-50-s1")
    for job in raw_jobs("night", SIZES["night"], 3):
        network, names = build_model(job.recipe, 4), set(build_model(plain.recipe, 4).state_dict())
        assert (job.data, job.start, job.recipe.epochs, job.recipe.losses) == (plain.data, f"trunk-s{job.seed}", plain.recipe.epochs, plain.recipe.losses)
        added = set(network.state_dict()) - names
        assert names <= set(network.state_dict()) and all(name.startswith("trunk.attention.0.") for name in added)
        pictures = torch.rand(2, 3, 64, 32)
        seen = []
        network.trunk.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network.eval()(pictures)
        assert torch.equal(seen[0], network.trunk.attention["0"](pictures))


def test_attention_after_every_block_stands_at_all_but_the_stem():
    assert all(each.positions == tuple(range(2, 18)) for each in EVERYWHERE) and [each.block for each in EVERYWHERE] == ["agw", "cnl"]
    assert len(resnet_with_attention(**EVERYWHERE[1].model_args, width=0.25).attention) == 16
    pairs = {job.name for job in load_plan("cnl", "night", 1).jobs.values()} - {job.name for job in everywhere_jobs("night", SIZES["night"], 1)}
    assert not pairs & {job.name for job in everywhere_jobs("night", SIZES["night"], 3)}, "no other job has these names"
    assert everywhere_jobs("mini", SIZES["mini"], 1) == [] == everywhere_jobs("smoke", SIZES["smoke"], 1)


@pytest.mark.parametrize("choice", CHOICES)
def test_only_the_gate_changes_an_untrained_network(choice):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 32)
    trunk = resnet_with_attention(width=0.25)
    network = resnet_with_attention(**changed(choice).model_args, width=0.25)
    network.load_state_dict(trunk.state_dict(), strict=False)
    with torch.inference_mode():
        same = torch.allclose(trunk.eval()(images), network.eval()(images), atol=1e-5)
    assert same == (choice != "gate")
