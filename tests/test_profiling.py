"""Latency profiling with made-up clocks, and exported networks against PyTorch. No test judges a timing."""
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from reid_nb import profiling
from reid_nb.backbones import ReIDModel, resnet
from reid_nb.backends import Backend
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.cnl.network import resnet_with_attention


class Clock:
    """A clock that only runners move."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(profiling.time, "perf_counter", lambda: self.now)

    def runner(self, name, seconds):
        def run():
            self.calls.append(name)
            self.now += seconds(len(self.calls)) if callable(seconds) else seconds
        return run


def test_rounds_are_interleaved_shuffled_and_seeded(monkeypatch):
    clock = Clock(monkeypatch)
    names = list("abcde")
    times = profiling.take_turns({name: clock.runner(name, 1 + i) for i, name in enumerate(names)}, rounds=10, warmup=2)
    rounds = [tuple(clock.calls[i:i + 5]) for i in range(0, 60, 5)]
    assert len(clock.calls) == 60 and all(sorted(order) == names for order in rounds)
    assert len(set(rounds)) > 5
    assert times.shape == (10, 5) and (times == [1, 2, 3, 4, 5]).all(axis=None)
    first, clock.calls = clock.calls, []
    profiling.take_turns({name: clock.runner(name, 1) for name in names}, rounds=10, warmup=2)
    assert clock.calls == first


def test_drift_and_disturbances_cancel_in_the_ratio(monkeypatch):
    clock = Clock(monkeypatch)
    slower = lambda seconds: lambda call: seconds * (1 + 0.002 * call) * (8 if call % 37 == 0 else 1)
    runners = {"a": clock.runner("a", slower(1.0)), "b": clock.runner("b", slower(1.25))}
    times = [profiling.take_turns(runners, rounds=30, seed=seed) for seed in (0, 1)]
    table = profiling.summarise(*times, "a").set_index("candidate")
    assert table.ratio["b"] == pytest.approx(1.25, rel=0.005)
    assert table.ratio_q1["b"] <= table.ratio["b"] <= table.ratio_q3["b"]
    assert not table.noisy.any()
    assert table.ratio["a"] == table.ratio_q1["a"] == table.ratio_q3["a"] == 1


def test_summary_is_medians_and_quartiles_of_both_measurements():
    first = pd.DataFrame({"a": [0.010] * 5, "b": np.arange(10, 20, 2) / 1000})
    second = pd.DataFrame({"a": [0.010] * 6, "b": np.arange(20, 8, -2) / 1000 + 0.001})
    row = profiling.summarise(first, second, "a").set_index("candidate").loc["b"]
    assert (row.ms_q1, row.ms, row.ms_q3) == pytest.approx((12, 15, 18))  # of 10, 11, ... 18, 19, 21
    assert (row.ratio_q1, row.ratio, row.ratio_q3) == pytest.approx((1.2, 1.5, 1.8))
    assert (row["first"], row["second"]) == pytest.approx((1.4, 1.6))
    assert row.speed == pytest.approx(1000 / 15) and not row.noisy


@pytest.mark.parametrize("first, second, noisy", [
    ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], False),
    ([1, 2, 3, 4, 5], [4.4, 4.45, 4.5, 4.55, 4.6], False),   # 4.5 is the first one's third quartile: still within
    ([1, 2, 3, 4, 5], [4.5, 4.55, 4.6, 4.65, 4.7], True),    # 4.6 is beyond 4.5, and 3 below 4.525
    ([1, 2, 3, 4, 5], [1, 4.6, 4.6, 9, 9], False),           # 3 lies within the second one's quartiles, 2.8 to 9
    ([1, 1, 1, 1], [1, 1, 1, 1], False),
    ([1, 1, 1, 1], [1.001, 1.001, 1.001, 1.001], True)])
def test_noisy_means_that_neither_median_lies_within_the_others_quartiles(first, second, noisy):
    assert profiling.disagree(first, second) == profiling.disagree(second, first) == noisy


def test_the_verdict_passes_noise_and_catches_a_shift():
    rng = np.random.default_rng(0)
    quiet = [profiling.disagree(*rng.normal(1, 0.02, (2, 10))) for _ in range(300)]
    moved = [profiling.disagree(rng.normal(1, 0.02, 10), rng.normal(1.06, 0.02, 10)) for _ in range(300)]
    assert np.mean(quiet) < 0.12 and np.mean(moved) > 0.95


def test_the_second_measurement_comes_after_all_backends_had_their_first(monkeypatch):
    seen = []
    monkeypatch.setattr(profiling.engines, "BACKENDS", {
        name: Backend(lambda model, images, name=name: lambda: (seen.append(name), model(images))[1]) for name in "ab"})
    candidates = {"x": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())}
    profiling.compare(candidates, "x", "ab", 2, (8, 8), rounds=5, warmup=1, threads=1)
    assert "".join(seen) == "aabb" + "aaaa" + "bbbb" + "aaa" + "bbb"   # memory and cosine, then 3 + 2 rounds with a warm-up each


def test_garbage_collection_is_on_again_after_a_failure():
    import gc
    with pytest.raises(ZeroDivisionError):
        profiling.take_turns({"a": lambda: 1 / 0}, rounds=8)
    assert gc.isenabled()


@pytest.fixture(scope="module")
def compared():
    seen = []
    candidates = {"ResNet-50": lambda: ReIDModel(resnet(50, 0.25), 1),
                  "C-NL @ 8": lambda: ReIDModel(resnet_with_attention(50, 0.25, "cnl", [8]), 1)}
    result = profiling.compare(candidates, "ResNet-50", batch=2, image_size=(64, 32), rounds=8, warmup=1, threads=1,
                               progress=lambda done, total: seen.append((done, total)))
    return result, seen


def test_a_comparison_has_a_row_a_backend_and_candidate(compared):
    result, seen = compared
    assert result[["backend", "candidate"]].to_numpy().tolist() == [
        ["eager", "ResNet-50"], ["eager", "C-NL @ 8"], ["onnxruntime", "ResNet-50"], ["onnxruntime", "C-NL @ 8"]]
    assert (result.batch == 2).all() and (result.ms > 0).all()
    assert (result.ratio[result.candidate == "ResNet-50"] == 1).all()
    assert (result.ms_q1 <= result.ms).all() and (result.ms <= result.ms_q3).all()
    assert seen == [(n, 2 + 2 * (8 + 2)) for n in range(1, 23)]
    assert result.attrs["settings"]["threads"] == 1 and result.attrs["settings"]["image_size"] == [64, 32]
    assert result.attrs["machine"]["cores"] >= 1 and result.attrs["machine"]["versions"]["torch"]


def test_a_comparison_survives_json(compared):
    result, _ = compared
    result = result.copy()
    result.loc[0, "memory"] = math.nan
    text = json.dumps(profiling.to_record(result), allow_nan=False)
    back = profiling.from_record(json.loads(text))
    pd.testing.assert_frame_equal(back, result)
    assert back.attrs == result.attrs


def test_the_thread_count_is_put_back(compared):
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        profiling.compare({"a": lambda: 1 / 0}, "a", threads=before + 1, rounds=8)
    assert torch.get_num_threads() == before


def test_equal_parameters_are_stored_once_and_others_stay():
    pool, models = {}, []
    for bias in (0.0, 0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        nn.init.constant_(model[1].bias, bias)
        expected = model(torch.ones(1, 3))
        profiling._share_equal(model, pool)
        assert torch.equal(model(torch.ones(1, 3)), expected)
        models.append(model)
    assert models[1][0].weight is models[0][0].weight is models[2][0].weight
    assert models[1][1].bias is models[0][1].bias and models[2][1].bias is not models[0][1].bias


@pytest.mark.parametrize("error, half, refused", [(0.0, False, False), (0.03, False, True), (0.03, True, False), (0.1, True, True)])
def test_a_backend_that_changes_the_embeddings_is_refused(error, half, refused, monkeypatch):
    """FP32 has to agree to a cosine of 0.9999, FP16 to 0.999; an error vector of 3 % at a right angle costs 0.00045."""
    def turned(model, images):
        output = model(images.float())
        aside = torch.flip(output, (1,)) * torch.tensor([1, -1])
        return lambda: output + error * aside

    monkeypatch.setitem(profiling.engines.BACKENDS, "turned", Backend(turned, half=half))
    monkeypatch.setattr(profiling.engines, "halved", lambda model: model)
    build = lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ask = lambda: profiling.compare({"Net": build}, "Net", ["turned"], 2, (8, 8), 4, threads=1)
    if refused:
        with pytest.raises(ReidError, match="Net computes other embeddings through turned"):
            ask()
    else:
        assert len(ask()) == 1


def test_a_result_that_is_not_a_number_is_refused(monkeypatch):
    monkeypatch.setitem(profiling.engines.BACKENDS, "broken", Backend(lambda model, images: lambda: model(images) * torch.nan))
    with pytest.raises(ReidError, match="cosine nan"):
        profiling.compare({"Net": lambda: nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten())}, "Net", ["broken"], 2, (8, 8), 4)


def test_wrong_requests_are_refused_in_plain_words():
    build = {"ResNet-50": lambda: None}
    with pytest.raises(UsageError, match="Did you mean 'ResNet-50'"):
        profiling.compare(build, "ResNet50")
    with pytest.raises(UsageError, match="no backend named 'onnx'.*eager, .*onnxruntime"):
        profiling.compare(build, "ResNet-50", ["onnx"])
    with pytest.raises(UsageError, match="batch=0: at least one image"):
        profiling.compare(build, "ResNet-50", batch=0)
    with pytest.raises(UsageError, match="rounds=3 is too few"):
        profiling.compare(build, "ResNet-50", rounds=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_cannot_run_is_refused_before_anything_is_built():
    with pytest.raises(ReidError, match="'cudagraphs' cannot run here: it needs an NVIDIA GPU"):
        profiling.compare({"a": lambda: 1 / 0}, "a", ["eager", "cudagraphs"])


@pytest.mark.skipif(not math.isfinite(profiling.first_batch_memory(lambda: None)), reason="the system does not tell")
def test_first_batch_memory_sees_what_a_batch_needs():
    held = profiling.first_batch_memory(lambda: torch.empty(40 * 2**20, dtype=torch.uint8).fill_(1))
    assert 30 < held < 80
    assert profiling.first_batch_memory(lambda: torch.ones(1)) < 10
