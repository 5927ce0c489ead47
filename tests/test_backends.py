"""Exported and compiled networks against PyTorch, for every attention block, and backends that cannot run here."""
import copy
import importlib.util

import pytest
import torch
from torch import nn

from reid_nb import backends, export
from reid_nb.backbones import ReIDModel, resnet
from reid_nb.errors import ReidError, UsageError
from reid_nb.papers.cnl.blocks import BLOCKS
from reid_nb.papers.cnl.network import resnet_with_attention

SIZE = (64, 32)
NETWORKS = [(None, {}), *((name, {}) for name in BLOCKS), ("agw", {"inner": 1}), ("cnl", {"reduction": 1}),
            ("cnl", {"normalisation": "scale", "output": "gate"}), ("abd", {"part": "channel"})]


def lively(block, arguments) -> nn.Module:
    """A small model whose norms and attention blocks all do something; residual branches are weak, or FP16 would overflow in a random network."""
    torch.manual_seed(0)
    trunk = resnet_with_attention(width=0.25, block=block, positions=[1, 8, 17] if block else (), block_args=arguments, image_size=SIZE)
    model = ReIDModel(trunk, num_classes=1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "attention" in name and (parameter == 0).all():
            nn.init.normal_(parameter, 0, 0.1)   # norms and factors that make a block start as the identity
    for name, module in model.named_modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(module.weight, 0.3 if name.endswith("bn3") else 1, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: f"{network[0]}{network[1] or ''}")
def network(request):
    return lively(*request.param)


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["embeddings"], {"images": images.numpy()})[0])


def test_an_exported_network_computes_the_same_embeddings(network, tmp_path, recwarn, capfd):
    path = export.export_onnx(network, tmp_path / "model.onnx", SIZE)
    for batch in (1, 3):  # any batch size, not only the exported one
        images = torch.randn(batch, 3, *SIZE)
        expected, found = network(images), run_onnx(path, images)
        assert found.shape == (batch, 512)
        assert export.smallest_cosine(expected, found) > 0.9999
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_half_precision_computes_nearly_the_same_embeddings(network, tmp_path):
    """Both in PyTorch, where every tensor is FP16, and exported."""
    images, before = torch.randn(3, 3, *SIZE), copy.deepcopy(network.state_dict())
    half = export.halved(network)
    path = export.export_onnx(half, tmp_path / "model.onnx", SIZE)
    assert path.stat().st_size < 0.55 * export.export_onnx(network, tmp_path / "full.onnx", SIZE).stat().st_size
    for found in (half(images.half()), run_onnx(path, images.half())):
        assert found.dtype == torch.float16 and export.smallest_cosine(network(images), found) > 0.999
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_same_network_gives_the_same_file(tmp_path):
    """The cache of engines rests on it."""
    network = lively("cnl", {})
    files = [export.export_onnx(network, tmp_path / f"{n}.onnx", SIZE).read_bytes() for n in range(2)]
    assert files[0] == files[1]


def test_cosine_is_that_of_the_worst_row():
    expected = torch.eye(3)
    assert export.smallest_cosine(expected, 7 * expected) == pytest.approx(1)
    assert export.smallest_cosine(expected, expected + torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 0]])) == pytest.approx(0.5**0.5)
    assert not export.smallest_cosine(expected, expected * torch.nan) > -1


SMALL = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)


@pytest.mark.parametrize("name", [name for name in backends.BACKENDS if name != "compile" and not backends.available(name)])
def test_every_backend_that_is_here_runs(name):
    images = torch.randn(2, 3, 16, 8)
    run, expected = backends.prepare(name, SMALL, images), SMALL(images)
    assert export.smallest_cosine(expected, run()) > 0.999 and torch.equal(run().cpu(), run().cpu())


@pytest.mark.skipif(bool(backends.available("compile")), reason=backends.available("compile"))
def test_more_networks_than_torch_compile_remembers_are_all_compiled(monkeypatch):
    """Ten networks share their Python code; each must keep a compiled form of its own, with no new one at a second call."""
    from torch._dynamo.utils import counters

    counters.clear()
    monkeypatch.setattr(torch, "compile", lambda f, compile=torch.compile, **kw: compile(f, backend="eager", **kw))
    images, networks = torch.randn(2, 3, 16, 8), [copy.deepcopy(SMALL) for _ in range(10)]
    for number, network in enumerate(networks):
        nn.init.constant_(network[1].bias, number)
    runners = [backends.prepare("compile", network, images) for network in networks]
    compiled = counters["stats"]["unique_graphs"]
    for network, run in zip(networks, runners, strict=True):
        assert torch.allclose(run(), network(images), atol=1e-5)
    assert compiled == 10 and counters["stats"]["unique_graphs"] == 10


def test_names_are_those_of_the_documentation():
    assert list(backends.BACKENDS) == [
        "eager", "compile", "cudagraphs", "onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx", "eager-fp16", "compile-fp16",
        "cudagraphs-fp16", "onnxruntime-cuda-fp16", "tensorrt-fp16", "tensorrt-rtx-fp16"]
    with pytest.raises(UsageError, match="Did you mean 'cudagraphs'"):
        backends.available("cudagraph")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cudagraphs", "onnxruntime-cuda", "eager-fp16", "tensorrt-fp16"])
def test_a_backend_that_cannot_run_says_what_it_needs(name):
    assert "needs an NVIDIA GPU" in backends.available(name)
    with pytest.raises(ReidError, match=f"'{name}' cannot run here: it needs an NVIDIA GPU"):
        backends.prepare(name, SMALL, torch.zeros(1, 3, 16, 8))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    assert backends.available("onnxruntime") == f"needs the package {package}: pip install {package}"
    with pytest.raises(ReidError, match=f"pip install {package}"):
        backends.prepare("onnxruntime", SMALL, torch.zeros(1, 3, 16, 8))


def test_export_without_onnx_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ReidError, match="ONNX export needs the package onnx"):
        export.export_onnx(resnet(18, 0.25), tmp_path / "x.onnx")


def test_without_a_compiler_the_reason_says_which(monkeypatch):
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "g++" in backends.available("compile")
