"""SAID, HDW and the baseline: the authors' values, the formulas by loops, and batches that lack something."""
import math
from types import SimpleNamespace

import pytest
import torch

from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.uniat.losses import ScenarioLoss, attribute_weights, build, hdw, scenario_losses, without_own_outfits
from reid_nb.papers.uniat.scenarios import PAPER, RELEASED, Switches, class_count
from reid_nb.protocols import SCENARIOS
from reid_nb.transforms import Classes

CLASSES = Classes(3, 6, (0, 0, 1, 1, 1, 2))
OWNERS = torch.tensor(CLASSES.owners)
TARGETS = {"pid": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), "clothes": torch.tensor([0, 1, 0, 1, 2, 3, 4, 2]),
           "modality": torch.tensor([0, 0, 1, 1, 0, 0, 0, 1])}
NOT_DETACHED = RELEASED
DETACHED = Switches(RELEASED.gate, RELEASED.idle_gates, RELEASED.same_person, RELEASED.scenario_mean, RELEASED.relative, detach=True)
# Computed with the authors' code: loss, and the norm of the gradient at each head's logits.
GOLDEN = [
    (False, False, NOT_DETACHED, 16.042261, [.365323, .296632, .376783, .310216, .378768, .384660]),
    (False, True, NOT_DETACHED, 14.570903, [.352817, .411658, .378049, .413987, .346335, .283537]),
    (True, False, NOT_DETACHED, 11.575427, [.450352, .375100, .548843, .552180, .258041, .384660]),
    (True, True, NOT_DETACHED, 7.058805, [.362894, .224302, .160380, .226452, .430617, .374097]),
    (True, True, DETACHED, 7.058805, [.253977, .220890, .197103, .207067, .235900, .367199]),
]


def golden_logits(dtype=torch.float32):
    image = torch.arange(1, 9, dtype=torch.float64)[:, None]
    waves = [torch.sin(0.37 * image * torch.arange(1, class_count(CLASSES, s) + 1, dtype=torch.float64) * (s + 1)) for s in range(6)]
    return [(3 * wave).to(dtype).requires_grad_() for wave in waves]


def loss_of(logits, targets=TARGETS, said=True, hdw=True, switches=PAPER):
    return ScenarioLoss(said, hdw, CLASSES, switches)(SimpleNamespace(logits=logits), targets)


@pytest.mark.parametrize("said, weighted, switches, loss, norms", GOLDEN)
def test_values_of_the_released_code(said, weighted, switches, loss, norms):
    """To the printed digits; the last one of a loss above 8 is float32's own."""
    logits = golden_logits()
    total, _ = loss_of(logits, said=said, hdw=weighted, switches=switches)
    total.backward()
    assert total.item() == pytest.approx(loss, abs=1.5e-6)
    assert [scores.grad.norm().item() for scores in logits] == pytest.approx(norms, abs=6e-7)


def test_weights_and_means_of_the_released_code():
    losses = scenario_losses(golden_logits(), TARGETS, OWNERS, RELEASED)
    moments, intervals = attribute_weights(losses)
    assert moments.tolist() == pytest.approx([.793500, .842167, .803940], abs=6e-7)
    assert intervals.tolist() == pytest.approx([.790368, .825307], abs=6e-7)
    assert [loss.mean().item() for loss in losses] == pytest.approx([2.252912, 1.142017, 1.982183, 2.523258, 1.250926, 2.424130], abs=1.2e-6)


def by_loops(logits, targets, switches):
    """Equations 1 to 9, sample by sample and class by class, in plain Python."""
    losses = []
    for s in range(6):
        values, moment, short = [], s // 2, s % 2 == 0
        for i in range(len(targets["pid"])):
            if moment < 2 and int(targets["modality"][i]) != moment:
                continue
            right = int(targets["clothes" if short else "pid"][i])
            denominator = 0.0
            for j in range(logits[s].shape[1]):
                own = short and CLASSES.owners[j] == int(targets["pid"][i]) and j != right
                if not own:
                    denominator += math.exp(float(logits[s][i, j]))
                elif switches.same_person == "constant":
                    denominator += math.exp(-10)
            values.append(math.log(denominator) - float(logits[s][i, right]))
        losses.append(values)
    root = lambda groups: [math.sqrt(1 - sum(math.exp(-v) for v in group) / len(group)) if group else 0.0 for group in groups]
    tm = root([losses[2 * k] + losses[2 * k + 1] for k in range(3)])
    ti = root([losses[k] + losses[k + 2] + losses[k + 4] for k in range(2)])
    if switches.relative:
        tm, ti = [w / max(tm) for w in tm], [w / max(ti) for w in ti]
    divide = lambda s: (len(losses[s]) if switches.scenario_mean else len(targets["pid"])) or 1
    return sum(tm[s // 2] * ti[s % 2] * sum(losses[s]) / divide(s) for s in range(6))


@pytest.mark.parametrize("switches", [PAPER, RELEASED, Switches(relative=True), Switches(scenario_mean=False), Switches(same_person="constant")])
def test_the_equations_by_loops(switches):
    torch.manual_seed(0)
    logits = [2 * torch.randn(8, class_count(CLASSES, s), dtype=torch.float64) for s in range(6)]
    assert loss_of(logits, switches=switches)[0].item() == pytest.approx(by_loops(logits, TARGETS, switches), rel=1e-9)
    ir = {**TARGETS, "modality": torch.ones(8, dtype=torch.int64)}
    assert loss_of(logits, ir, switches=switches)[0].item() == pytest.approx(by_loops(logits, ir, switches), rel=1e-9)


@pytest.mark.parametrize("switches", [PAPER, RELEASED])
@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("modality", [0, 1])
def test_a_batch_of_one_modality_is_finite_and_counted(modality, said, switches):
    """The authors' code gives NaN for infrared alone, and gradients that are not finite for RGB alone."""
    logits = golden_logits()
    total, parts = loss_of(logits, {**TARGETS, "modality": torch.full((8,), modality)}, said=said, switches=switches)
    total.backward()
    assert torch.isfinite(total) and all(torch.isfinite(scores.grad).all() for scores in logits)
    skipped = [s for s, scores in enumerate(logits) if not scores.grad.any()]
    assert skipped == ([[2, 3], [0, 1]][modality] if said else []) and parts["skipped"] == len(skipped)
    assert all(parts[SCENARIOS[s]] == 0 for s in skipped)


@pytest.mark.parametrize("switches", [PAPER, RELEASED])
def test_certainty_is_finite(switches):
    """All answers right with certainty: confidence 1, a root at 0, and no infinite slope."""
    logits = [200 * torch.eye(class_count(CLASSES, s))[TARGETS["clothes" if s % 2 == 0 else "pid"]] for s in range(6)]
    logits = [scores.requires_grad_() for scores in logits]
    total, _ = loss_of(logits, switches=switches)
    total.backward()
    assert torch.isfinite(total) and all(torch.isfinite(scores.grad).all() for scores in logits)


def test_own_other_outfits_get_no_gradient():
    for switches in (PAPER, RELEASED):
        logits = golden_logits()
        loss_of(logits, hdw=False, switches=switches)[0].backward()
        for s in (0, 2, 4):
            own = (OWNERS[None] == TARGETS["pid"][:, None]).scatter(1, TARGETS["clothes"][:, None], False)
            assert not logits[s].grad[own].any()
        assert logits[4].grad[~own].all()


def test_an_image_teaches_the_scenarios_of_its_modality():
    logits = golden_logits()
    loss_of(logits, hdw=False)[0].backward()
    rgb = TARGETS["modality"] == 0
    for s, taught in enumerate([rgb, rgb, ~rgb, ~rgb, rgb | True, rgb | True]):
        assert torch.equal(logits[s].grad.any(1), taught)


def test_the_baseline_asks_every_head_for_the_person():
    logits = golden_logits()
    total, parts = loss_of(logits, said=False, hdw=False)
    expected = sum(torch.nn.functional.cross_entropy(scores, TARGETS["pid"]) for scores in logits)
    torch.testing.assert_close(total, expected)
    assert parts["skipped"] == 0 and sum(parts[name].item() for name in SCENARIOS) == pytest.approx(total.item())


def test_a_person_with_one_outfit_is_an_ordinary_class():
    scores = torch.randn(3, 6)
    assert torch.equal(without_own_outfits(scores, torch.tensor([5, 5, 5]), OWNERS), scores)


def test_weights_fall_with_confidence_and_are_shared():
    losses = [torch.full((4,), 1.0) for _ in range(6)]
    before, easy = hdw(losses), [torch.full((4,), 0.1), *losses[1:]]
    change = hdw(easy) - before
    assert change[0] < 0 and (change[[1, 2, 4]] < 0).all() and (change[[3, 5]] == 0).all()
    assert change[0] == change.min() and (before > 0).all() and (before < 1).all()


def test_the_relative_weights_have_a_largest_of_one():
    torch.manual_seed(0)
    losses = [torch.rand(4) for _ in range(6)]
    assert hdw(losses, RELEASED).max() == 1 and hdw(losses).max() < 1


def test_detached_weights_are_numbers():
    assert not hdw(scenario_losses(golden_logits(), TARGETS, OWNERS)).requires_grad
    assert hdw(scenario_losses(golden_logits(), TARGETS, OWNERS), RELEASED).requires_grad


def test_half_precision_is_widened():
    logits = [scores.detach() for scores in golden_logits()]
    half = [scores.to(torch.bfloat16) for scores in logits]
    with torch.autocast("cpu", torch.bfloat16):
        narrow = loss_of(half)[0]
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, loss_of([scores.float() for scores in half])[0])


def test_parts_always_have_the_same_names():
    """A history has one column a part, whatever a batch lacks."""
    rgb = {**TARGETS, "modality": torch.zeros(8, dtype=torch.int64)}
    assert list(loss_of(golden_logits())[1]) == list(loss_of(golden_logits(), rgb)[1])
    assert list(loss_of(golden_logits(), hdw=False)[1]) == [*SCENARIOS, "skipped"]


@pytest.mark.parametrize("wrong", [Classes(3, 5, (0, 0, 1, 1, 1, 2)), Classes(3, 3, (0, 0, 1))])
def test_classes_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ReidError, match="every outfit needs an owner"):
        ScenarioLoss(True, True, wrong)


def test_a_recipes_options_are_checked():
    assert build({}, CLASSES).said is False and build({"said": True, "switches": "released"}, CLASSES).switches == RELEASED
    with pytest.raises(UsageError, match="Did you mean 'said'"):
        build({"siad": True}, CLASSES)
