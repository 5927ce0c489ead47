"""Latency profiling with made-up clocks, and exported networks against PyTorch. No test judges a timing."""
import importlib.util
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from reid_nb import profiling
from reid_nb.backbones import ReIDModel, resnet
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.cnl.network import resnet_with_attention


def lively(trunk: nn.Module) -> nn.Module:
    """A model around `trunk` whose norms and attention blocks all do something."""
    model = ReIDModel(trunk, num_classes=1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


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
    times = profiling.take_turns({"a": clock.runner("a", slower(1.0)), "b": clock.runner("b", slower(1.25))}, rounds=60)
    table = profiling.summarise(times, "a").set_index("candidate")
    assert table.ratio["b"] == pytest.approx(1.25, rel=0.005)
    assert table.ratio_q1["b"] <= table.ratio["b"] <= table.ratio_q3["b"]
    assert not table.noisy.any()
    assert table.ratio["a"] == table.ratio_q1["a"] == table.ratio_q3["a"] == 1


def test_summary_is_medians_and_quartiles():
    times = pd.DataFrame({"a": [0.010] * 11, "b": np.arange(10, 21) / 1000})
    row = profiling.summarise(times, "a").set_index("candidate").loc["b"]
    assert (row.ms_q1, row.ms, row.ms_q3) == pytest.approx((12, 15, 18))
    assert (row.ratio_q1, row.ratio, row.ratio_q3) == pytest.approx((1.2, 1.5, 1.8))
    assert row.speed == pytest.approx(1000 / 15)


def test_noisy_means_that_the_two_halves_disagree():
    rng = np.random.default_rng(0)
    quiet = [profiling.halves_disagree(rng.normal(1, 0.02, 12)) for _ in range(500)]
    moved = [profiling.halves_disagree(rng.normal(1, 0.02, 12) + np.repeat([0, 0.08], 6)) for _ in range(500)]
    assert np.mean(quiet) < 0.05 and np.mean(moved) > 0.9
    times = pd.DataFrame({"a": [1.0] * 12, "b": [1.1, 1.11, 1.12, 1.1, 1.11, 1.12, 1.3, 1.31, 1.32, 1.3, 1.31, 1.32]})
    assert profiling.summarise(times, "a").noisy.tolist() == [False, True]


def test_garbage_collection_is_on_again_after_a_failure():
    import gc
    with pytest.raises(ZeroDivisionError):
        profiling.take_turns({"a": lambda: 1 / 0}, rounds=8)
    assert gc.isenabled()


@pytest.mark.parametrize("block, arguments", [(None, {}), ("hac", {}), ("agw", {}), ("agw", {"inner": 1}), ("cnl", {}),
                                              ("cnl", {"reduction": 1})])
def test_an_exported_network_computes_the_same_embeddings(block, arguments, tmp_path, recwarn, capfd):
    import onnxruntime
    torch.manual_seed(0)
    positions = [1, 8, 17] if block else ()
    model = lively(resnet_with_attention(width=0.25, block=block, positions=positions, block_args=arguments))
    path = profiling.export_onnx(model, tmp_path / "model.onnx", (64, 32))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):  # any batch size, not only the exported one
        images = torch.randn(batch, 3, 64, 32)
        found = torch.from_numpy(session.run(["embeddings"], {"images": images.numpy()})[0])
        with torch.no_grad():
            expected = model(images)
        assert found.shape == (batch, 512)
        assert profiling.smallest_cosine(expected, found) > 0.9999
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


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
    assert seen == [(n, 2 + 2 * 9) for n in range(1, 21)]
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


def test_a_backend_that_changes_the_embeddings_is_refused(monkeypatch):
    monkeypatch.setitem(profiling.BACKENDS, "broken", lambda model, images: lambda: -model(images))
    with pytest.raises(ReidError, match="ResNet computes other embeddings through broken"):
        profiling.compare({"ResNet": lambda: ReIDModel(resnet(18, 0.25), 1)}, "ResNet", ["broken"], 1, (64, 32), 8)


def test_wrong_requests_are_refused_in_plain_words():
    build = {"ResNet-50": lambda: None}
    with pytest.raises(UsageError, match="Did you mean 'ResNet-50'"):
        profiling.compare(build, "ResNet50")
    with pytest.raises(UsageError, match="no backend named 'onnx'.*eager, onnxruntime"):
        profiling.compare(build, "ResNet-50", ["onnx"])
    with pytest.raises(UsageError, match="rounds=3 is too few"):
        profiling.compare(build, "ResNet-50", rounds=3)


@pytest.mark.parametrize("package, words", [("onnx", "ONNX export needs the package onnx"),
                                            ("onnxruntime", "backend 'onnxruntime' needs the package onnxruntime")])
def test_a_missing_package_is_named(package, words, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(profiling.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ReidError, match=words):
        profiling.onnx_runtime(nn.Identity(), torch.zeros(1, 3, 8, 8))


@pytest.mark.skipif(not math.isfinite(profiling.first_batch_memory(lambda: None)), reason="the system does not tell")
def test_first_batch_memory_sees_what_a_batch_needs():
    held = profiling.first_batch_memory(lambda: torch.empty(40 * 2**20, dtype=torch.uint8).fill_(1))
    assert 30 < held < 80
    assert profiling.first_batch_memory(lambda: torch.ones(1)) < 10
