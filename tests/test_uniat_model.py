"""MS-ReID and its experts: published counts, the equations written out, and what weights of other networks become."""
import copy

import pytest
import torch
from timm.layers import SwiGLU
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

from reid_nb.backbones import count_parameters, load_matching
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.uniat import model as model_module
from reid_nb.papers.uniat.experts import EXPERTS, LAYOUTS, Experts, Gate, added_parameters, grouped, layout
from reid_nb.papers.uniat.model import (PAPER_CLASSES, ScenarioHeads, inventory, multiply_adds, paper_size, vit_trunk)
from reid_nb.papers.uniat.scenarios import IR, PAPER, RELEASED, RGB, SEEN, Switches, attributes, scenario_of, switches_of
from reid_nb.protocols import SCENARIOS
from reid_nb.recipes import Recipe, build_criterion, build_model
from reid_nb.transforms import MODALITIES, Classes
from reid_nb.vision_transformers import plain_vit, resize_positions

TINY = {"image_size": (64, 32), "embed_dim": 48, "depth": 2, "num_heads": 2}
CLASSES = Classes(3, 5, (0, 0, 1, 1, 2))
IMAGES = torch.randn(5, 3, 64, 32, generator=torch.Generator().manual_seed(1))
# Counted on the authors' definitions: parameters at 135 persons and 486 outfits, the ratio, and what Table 2 prints.
TABLE_2 = {"mmoe-6": (427_540_992, 4.9002, 4.90), "mmoe-12": (767_887_872, 8.8011, 8.80), "ple-6": (427_264_512, 4.8970, 4.90),
           "ple-7": (483_988_992, 5.5472, 5.56), "ple-12": (767_611_392, 8.7979, 8.80), "vlmo-3": (257_256_960, 2.9485, 2.95),
           "vlmo-6": (427_319_808, 4.8977, 4.90), "vlmo-12": (767_445_504, 8.7960, 8.80), "moae-6": (228_936_192, 2.6239, 2.62),
           "moae-12": (370_650_624, 4.2482, 4.25)}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, so that nothing agrees by starting equal."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.15)
    return module.eval()


def at_paper_size(*args, **kwargs) -> ScenarioHeads:
    with torch.device("meta"):
        return paper_size(*args, **kwargs)


# ---- counts

def test_parameters_at_paper_size():
    """87,249,408 and 370,650,624 with the code's idle gates, 55,296 fewer without; 4,608 biases are frozen."""
    base = at_paper_size(switches="released")
    assert count_parameters(base) == 87_249_408
    assert sum(p.numel() for p in base.parameters() if p.requires_grad) == 87_244_800
    assert count_parameters(at_paper_size()) == 87_194_112
    assert count_parameters(at_paper_size(tokens=1, switches="released")) == 87_195_648
    with_experts = at_paper_size("moae-12", switches="released")
    assert count_parameters(with_experts) == 370_650_624
    assert count_parameters(at_paper_size("moae-6")) == 87_194_112 + added_parameters("moae-6")
    assert sum(p.numel() for p in with_experts.parameters() if p.requires_grad) == 370_646_016


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_parameters(name):
    """Counted on the network and by formula; nine of ten ratios round to the printed one, PLE 7 to 5.55 (printed 5.56)."""
    total, ratio, printed = TABLE_2[name]
    assert count_parameters(at_paper_size(name, switches="released")) == total
    assert 87_249_408 + added_parameters(name, switches=RELEASED) == total
    assert round(total / 87_249_408, 4) == ratio
    assert (round(ratio, 2) == printed) == (name != "ple-7")


def test_state_of_the_base_has_the_published_shapes():
    state = {name: tuple(tensor.shape) for name, tensor in at_paper_size(switches="released").state_dict().items()}
    assert state["trunk.vit.cls_token"] == (1, 6, 768) and state["trunk.vit.pos_embed"] == (1, 134, 768)
    assert state["trunk.vit.patch_embed.proj.weight"] == (768, 3, 16, 16)
    assert state["trunk.vit.blocks.11.attn.qkv.weight"] == (2304, 768) and "trunk.vit.blocks.12.norm1.weight" not in state
    assert state["trunk.vit.blocks.0.mlp.fc1.weight"] == (3072, 768) and state["trunk.vit.blocks.0.mlp.gate.weight"] == (6, 1, 768)
    assert [state[f"classifiers.{s}.weight"][0] for s in range(6)] == [486, 135] * 3


def test_the_inventory_counts_everything_once():
    for experts in (None, "moae-12"):
        model = at_paper_size(experts)
        assert sum(size for _, _, size in inventory(model)) == count_parameters(model)


def test_multiply_adds_at_paper_size():
    """11.788 G (published 11.789 with the idle gates computed): two blocks of full width are counted, the rest follows."""
    torch.manual_seed(0)
    one, two = (multiply_adds(vit_trunk(depth=depth)) for depth in (1, 2))
    assert round((one + 11 * (two - one)) / 1e9, 3) == 11.788


def test_chosen_experts_cost_no_more_than_one_ffn():
    """Whatever the number of experts: the arithmetic is that of one FFN and of the gates."""
    plain = multiply_adds(vit_trunk(**TINY), (64, 32))
    for name in EXPERTS:
        gates = TINY["depth"] * 6 * LAYOUTS[name].choices * TINY["embed_dim"] if LAYOUTS[name].choices > 1 else 0
        assert multiply_adds(vit_trunk(**TINY, experts=name), (64, 32)) == plain + gates


# ---- layouts

def test_attributes_are_what_experts_share():
    """Two scenarios share layers of MoAE exactly where their names agree, and as many."""
    for name, each in (("moae-6", 1), ("moae-12", 2)):
        chosen = LAYOUTS[name]
        reached = [{("first", chosen.experts[e][0]) for e in seen} | {("second", chosen.experts[e][1]) for e in seen} for seen in chosen.seen]
        for a in range(6):
            for b in range(6):
                assert len(reached[a] & reached[b]) == each * len(set(attributes(a)) & set(attributes(b)))


def test_layouts_have_as_many_experts_as_their_names_say():
    for name, chosen in LAYOUTS.items():
        assert len(chosen.experts) == int(name.split("-")[1])
        assert len({len(seen) for seen in chosen.seen}) == 1 and {e for seen in chosen.seen for e in seen} == set(range(len(chosen.experts)))


def test_unknown_layout_is_named():
    with pytest.raises(UsageError, match="moae-21.*Did you mean 'moae-12'"):
        layout("moae-21")


# ---- experts

def small_experts(name, switches=PAPER):
    return randomised(Experts(name, nn.Linear(8, 32), nn.Linear(32, 8), nn.GELU(), switches))


def one_by_one(experts, tokens, kind):
    """Equations 3 to 5 with loops over images and scenarios; every expert is computed."""
    result = torch.zeros_like(tokens)
    for i in range(len(tokens)):
        for s, seen in enumerate(experts.layout.seen):
            token = tokens[i, s]
            outputs = [experts.second[b](F.gelu(experts.first[a](token))) for a, b in (experts.layout.experts[e] for e in seen)]
            chances = torch.softmax(experts.gate.weight[s] @ token, 0) if len(seen) > 1 else torch.ones(1)
            best = int(chances.argmax())
            factor = chances[best] if kind == "softmax" and len(seen) > 1 else 1
            result[i, s] = factor * outputs[best]
    return result


@pytest.mark.parametrize("kind", ["softmax", "renormalised"])
@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_grouped_experts_are_the_equations(name, kind):
    experts, tokens = small_experts(name, Switches(gate=kind)), torch.randn(7, 6, 8)
    torch.testing.assert_close(experts(tokens), one_by_one(experts, tokens, kind))


def test_gradients_are_those_of_the_equations():
    """Also for layers that nobody chose: zero, not absent."""
    tokens = torch.randn(2, 6, 8)
    for name in ("moae-12", "mmoe-12"):
        ours, truth = small_experts(name), small_experts(name)
        ours(tokens).square().sum().backward()
        one_by_one(truth, tokens, "softmax").square().sum().backward()
        for (part, a), b in zip(ours.named_parameters(), truth.parameters(), strict=True):
            torch.testing.assert_close(a.grad, torch.zeros_like(a) if b.grad is None else b.grad, msg=lambda text: f"{part}: {text}")


@pytest.mark.parametrize("kind, learns", [("softmax", True), ("renormalised", False)])
def test_the_gate_learns_only_if_it_multiplies(kind, learns):
    """The released gate: gradient about 1e-8 of the others', measured as 1.3e-8 against 0.68 in the authors' code."""
    experts = small_experts("moae-12", Switches(gate=kind))
    experts(torch.randn(32, 6, 8)).square().sum().backward()
    ratio = experts.gate.weight.grad.abs().max() / experts.first[0].weight.grad.abs().max()
    assert (ratio > 1e-3) if learns else (ratio < 1e-6)


def test_a_tie_silences_the_released_gate_alone():
    tokens = torch.randn(3, 6, 8)
    for kind, factor in (("softmax", 0.5), ("renormalised", 0.0)):
        gate = Gate(6, 2, 8, kind)
        nn.init.zeros_(gate.weight)
        assert (gate(tokens)[1] == factor).all()


def test_grouping_copes_with_empty_groups():
    layers = nn.ModuleList(nn.Linear(3, 2) for _ in range(3))
    which = torch.tensor([2, 2, 2])
    torch.testing.assert_close(grouped(layers, torch.ones(3, 3), which, [0, 0, 3]), layers[2](torch.ones(3, 3)))


# ---- trunk

def test_without_experts_it_is_timms_vit():
    """One token: the same features as timm's own network, weights and all."""
    torch.manual_seed(0)
    trunk = randomised(vit_trunk(**TINY, tokens=1))
    vit = plain_vit("vit_base_patch16_224", drop_path=0.2, **TINY).eval()
    vit.load_state_dict(trunk.vit.state_dict())
    torch.testing.assert_close(trunk(IMAGES)[:, 0], vit(IMAGES)[:, 0])
    assert isinstance(vit.blocks[0], Block) and vit.norm.eps == 1e-6
    assert [getattr(block.drop_path1, "drop_prob", 0) for block in vit.blocks] == pytest.approx([0, 0.2])


def test_patches_pass_the_ffn_and_tokens_the_experts():
    """A block by hand: attention over all 14 tokens, then FFN for the eight patches and experts for the six tokens, one residual."""
    trunk = randomised(vit_trunk(**TINY, experts="moae-12"))
    block, x = trunk.vit.blocks[0], torch.randn(2, 14, 48)
    middle = x + block.attn(block.norm1(x))
    normed = block.norm2(middle)
    by_hand = torch.cat([block.mlp.experts(normed[:, :6]), block.mlp.fc2(F.gelu(block.mlp.fc1(normed[:, 6:])))], 1)
    torch.testing.assert_close(block(x), middle + by_hand)


@pytest.mark.parametrize("experts", [None, *sorted(EXPERTS)])
def test_every_trunk_trains(experts):
    torch.manual_seed(0)
    model = ScenarioHeads(vit_trunk(**TINY, experts=experts), CLASSES).train()
    output = model(IMAGES)
    assert output.features.shape == output.embeddings.shape == (5, 6, 48)
    assert [logits.shape[1] for logits in output.logits] == [5, 3] * 3
    sum(logits.square().sum() for logits in output.logits).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.eval()(IMAGES).shape == (5, 6, 48)


def test_embeddings_are_six_separate_bnnecks():
    model = ScenarioHeads(randomised(vit_trunk(**TINY)), CLASSES).train()
    nn.init.normal_(model.trunk.vit.cls_token)
    output = model(IMAGES)
    for s in range(6):
        neck = nn.BatchNorm1d(48)
        neck.weight.data = model.neck.weight.data[48 * s:48 * (s + 1)]
        torch.testing.assert_close(output.embeddings[:, s], neck(output.features[:, s]), rtol=1e-4, atol=1e-4)


def test_one_unified_feature_stands_on_all_heads():
    model = ScenarioHeads(randomised(vit_trunk(**TINY, tokens=1)), CLASSES).train()
    features = model(IMAGES).features
    assert torch.equal(features, features[:, :1].expand(-1, 6, -1))


def test_a_copy_is_independent():
    """deepcopy (used for checkpoints and exports) copies experts and the loading hook's module, too."""
    trunk = randomised(vit_trunk(**TINY, experts="moae-6"))
    other = copy.deepcopy(trunk)
    randomised(other, seed=1)
    assert not torch.allclose(trunk(IMAGES), other(IMAGES))


# ---- weights

def test_pretrained_weights_become_six_tokens_and_equal_experts(tmp_path):
    torch.manual_seed(0)
    plain = randomised(plain_vit("vit_base_patch16_224", (224, 224), 0.0, embed_dim=48, depth=2, num_heads=2))
    torch.save(plain.state_dict() | {"head.weight": torch.zeros(7, 48), "head.bias": torch.zeros(7)}, tmp_path / "vit.pth")
    trunk = vit_trunk(**TINY, experts="moae-12", weights=tmp_path / "vit.pth")
    vit, before = trunk.vit, plain.state_dict()
    assert torch.equal(vit.cls_token, before["cls_token"].expand(-1, 6, -1))
    assert torch.equal(vit.pos_embed[:, :6], before["pos_embed"][:, :1].expand(-1, 6, -1)) and vit.pos_embed.shape[1] == 6 + 8
    for number, block in enumerate(vit.blocks):
        for layers, source in ((block.mlp.experts.first, "fc1"), (block.mlp.experts.second, "fc2")):
            for layer in [*layers, getattr(block.mlp, source)]:
                assert torch.equal(layer.weight, before[f"blocks.{number}.mlp.{source}.weight"])
                assert torch.equal(layer.bias, before[f"blocks.{number}.mlp.{source}.bias"])


def test_positions_are_resized_like_an_image():
    """Against torch's bicubic resizing of each channel by itself; a table of the right size stays."""
    table = torch.randn(1, 1 + 14 * 14, 4)
    resized = resize_positions(table, (16, 8))
    assert torch.equal(resized[:, 0], table[:, 0])
    for channel in range(4):
        image = table[0, 1:, channel].view(1, 1, 14, 14)
        torch.testing.assert_close(resized[0, 1:, channel].view(16, 8), F.interpolate(image, (16, 8), mode="bicubic")[0, 0])
    assert resize_positions(table, (14, 14)) is table
    with pytest.raises(ReidError, match="130 patches"):
        resize_positions(torch.zeros(1, 131, 4), (16, 8))


def test_a_warm_start_without_experts_starts_them_as_its_ffn(tmp_path):
    trained = ScenarioHeads(randomised(vit_trunk(**TINY)), CLASSES).eval()
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    model = ScenarioHeads(vit_trunk(**TINY, experts="ple-6"), CLASSES).eval()
    loaded = load_matching(model, tmp_path / "trained.pth")
    assert not loaded.unused and all(".experts." in name for name in loaded.fresh)
    torch.testing.assert_close(model(IMAGES), trained(IMAGES))


def test_experts_of_a_file_are_kept(tmp_path):
    """The hook helps only weights without experts."""
    trained = randomised(vit_trunk(**TINY, experts="moae-12"))
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    model = vit_trunk(**TINY, experts="moae-12").eval()
    assert load_matching(model, tmp_path / "trained.pth").fresh == []
    torch.testing.assert_close(model(IMAGES), trained(IMAGES))


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = plain_vit("vit_base_patch16_224", (64, 32), 0.0, embed_dim=32, depth=2, num_heads=2).state_dict()
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(ReidError, match="narrow.pth: cls_token has the shape .1, 1, 32."):
        vit_trunk(**TINY, weights=tmp_path / "narrow.pth")
    with pytest.raises(ReidError, match="is missing"):
        vit_trunk(**TINY, weights=tmp_path / "nowhere.pth")


def test_imagenet_weights_are_taken_from_the_cache_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ReidError, match="vit_base_patch16_224.orig_in21k_ft_in1k.*Nothing is downloaded by itself"):
        vit_trunk(**TINY, weights="imagenet")
    cached = tmp_path / "cached.pth"
    torch.save(plain_vit("vit_base_patch16_224", (64, 32), 0.0, embed_dim=48, depth=2, num_heads=2).state_dict(), cached)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(cached))
    assert torch.equal(vit_trunk(**TINY, weights="imagenet").vit.norm.weight, torch.load(cached)["norm.weight"])


# ---- bad arguments

@pytest.mark.parametrize("arguments, told", [
    ({"name": "vit_of_my_dreams"}, "vit_of_my_dreams"), ({"name": "resnet18"}, "resnet18 is no Vision Transformer"),
    ({"name": "vit_base_patch14_reg4_dinov2"}, "one CLS token"), ({"experts": "moae-7"}, "moae-7"), ({"experts": "moae-6", "tokens": 1}, "tokens=6"),
    ({"switches": "paperr"}, "Did you mean 'paper'"), ({"switches": {"gates": 1}}, "gates"), ({"switches": {"gate": "hard"}}, "renormalised"),
    ({"experts": "moae-6", "mlp_layer": SwiGLU}, "SwiGLU")])
def test_bad_arguments_are_usage_errors(arguments, told):
    size = {"image_size": (56, 28)} if "14" in arguments.get("name", "") else {}
    with pytest.raises(UsageError, match=told):
        vit_trunk(**TINY | size | arguments)


def test_heads_need_one_token_or_six():
    with pytest.raises(UsageError, match="3 tokens"):
        ScenarioHeads(vit_trunk(**TINY, tokens=3), CLASSES)


# ---- scenarios and classes

def test_scenarios_keep_the_papers_order():
    assert SCENARIOS == ("DT-ST", "DT-LT", "NT-ST", "NT-LT", "AD-ST", "AD-LT")
    assert SEEN == {"DT": (RGB,), "NT": (IR,), "AD": (RGB, IR)} and (RGB, IR) == (0, 1)
    assert scenario_of("ir", "ir", True) == "NT-ST" and scenario_of("rgb", "ir", False) == "AD-LT" and scenario_of() == "AD-LT"
    with pytest.raises(UsageError, match="thermal"):
        scenario_of("thermal")


def test_a_recipe_names_model_head_and_criterion():
    """As the library's training builds them: import paths, and keyword arguments as data."""
    recipe = Recipe("Uni-AT", "reid_nb.papers.uniat.model:vit_trunk", TINY | {"experts": "moae-12", "switches": "released"},
                    {"said": True, "hdw": True, "switches": {"detach": False}}, head="reid_nb.papers.uniat.model:ScenarioHeads",
                    criterion="reid_nb.papers.uniat.losses:build", image_size=(64, 32))
    model = build_model(recipe, CLASSES).train()
    criterion = build_criterion(recipe, CLASSES, model.num_features)
    targets = {"pid": torch.tensor([0, 1, 1, 2, 0]), "clothes": torch.tensor([1, 2, 3, 4, 0]), "modality": torch.tensor([0, 0, 1, 1, 1])}
    total, parts = criterion(model(IMAGES), targets)
    total.backward()
    assert torch.isfinite(total) and parts["skipped"] == 0 and criterion.switches == Switches(detach=False)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_modalities_are_numbered_as_in_batches():
    assert MODALITIES[RGB] == "rgb" and MODALITIES[IR] == "ir"


def test_switches_of_the_presets():
    """Where paper and code differ: every switch has two sides."""
    assert switches_of("paper") == PAPER == Switches() and switches_of({"detach": False}) == Switches(detach=False)
    assert all(getattr(PAPER, name) != getattr(RELEASED, name) for name in PAPER.__dataclass_fields__)
    assert PAPER_CLASSES.clothes == len(PAPER_CLASSES.owners) == 486 and set(PAPER_CLASSES.owners) == set(range(135))
    assert model_module.PAPER is PAPER
