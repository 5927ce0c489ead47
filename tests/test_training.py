"""Training: exact resume, refusals, and nothing half-written."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from reid_nb import training
from reid_nb.errors import ReidError
from reid_nb.files import read_json
from reid_nb.recipes import Recipe, learning_rate
from reid_nb.records import Dataset
from reid_nb.transforms import Classes

CLASSES = Classes(6, 6, tuple(range(6)), (0, 1))
LOSSES = {"cross_entropy": {"smoothing": 0.1}, "triplet": {"margin": 0.3}, "center": {"weight": 5e-4}}
TINY = Recipe("tiny", model_args={"depth": 18, "width": 0.125}, losses=LOSSES, image_size=(32, 16), identities=4, images=2, epochs=3,
              lr=1e-3, milestones=(2,), warmup_epochs=1, pad=2)


def make_dataset(root: Path, people: int = 6, images: int = 4) -> Dataset:
    """People as colours: 32 x 16 JPEGs of one random colour a person, with noise."""
    rng, rows = np.random.default_rng(0), []
    for pid in range(people):
        colour = rng.integers(40, 216, 3)
        for number in range(images):
            path = f"{pid:03}_{number}.jpg"
            Image.fromarray((colour + rng.integers(-40, 40, (32, 16, 3))).astype(np.uint8)).save(root / path)
            rows.append({"path": path, "pid": 10 * pid + 1, "camid": number % 2})
    table = pd.DataFrame(rows)
    return Dataset("colours", root, table, table[:2].copy(), table[2:].reset_index(drop=True), "own")


def day_and_night(root: Path) -> Dataset:
    """The same people with labels of two outfits and two modalities; a test split is cut from the training images."""
    plain = make_dataset(root, people=6, images=8)
    number = np.arange(len(plain.train))
    table = plain.train.assign(clothes=number // 4 % 2 + 1, modality=np.where(number % 2, "ir", "rgb"))
    return Dataset("colours", plain.root, table, table[:4].copy(), table[4:].reset_index(drop=True), "own")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    training.train(TINY, dataset, 0, folder, threads=1, progress=False)
    return folder


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if "partial" in path.name]


def test_a_finished_training_leaves_these_files(whole, dataset):
    assert {path.name for path in whole.iterdir()} == {".lock", "recipe.json", "model.safetensors", "history.csv", "progress.json"}
    assert read_json(whole / "progress.json") == {"epoch": 3.0, "of": 3, "seconds_left": 0.0}
    record = read_json(whole / "recipe.json")
    assert Recipe.from_dict(record["recipe"]) == TINY and training.recorded_classes(record) == CLASSES and record["start"] is None
    history = pd.read_csv(whole / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert {"lr", "loss", "cross_entropy", "triplet", "center", "accuracy", "seconds", "images_per_second"} < set(history)
    steps = 3   # 6 identities x 2 groups of 2 images / 4 identities a batch
    assert np.allclose(history["lr"], [learning_rate(TINY, epoch - 1 / steps) for epoch in (1, 2, 3)])


def test_same_seed_same_bits_other_seed_other_weights(whole, dataset, tmp_path):
    torch.rand(3)   # the caller's random state must not matter
    again = training.train(TINY, dataset, 0, tmp_path / "again", threads=1, progress=False)
    assert again.read_bytes() == (whole / "model.safetensors").read_bytes()
    other = training.train(TINY, dataset, 1, tmp_path / "other", threads=1, progress=False)
    assert other.read_bytes() != again.read_bytes()


def test_training_leaves_the_callers_settings_alone(dataset, tmp_path):
    torch.manual_seed(5)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    training.train(TINY.scaled(epochs=1), dataset, 0, tmp_path, threads=1, progress=False)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def interrupt_in(monkeypatch, epoch: int, checkpoint_seconds: float = 0) -> None:
    """Press Ctrl-C in the second step of `epoch` (from 0)."""
    plain = training.learning_rate

    def rate(recipe, time):
        if epoch < time < epoch + 1:
            raise KeyboardInterrupt
        return plain(recipe, time)

    monkeypatch.setattr(training, "learning_rate", rate)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", checkpoint_seconds)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_ctrl_c_and_resume_to_the_bit(whole, dataset, tmp_path, monkeypatch, epoch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt_in(patched, epoch)
        training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)
    assert not leftovers(tmp_path) and not (tmp_path / "model.safetensors").exists()
    expected = {f"epoch-{epoch:05}.safetensors", f"epoch-{epoch:05}.state.pt"} if epoch else set()
    assert {path.name for path in tmp_path.glob("checkpoints/*")} == expected
    training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1, 2, 3] and not (tmp_path / "checkpoints").exists()


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import pandas as pd
from reid_nb import training
from reid_nb.records import Dataset
from test_training import TINY
training.CHECKPOINT_SECONDS = 0
plain = training.save_weights
def slow(model, path):          # the second checkpoint hangs half-way: weights on disk, state not yet
    plain(model, path)
    if path.name == "epoch-00002.safetensors":
        path.with_name(".epoch-00002.state.pt.0-0.partial.pt").write_bytes(b"half")
        print("now", flush=True)
        time.sleep(60)
training.save_weights = slow
table = pd.read_csv({root!r} + "/table.csv")
training.train(TINY, Dataset("colours", Path({root!r}), table, table[:2], table[2:], "own"), 0, {folder!r}, threads=1, progress=False)
"""


def test_kill_between_the_halves_of_a_checkpoint_and_resume_to_the_bit(whole, dataset, tmp_path):
    dataset.train.to_csv(Path(dataset.root) / "table.csv", index=False)
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(dataset.root), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    with pytest.raises(ReidError, match=f"in use by another training .process {process.pid}"):
        training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.glob("checkpoints/*.safetensors"))) == 2 and leftovers(tmp_path)
    training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)   # the dead process's lock is free
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not leftovers(tmp_path)


def test_two_trainings_in_one_process_are_refused_too(dataset, tmp_path):
    with training.locked(tmp_path, "training"), pytest.raises(ReidError, match=str(os.getpid())):
        training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)


def test_another_training_in_the_folder_is_refused(whole, dataset):
    before = (whole / "model.safetensors").stat().st_mtime_ns
    for arguments, said in [((TINY.scaled(lr=1.0), dataset, 0), "recipe"), ((TINY, dataset, 1), "seed")]:
        with pytest.raises(ReidError, match=f"another training .different: {said}"):
            training.train(*arguments, whole, threads=1, progress=False)
    training.train(TINY, dataset, 0, whole, threads=1, progress=False)
    assert (whole / "model.safetensors").stat().st_mtime_ns == before   # finished: nothing is done twice


def test_full_disk(whole, dataset, tmp_path, monkeypatch):
    plain = Path.write_bytes

    def full(path, content):
        if "00002.state" in path.name:
            plain(path, bytes(content)[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, content)

    with monkeypatch.context() as patched, pytest.raises(ReidError, match="No space left") as error:
        patched.setattr(Path, "write_bytes", full)
        patched.setattr(training, "CHECKPOINT_SECONDS", 0)
        training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)
    assert str(tmp_path) in str(error.value) and not leftovers(tmp_path)
    training.train(TINY, dataset, 0, tmp_path, threads=1, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_loss_that_is_not_finite_stops_before_the_weights(dataset, tmp_path):
    with pytest.raises(ReidError) as error:
        training.train(TINY.scaled(lr=1e30, warmup_epochs=0.0), dataset, 0, tmp_path, threads=1, progress=False)
    text = str(error.value)
    assert "epoch 1, step 2 of 3" in text and "triplet" in text and "warmup_epochs" in text
    assert not (tmp_path / "model.safetensors").exists() and not leftovers(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    broken = make_dataset(tmp_path)
    path = tmp_path / "002_1.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ReidError, match="002_1.jpg"):
        training.train(TINY, broken, 0, tmp_path / "run", threads=1, progress=False)
    assert not leftovers(tmp_path)


def test_too_few_identities(tmp_path):
    with pytest.raises(ReidError, match="1 identities.*at least two"):
        training.train(TINY, make_dataset(tmp_path, people=1), 0, tmp_path / "run", progress=False)
    with pytest.raises(ReidError, match="3 identities.*needs 4"):
        training.train(TINY, make_dataset(tmp_path, people=3), 0, tmp_path / "run3", progress=False)


def test_warm_start_takes_what_matches(whole, dataset, tmp_path):
    start = whole / "model.safetensors"
    wider = Recipe.from_dict(TINY.to_dict() | {"name": "deeper", "model_args": {"depth": 34, "width": 0.125}})
    stored, own = load_file(start), training.new_learner(wider, CLASSES, 0, start).model.state_dict()
    fresh = training.new_learner(wider, CLASSES, 0, None).model.state_dict()
    shared = [name for name in own if name in stored and own[name].shape == stored[name].shape]
    assert shared and all(torch.equal(own[name], stored[name]) for name in shared)
    assert all(torch.equal(own[name], fresh[name]) for name in own if name not in shared)
    with pytest.raises(ReidError, match="missing"):
        training.train(TINY, dataset, 0, tmp_path, start=tmp_path / "nothing.safetensors", progress=False)


def test_centers_move_by_plain_sgd_and_the_neck_keeps_no_shift(dataset):
    learner = training.new_learner(TINY, CLASSES, 0, None)
    steppers = training.optimizers(TINY, learner)
    adam, sgd = steppers
    assert adam.param_groups[0]["weight_decay"] == 5e-4 and sgd.param_groups[0]["lr"] == 0.5
    before, neck = learner.criterion.centers.detach().clone(), learner.model.neck.bias
    autocast, scaler = training.mixed_precision(TINY, torch.device("cpu"))
    images, labels = torch.rand(8, 3, 32, 16), torch.arange(8) // 2
    features = {}
    learner.model.neck.register_forward_hook(lambda module, inputs, output: features.update(f=inputs[0].detach()))
    training.step(learner, (images, {"pid": labels}), steppers, autocast, scaler, "")
    means = torch.stack([features["f"][labels == label].mean(0) for label in range(4)])
    expected = before[:4] + 2 / 8 * (means - before[:4])   # rate 0.5 on the mean of squared distances
    assert torch.allclose(learner.criterion.centers[:4], expected, atol=1e-5)
    assert torch.equal(learner.criterion.centers[4:], before[4:]) and not neck.any()


def test_half_precision_stays_close_and_keeps_float_weights(whole, dataset, tmp_path):
    weights = training.train(TINY.scaled(precision="bf16"), dataset, 0, tmp_path, threads=1, progress=False)
    assert all(tensor.dtype != torch.bfloat16 for tensor in load_file(weights).values())
    half, full = (pd.read_csv(folder / "history.csv")["loss"] for folder in (tmp_path, whole))
    assert np.allclose(half[:1], full[:1], rtol=0.05)


def test_load_trained(whole, dataset, tmp_path):
    model = training.load_trained(whole, "cpu")
    assert not model.training and model(torch.zeros(2, 3, 32, 16)).shape == (2, 64)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in load_file(whole / "model.safetensors").items())
    with pytest.raises(ReidError, match="no trained run"):
        training.load_trained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:1000])
    (tmp_path / "recipe.json").write_bytes((whole / "recipe.json").read_bytes())
    with pytest.raises(ReidError, match="model.safetensors"):
        training.load_trained(tmp_path)


TWO = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pandas as pd
from reid_nb import training
from reid_nb.records import Dataset
from test_training import TINY
table = pd.read_csv({root!r} + "/table.csv")
training.train(TINY, Dataset("colours", Path({root!r}), table, table[:2], table[2:], "own"), 0, {folder!r}, threads=1, progress=False)
"""


def test_worker_processes_change_no_pixel(dataset):
    here, elsewhere = (training.loader(TINY, dataset, 3, torch.device(kind)) for kind in ("cpu", "meta"))
    assert here.num_workers == 0 < elsewhere.num_workers
    for epoch in (0, 1):
        here.batch_sampler.epoch = elsewhere.batch_sampler.epoch = epoch
        for (images, targets), (others, other_targets) in zip(here, elsewhere, strict=True):
            assert torch.equal(images, others) and targets.keys() == other_targets.keys()
            assert all(torch.equal(targets[name], other_targets[name]) for name in targets)


def test_two_processes_share_the_batch(whole, dataset, tmp_path):
    dataset.train.to_csv(Path(dataset.root) / "table.csv", index=False)
    script = tmp_path / "two.py"
    script.write_text(TWO.format(tests=str(Path(__file__).parent), root=str(dataset.root), folder=str(tmp_path / "run")))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)],
                          env={**os.environ, "ACCELERATE_USE_CPU": "1"}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_json(tmp_path / "run" / "recipe.json")["processes"] == 2
    shared, alone = load_file(tmp_path / "run" / "model.safetensors"), load_file(whole / "model.safetensors")
    assert shared.keys() == alone.keys() and all(tensor.isfinite().all() for tensor in shared.values())


# Two-step fine-tuning

FROZEN = TINY.scaled(name="frozen", frozen="trunk neck")


def test_what_is_frozen_keeps_every_bit_and_the_rest_learns(whole, dataset, tmp_path):
    start = whole / "model.safetensors"
    before, after = load_file(start), load_file(training.train(FROZEN, dataset, 1, tmp_path, threads=1, start=start, progress=False))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.endswith("running_mean") for name in before) and changed == {"classifier.weight"}


def test_a_frozen_part_alone_leaves_the_others_to_train(whole, dataset, tmp_path):
    start, recipe = whole / "model.safetensors", TINY.scaled(name="stage", frozen="trunk.layer1", epochs=1)
    before, after = load_file(start), load_file(training.train(recipe, dataset, 0, tmp_path, threads=1, start=start, progress=False))
    for name in before:
        assert torch.equal(before[name], after[name]) == (name.startswith("trunk.layer1.") or name == "neck.bias"), name


def test_a_frozen_training_resumes_to_the_bit(whole, dataset, tmp_path, monkeypatch):
    start = whole / "model.safetensors"
    undisturbed = training.train(FROZEN, dataset, 0, tmp_path / "a", threads=1, start=start, progress=False)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt_in(patched, 1)
        training.train(FROZEN, dataset, 0, tmp_path / "b", threads=1, start=start, progress=False)
    again = training.train(FROZEN, dataset, 0, tmp_path / "b", threads=1, start=start, progress=False)
    assert again.read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize("frozen, told", [("trunc", "Did you mean 'trunk'"), ("trunk neck classifier", "nothing to train"), ("trunk.layer9", "trunk.layer9")])
def test_a_frozen_name_is_looked_up(dataset, tmp_path, frozen, told):
    with pytest.raises(ReidError, match=told):
        training.train(TINY.scaled(name="x", frozen=frozen), dataset, 0, tmp_path, threads=1, progress=False)
