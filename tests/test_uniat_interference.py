"""What the experts take over: bits by hand and against scikit-learn, gradients one by one, and gates with and without a gradient."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import mutual_info_score
from test_training import day_and_night

from reid_nb import training
from reid_nb.errors import ReidError
from reid_nb.papers.uniat import interference
from reid_nb.papers.uniat.losses import ScenarioLoss
from reid_nb.papers.uniat.model import ScenarioHeads, vit_trunk
from reid_nb.papers.uniat.recipe import small
from reid_nb.protocols import SCENARIOS
from reid_nb.training import Learner
from reid_nb.transforms import Classes

CLASSES = Classes(4, 8, (0, 0, 1, 1, 2, 2, 3, 3))
TINY = {"name": "vit_tiny_patch16_224", "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "image_size": (32, 16), "drop_path": 0.0}


def learner(experts="moae-12", switches="paper", seed=0):
    torch.manual_seed(seed)
    trunk = vit_trunk(**TINY, experts=experts, switches=switches)
    return Learner(ScenarioHeads(trunk, CLASSES), ScenarioLoss(True, False, CLASSES, switches)).train()


def batch(count=16):
    outfit = torch.arange(count) // 2 % 8
    targets = {"pid": outfit // 2, "clothes": outfit, "modality": torch.arange(count) % 2}
    return torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(3)), targets


# ---- bits

def test_entropy_of_known_routings():
    routing = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]])   # images x blocks: none, half, all take the second expert
    assert interference.routing_entropy(routing) == pytest.approx((0 + 1 + 0) / 3)
    assert interference.entropy(np.array([1, 3])) == pytest.approx(2 - 0.75 * np.log2(3))
    assert interference.entropy(np.array([[5, 5], [7, 0]])).tolist() == [1, 0]


@pytest.mark.parametrize("values", [1, 2, 16])
def test_information_is_scikit_learns(values):
    rng = np.random.default_rng(values)
    attribute = rng.integers(0, values, 300)
    routing = np.stack([rng.random(300) < 0.2 + 0.6 * (attribute % 2), rng.random(300) < 0.5, np.zeros(300)], axis=1).astype(int)
    wanted = [mutual_info_score(attribute, each) / np.log(2) for each in routing.T]
    assert [interference.mutual_information(each, attribute) for each in routing.T] == pytest.approx(wanted, abs=1e-12)
    assert interference.routing_information(routing, attribute) == pytest.approx(np.mean(wanted), abs=1e-12)


def test_an_attribute_that_decides_has_all_of_the_entropy():
    modality = np.array(["rgb", "rgb", "rgb", "ir"])
    assert interference.mutual_information((modality == "ir").astype(int), modality) == pytest.approx(interference.entropy(np.array([3, 1])))


# ---- routing

@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(root / f"{number}.png")
    return pd.DataFrame({"path": [f"{number}.png" for number in range(5)]}), root


def test_choices_are_those_that_the_experts_take(pictures):
    """Image by image, by the numbers of the experts that `Experts.route` names."""
    table, root = pictures
    model, other = learner().model, learner(seed=1).model
    taken = []
    for experts in interference.expert_blocks(model):
        experts.register_forward_pre_hook(lambda module, inputs: taken.append(module.route(inputs[0])[0]))
    [found] = interference.choices(model, table, root, (32, 16))
    first = 2 * torch.arange(6)   # with twelve experts, scenario s sees 2s (moment first) and 2s + 1
    assert found.shape == (5, 2, 6) and (found == (torch.stack(taken, 1) - first).numpy()).all()
    assert model.training, "the network is left in the mode that it was in"
    own, others, again = interference.choices(model, table, root, (32, 16), gates=[other, model])
    assert (own == found).all() and (again == found).all() and (others != found).any()


@pytest.mark.parametrize("experts", [None, "moae-6"])
def test_a_network_without_a_choice_is_refused(experts):
    with pytest.raises(ReidError, match="no experts to choose from"):
        interference.expert_blocks(learner(experts).model)


def test_a_gate_has_a_gradient_by_the_paper_and_none_by_the_released_code():
    assert interference.gate_gradient(learner(), *batch()) > 1e-3
    assert interference.gate_gradient(learner(switches="released"), *batch()) < 1e-6


# ---- gradients

def test_cosines_are_those_of_gradients_taken_one_by_one():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    inputs = torch.randn(7, 5)
    loss = lambda number: layers(inputs)[:, number].square().mean() + layers[0](inputs)[:, number].sum()
    groups = [list(layers[0].parameters()), list(layers[2].parameters())]
    found = interference.gradient_cosines([loss(number) for number in range(3)], groups)
    for at, layer in enumerate((layers[0], layers[2])):
        vectors = []
        for number in range(3):
            layers.zero_grad()
            loss(number).backward()
            vectors.append(torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).numpy().copy())
        wanted = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in vectors] for a in vectors]
        assert found[at] == pytest.approx(np.array(wanted), abs=1e-5)


def test_a_loss_that_does_not_reach_a_group_has_no_direction_there():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    found = interference.gradient_cosines([a.sum(), (a * b).sum()], [[a], [b]])
    assert found[0] == pytest.approx(np.ones((2, 2))) and np.isnan(found[1]).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("experts", [None, "moae-12"])
def test_scenarios_losses_on_all_in_the_ffns_place(experts):
    """Against backward() on each scenario's loss, parameter by parameter, found by name."""
    network, (images, targets) = learner(experts), batch()
    found = interference.scenario_cosines(network, images, targets)
    assert found.shape == (2, 2, 6, 6)
    for block in range(2):
        for at, part in enumerate(("attn.", "mlp.")):
            vectors = []
            for scenario in SCENARIOS:
                network.zero_grad()
                network(images, targets)[1][scenario].backward()
                named = [(name, p) for name, p in network.named_parameters() if f"blocks.{block}.{part}" in name and ".gate." not in name]
                vectors.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for _, p in named]))
            unit = torch.nn.functional.normalize(torch.stack(vectors), dim=1)
            torch.testing.assert_close(torch.from_numpy(found[block, at]), unit @ unit.T, atol=1e-4, rtol=1e-3)


def test_in_the_last_block_experts_part_scenarios_without_a_common_attribute():
    """Where all images take the same order; opposite orders part scenarios with a common attribute as well."""
    network = learner()
    for experts in interference.expert_blocks(network.model):
        torch.nn.init.zeros_(experts.gate.weight)   # of equal scores the first wins
    last = interference.scenario_cosines(network, *batch())[-1, interference.PARTS.index("FFN")]
    for kind, pairs in interference.KINDS.items():
        for first, second in pairs if kind != "all pairs" else ():
            assert (last[first, second] == 0) == (kind == "nothing in common")


def test_fifteen_pairs_by_their_names():
    by_name = {"same moment": 0, "same interval": 0, "nothing in common": 0}
    for first, second in interference.PAIRS:
        (moment, interval), (other_moment, other_interval) = SCENARIOS[first].split("-"), SCENARIOS[second].split("-")
        kind = "same moment" if moment == other_moment else "same interval" if interval == other_interval else "nothing in common"
        assert (first, second) in interference.KINDS[kind]
        by_name[kind] += 1
    assert by_name == {"same moment": 3, "same interval": 6, "nothing in common": 6} and len(interference.KINDS["all pairs"]) == 15


def test_conflicts_are_negative_and_what_is_undefined_does_not_count():
    cosines = np.full((2, 6, 6), 0.5)
    cosines[0, 0, 1], cosines[1, 0, 1], cosines[0, 2, 3] = -0.5, np.nan, 0.0   # of "same moment": -0.5, 0, 0.5 and 0.5, 0.5
    found = interference.conflict_numbers(cosines, "same moment")
    assert found == pytest.approx({"mean cosine": 0.2, "conflicts": 20.0, "opposition": 0.1})
    assert interference.conflict_numbers(cosines, "nothing in common") == {"mean cosine": 0.5, "conflicts": 0.0, "opposition": 0.0}


# ---- a run's network and batches

@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What `learner_at` and `next_batches` ask of a session: a start, SAID and SAID + MoAE, each trained for two steps; and their data."""
    root = tmp_path_factory.mktemp("runs")
    dataset, size = day_and_night(tmp_path_factory.mktemp("colours")), {"embed_dim": 24, "depth": 2, "num_heads": 2, "image_size": [32, 16]}
    jobs, fast = {}, "trunk.vit.blocks.1 trunk.vit.norm neck classifiers"
    for name, start in (("Baseline", None), ("SAID", "Baseline"), ("SAID + MoAE", "Baseline")):
        recipe = small(name, 2, 1, identities=4, images=4)
        recipe = recipe.scaled(model_args=recipe.model_args | size, image_size=(32, 16), fast=fast)
        jobs[name] = SimpleNamespace(recipe=recipe, seed=5, start=start)
        training.train(recipe, dataset, 5, root / name, threads=1, start=root / start / "model.safetensors" if start else None, progress=False)
    return SimpleNamespace(plan=SimpleNamespace(job=jobs.get), run=lambda name: SimpleNamespace(folder=root / name)), dataset


def test_a_runs_network_is_the_trained_one_or_the_one_it_began_as(session):
    (session, dataset), weight = session, lambda model: model.trunk.vit.blocks[0].mlp
    trained, begun = (interference.learner_at(session, "SAID + MoAE", dataset, state).model for state in (True, False))
    kept, start = (training.load_trained(session.run(name).folder, "cpu") for name in ("SAID + MoAE", "Baseline"))
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), kept.state_dict().values()))
    assert torch.equal(weight(begun).experts.first[3].weight, weight(start).fc1.weight), "experts begin as copies of the start's FFN"
    assert not torch.equal(weight(begun).experts.gate.weight, weight(trained).experts.gate.weight)
    again = interference.learner_at(session, "SAID + MoAE", dataset, False).model
    assert torch.equal(weight(begun).experts.gate.weight, weight(again).experts.gate.weight), "the gates are those of the run's seed"


def test_networks_that_are_compared_get_the_same_batches_as_many_as_asked(session):
    session, dataset = session
    first, second = (interference.next_batches(session, name, dataset, 3) for name in ("SAID", "SAID + MoAE"))
    assert len(first) == 3 and len(first[0][0]) == 16
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1]["pid"], b[1]["pid"]) for a, b in zip(first, second))
    assert not torch.equal(first[0][0], first[1][0])
