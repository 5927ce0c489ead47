"""Benchmarks: how a figure is printed, and that the data have the stated shape. No timing is asserted."""
import numpy as np
import pytest

from reid_nb import bench
from reid_nb.bench import BENCHMARKS, MARKET, MSMT17, Figure, Shape, exam, in_turn, labels, machine, text
from reid_nb.errors import ReidError
from reid_nb.metrics import evaluate


def test_figure_with_floor_and_targets():
    lines = text(Figure("work", [1.2, 1.0, 1.1], at_most=1.15, floor="least", floors=[1.0, 1.0, 1.0], ratio=1.05)).splitlines()
    assert lines[0] == "work"
    assert lines[1].strip() == "1.1 s (1 to 1.2 in 3 rounds) · target at most 1.15: reached"
    assert lines[2].strip() == "floor, least: 1 s · ratio to floor: 1.10 (1.00 to 1.20) · target at most 1.05: MISSED"


def test_figure_of_a_rate():
    """More is better: the floor is a faster rate, and the ratio is still above 1."""
    line = text(Figure("world", [40.0], "images/s", at_least=50, floor="rays", floors=[80.0]))
    assert "40 images/s (one round) · target at least 50: MISSED" in line and "ratio to floor: 2.00" in line


def test_the_four_benchmarks():
    assert list(BENCHMARKS) == ["evaluate", "rerank", "world", "reproduce"]
    assert "cores" in machine() and "torch" in machine()


@pytest.mark.parametrize("shape", [MARKET, MSMT17, Shape(336, 1591, 75, 280, 6)])
def test_labels_have_the_stated_counts(shape):
    query, gallery = labels(shape)
    assert len(query) == shape.queries and len(gallery) == shape.gallery
    assert (gallery.pid == 0).sum() == shape.distractors and set(query.pid) == set(range(1, shape.identities + 1))
    assert not query.duplicated().any() and query.groupby("pid").camid.nunique().min() >= 2
    assert set(query.camid) == set(range(1, shape.cameras + 1))


def test_market_labels_resemble_the_real_ones():
    """Real: 14.7 hits a query, 3.9 gallery images of the query's own person and camera."""
    query, gallery = labels(MARKET)
    of_person, own = gallery.groupby("pid").size(), gallery.groupby(["pid", "camid"]).size()
    junk = np.array([own.get(pair, 0) for pair in zip(query.pid, query.camid)])
    assert 13.5 < (of_person[query.pid].to_numpy() - junk).mean() < 15 and 3.5 < junk.mean() < 4.3


def test_embeddings_are_neither_trivial_nor_hopeless():
    small = exam(Shape(336, 1591, 75, 280, 6))
    assert all(part.dtype == np.float32 and part.shape[1] == 2048 for part in small[:2])
    assert 0.5 < evaluate(*small).mAP < 0.95


def test_works_take_turns():
    calls = []
    times = in_turn(2, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b", "a", "b"] and [len(seconds) for seconds in times] == [2, 2]


def test_a_failed_command_is_told(tmp_path):
    command = [bench.sys.executable, "-c", "print('the reason'); raise SystemExit(3)", "job"]
    with pytest.raises(ReidError, match="job ended with 3:\nthe reason"):
        bench.run(command, str(tmp_path))
