"""Losses against plain loops, numbers worked out by hand and finite differences."""
import copy
import math

import pytest
import torch

from reid_nb import losses
from reid_nb.backbones import Output
from reid_nb.errors import UsageError

PIDS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def features():
    return torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist())))


def cosine(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist())) / (a.norm() * b.norm()).item()


# ---------------------------------------------------------------- cross-entropy
def test_cross_entropy_by_hand():
    # two classes, logits (log 3, 0): probabilities 3/4 and 1/4; smoothing 0.2 asks for 0.9 and 0.1
    logits, pids = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    assert losses.cross_entropy(logits, pids, smoothing=0.0).item() == pytest.approx(math.log(4 / 3))
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert losses.cross_entropy(logits, pids, smoothing=0.2).item() == pytest.approx(expected)


def test_cross_entropy_by_loops():
    logits = torch.randn(8, 4, dtype=torch.float64)
    total = 0.0
    for row, pid in zip(logits.tolist(), PIDS.tolist()):
        log_sum = math.log(sum(math.exp(x) for x in row))
        for k, x in enumerate(row):
            total -= ((0.9 if k == pid else 0) + 0.1 / 4) * (x - log_sum)
    assert losses.cross_entropy(logits, PIDS).item() == pytest.approx(total / 8)


def test_smoothing_bounds_the_wanted_logit_gap():
    """The minimum over the gap between the true logit and the others is at log((1 - e + e/N) N / e)."""
    gap = torch.tensor(math.log((0.9 + 0.1 / 4) * 4 / 0.1), dtype=torch.float64, requires_grad=True)
    logits = torch.stack([gap, gap * 0, gap * 0, gap * 0])[None]
    losses.cross_entropy(logits, torch.tensor([0]), smoothing=0.1).backward()
    assert abs(gap.grad.item()) < 1e-12


# ---------------------------------------------------------------- triplet
def test_triplet_by_hand():
    # on a line: identity 0 at 0 and 3, identity 1 at 4 and 9
    x, pids = torch.tensor([[0.0], [3.0], [4.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    # hardest positive - hardest negative: 3-4, 3-1, 5-1, 5-6, plus the margin 0.3, negatives cut at 0
    assert losses.triplet(x, pids).item() == pytest.approx((0 + 2.3 + 4.3 + 0) / 4)


def test_triplet_by_loops(features):
    total = 0.0
    for a in range(8):
        positive = max(distance(features[a], features[p]) for p in range(8) if PIDS[p] == PIDS[a])
        negative = min(distance(features[a], features[n]) for n in range(8) if PIDS[n] != PIDS[a])
        total += max(0.0, 0.5 + positive - negative)
    assert losses.triplet(features, PIDS, margin=0.5).item() == pytest.approx(total / 8)


def test_triplet_is_exact_for_close_features_of_large_norm():
    """Expanding |a-b|^2 loses such a distance to cancellation in float32."""
    x = torch.full((2, 2048), 1.0)
    x[1, 0] += 1e-3
    assert losses.triplet(x, torch.tensor([0, 1]), margin=1.0).item() == pytest.approx(1 - 1e-3, abs=1e-6)


# ---------------------------------------------------------------- center
def test_center_by_hand_and_its_gradient():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    centers = torch.tensor([[1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    value = losses.center(x, torch.tensor([0, 0, 1]), centers)
    assert value.item() == pytest.approx((1 + 5 + 4) / 3)
    value.backward()
    # 2/B times the sum of (center - feature) over the identity's images
    torch.testing.assert_close(centers.grad, 2 / 3 * torch.tensor([[-2.0, 2.0], [0.0, -2.0]]))


# ---------------------------------------------------------------- circle
def circle_by_loops(positives, negatives, m, gamma):
    """Sun et al., equation 6, for the similarities of one anchor."""
    push = sum(math.exp(gamma * max(0, s + m) * (s - m)) for s in negatives)
    pull = sum(math.exp(-gamma * max(0, 1 + m - s) * (s - (1 - m))) for s in positives)
    return math.log(1 + push * pull)


def test_circle_pairs_by_hand():
    # one positive at cosine 1, one negative at cosine 0, m = 0.25: exponents gamma * 0.25 * (0 - 0.25) and -gamma * 0.25 * 0.25
    x, pids = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
    assert losses.circle_pairs(x, pids, scale=8).item() == pytest.approx(math.log(1 + math.exp(-8 * 0.0625 * 2)))


def test_circle_pairs_by_loops(features):
    values = []
    for a in range(8):
        positives = [cosine(features[a], features[j]) for j in range(8) if PIDS[j] == PIDS[a] and j != a]
        negatives = [cosine(features[a], features[j]) for j in range(8) if PIDS[j] != PIDS[a]]
        if positives:   # identity 3 has one image: no anchor
            values.append(circle_by_loops(positives, negatives, m=0.3, gamma=16))
    assert len(values) == 7
    assert losses.circle_pairs(features, PIDS, margin=0.3, scale=16).item() == pytest.approx(sum(values) / 7)


def test_circle_classes_by_loops(features):
    weight = torch.randn(4, 5, dtype=torch.float64)
    values = [circle_by_loops([cosine(x, weight[pid])], [cosine(x, weight[k]) for k in range(4) if k != pid], 0.25, 64)
              for x, pid in zip(features, PIDS.tolist())]
    assert losses.circle_classes(features, weight, PIDS).item() == pytest.approx(sum(values) / 8)


def test_circle_classes_with_smoothing(features):
    """With labels smoothed over two classes, the loss is the mix of the losses for both labels' log-probabilities."""
    weight, pids = torch.randn(2, 5, dtype=torch.float64), PIDS % 2
    expected = 0.0
    for x, pid in zip(features, pids.tolist()):
        right = circle_by_loops([cosine(x, weight[pid])], [cosine(x, weight[1 - pid])], 0.25, 4)
        wrong = right - math.log(math.expm1(right))   # -log(1 - p) where right = -log p
        expected += 0.9 * right + 0.1 * wrong
    assert losses.circle_classes(features, weight, pids, scale=4, smoothing=0.2).item() == pytest.approx(expected / 8)


def test_circle_weights_are_constants_for_the_gradient():
    """The derivative towards a negative similarity is gamma (s + m) times its softmax share: alpha is not differentiated."""
    s, m, gamma = 0.4, 0.25, 8.0
    weight = torch.tensor([[1.0, 0.0], [s, math.sqrt(1 - s * s)]], dtype=torch.float64, requires_grad=True)
    losses.circle_classes(weight[:1].detach(), weight, torch.tensor([0]), scale=gamma).backward()
    z = gamma * ((s + m) * (s - m) - m * m)   # the positive lies at cosine 1: m (1 - (1 - m)) = m^2
    share = 1 / (1 + math.exp(-z))
    tangent = torch.tensor([1.0, 0.0]) - s * weight[1].detach()   # d cosine / d weight of a unit vector
    torch.testing.assert_close(weight.grad[1], share * gamma * (s + m) * tangent.double())


# ---------------------------------------------------------------- all of them
def cases(x, pids=PIDS, weight=None):
    """Every loss as a function of B x C features, with 4 x C class weights or centers."""
    weight = torch.linspace(-1, 1, 4 * x.shape[1], dtype=x.dtype).view(4, -1).sin() if weight is None else weight
    return {"cross_entropy": lambda f: losses.cross_entropy(f[:, :4], pids), "triplet": lambda f: losses.triplet(f, pids),
            "soft_triplet": lambda f: losses.soft_triplet(f, pids),
            "center": lambda f: losses.center(f, pids, weight), "circle_pairs": lambda f: losses.circle_pairs(f, pids),
            "circle_classes": lambda f: losses.circle_classes(f, weight, pids)}


@pytest.mark.parametrize("name", ["cross_entropy", "triplet", "soft_triplet", "center"])
def test_gradient_by_finite_differences(name, features):
    assert torch.autograd.gradcheck(cases(features)[name], features.requires_grad_())


@pytest.mark.parametrize("name", list(losses.LOSSES))
@pytest.mark.parametrize("x", [torch.ones(8, 6), torch.zeros(8, 6)], ids=["identical", "zero"])
def test_identical_embeddings_have_a_finite_gradient(name, x):
    x = x.clone().requires_grad_()
    value = cases(x)[name](x)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()
    if name == "triplet":
        assert value.item() == pytest.approx(0.3)


@pytest.mark.parametrize("pids", [torch.zeros(4, dtype=torch.long), torch.arange(4)], ids=["one identity", "one image each"])
@pytest.mark.parametrize("name", ["triplet", "soft_triplet", "circle_pairs"])
def test_batches_without_negatives_or_positives(name, pids):
    x = torch.randn(4, 6, requires_grad=True)
    value = losses.LOSSES[name](x, pids)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()
    if name == "circle_pairs" or (pids == 0).all():
        assert value.item() == 0 and (x.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_half_precision_features_far_beyond_the_range_of_their_squares(name, dtype):
    x = (torch.randn(8, 512) * 300).to(dtype).requires_grad_()
    weight = torch.randn(4, 512)
    with torch.autocast("cpu", dtype=dtype):
        value = cases(x, weight=weight)[name](x)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and x.grad.isfinite().all()
    assert torch.equal(value, cases(x, weight=weight)[name](x.float()))


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_order_of_the_batch_does_not_matter(name, features):
    order = torch.randperm(8)
    torch.testing.assert_close(cases(features)[name](features), cases(features, PIDS[order])[name](features[order]))


# ---------------------------------------------------------------- build
def output(batch=8, features=6, classes=4):
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=g).requires_grad_()   # noqa: E731
    return Output(rand(batch, features), rand(batch, features), rand(batch, classes), rand(classes, features))


def test_build_feeds_each_loss_its_field_and_weighs():
    recipe = {"cross_entropy": {"smoothing": 0.2}, "triplet": {"margin": 0.5, "weight": 2}, "center": {"weight": 5e-4},
              "circle_pairs": {"scale": 32}, "circle_classes": {"margin": 0.4}}
    criterion, out = losses.build(recipe, num_classes=4, num_features=6), output()
    total, parts = criterion(out, {"pid": PIDS})
    expected = {"cross_entropy": losses.cross_entropy(out.logits, PIDS, smoothing=0.2),
                "triplet": losses.triplet(out.feature, PIDS, margin=0.5),
                "center": losses.center(out.feature, PIDS, criterion.centers),
                "circle_pairs": losses.circle_pairs(out.embedding, PIDS, scale=32),
                "circle_classes": losses.circle_classes(out.embedding, out.weight, PIDS, margin=0.4)}
    assert parts == expected
    assert total.item() == pytest.approx(sum({"triplet": 2, "center": 5e-4}.get(k, 1) * v.item() for k, v in expected.items()))


def test_centers_are_the_only_parameters_and_their_gradient_is_free_of_the_weight():
    assert list(losses.build({"triplet": {}}, 4, 6).parameters()) == []
    out = output()
    for weight in (5e-4, 1.0):
        criterion = copy.deepcopy(losses.build({"center": {"weight": weight}}, 4, 6))
        [(name, centers)] = criterion.named_parameters()
        assert name == "centers" and centers.shape == (4, 6)
        criterion(out, {"pid": PIDS})[0].backward()
        alone = centers.detach().clone().requires_grad_()
        losses.center(out.feature.detach(), PIDS, alone).backward()
        torch.testing.assert_close(centers.grad, alone.grad)
        torch.testing.assert_close(out.feature.grad, weight * torch.autograd.grad(
            losses.center(out.feature, PIDS, centers.detach()), out.feature)[0])
        out.feature.grad = None


def test_centers_travel_with_the_state():
    first, second = (losses.build({"center": {}}, 4, 6) for _ in range(2))
    assert not torch.equal(first.centers, second.centers)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.centers, second.centers)


@pytest.mark.parametrize("recipe, words", [
    ({"tripplet": {}}, "no loss named 'tripplet'. Did you mean 'triplet'"),
    ({"triplet": {"margn": 0.3}}, "option of the loss triplet named 'margn'. Did you mean 'margin'.*Known: margin, weight"),
    ({"cross_entropy": {"margin": 0.3}}, "Known: smoothing, weight"),
    ({"center": {"weight": 0}}, "center: weight=0 is no positive number"),
    ({"triplet": {"margin": "0.3"}}, "triplet: margin='0.3' is no number"),
    ({}, "no loss. Give at least one of: center, circle_classes"),
])
def test_bad_recipes(recipe, words):
    with pytest.raises(UsageError, match=words):
        losses.build(recipe, 4, 6)
