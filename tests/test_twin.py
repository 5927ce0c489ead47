"""The Market-1501 twin: structure, bits, and writing that can be interrupted."""
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from folders import bits
from reid_nb.datasets.market1501 import load
from reid_nb.errors import ReidError, UsageError
from reid_nb.files import read_json
from reid_nb.twins import market1501 as twin
from reid_nb.world.writing import LOOKS, as_dataset, records_of, swap_outfits

TINY = twin.TwinSize(2, 3, 4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return twin.write(tmp_path_factory.mktemp("twin") / "tiny", TINY, workers=1, progress=False)


def test_the_mini_plan_has_the_structure_of_market1501():
    table = twin.plan("mini")
    counts = table.groupby(["split", "kind"]).size()
    assert counts["train", "person"] == 150 * 12 and counts["query", "person"] + counts["gallery", "person"] == 150 * 12
    gallery = counts["gallery"]
    assert gallery["junk"] / gallery.sum() == pytest.approx(0.10, abs=0.01)
    assert gallery["distractor"] / gallery.sum() == pytest.approx(0.15, abs=0.01)
    assert table.path.is_unique and sorted(table.camid.unique()) == [1, 2, 3, 4, 5, 6]
    people = table[table.kind == "person"]
    assert not set(people.pid[people.split == "train"]) & set(people.pid[people.split != "train"])
    assert people.groupby("pid").camid.nunique().between(2, 6).all()


def test_every_query_is_the_only_one_of_its_track_and_has_a_match():
    table = twin.plan("mini", seed=3)
    query, gallery = table[table.split == "query"], table[table.split == "gallery"]
    assert not query.duplicated(["pid", "camid"]).any()
    test = table[(table.kind == "person") & (table.split != "train")]
    assert len(query) == len(test.drop_duplicates(["pid", "camid"]))
    for record in query.itertuples():
        assert ((gallery.pid == record.pid) & (gallery.camid != record.camid)).any()


def test_the_labels_are_the_same_on_every_machine():
    assert as_dataset("market1501", twin.plan("mini"), ".").labels_hash() == "a611825b5c5192877ddc9babc9f69922ddbfc405bedabacfd9b8449da2707bcf"
    assert as_dataset("market1501", twin.plan(TINY, 5), ".").labels_hash() == "e154d50e9de3cf65cba37fa0a7c26c90508e0e064f1e82801dcbc4796a9dff7d"


def test_the_loader_finds_what_the_plan_says(tiny):
    dataset = load(tiny)
    assert dataset.origin == "twin"
    assert dataset.labels_hash() == as_dataset("market1501", twin.plan(TINY), tiny).labels_hash() == read_json(tiny / "twin.json")["labels"]


def test_the_pictures_do_not_depend_on_the_number_of_processes(tiny, tmp_path):
    other = twin.write(tmp_path / "other", TINY, workers=2, progress=False)
    assert bits(other) == bits(tiny)


def test_an_interrupted_twin_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    real, count = twin.picture, iter(range(100))

    def interrupted(*args):
        if next(count) == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(twin, "picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        twin.write(tmp_path / "twin", TINY, workers=1, progress=False)
    assert not (tmp_path / "twin").exists() and len(list(tmp_path.rglob("*.jpg"))) == 5
    drawn = []
    monkeypatch.setattr(twin, "picture", lambda *args: drawn.append(args) or real(*args))
    twin.write(tmp_path / "twin", TINY, workers=1, progress=False)
    assert len(drawn) == len(twin.plan(TINY)) - 5 and bits(tmp_path / "twin") == bits(tiny)


def test_two_writers_at_once_leave_one_whole_twin(tiny, tmp_path):
    threads = [threading.Thread(target=twin.write, args=(tmp_path / "twin", TINY), kwargs=dict(workers=1, progress=False)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bits(tmp_path / "twin") == bits(tiny)


def test_a_folder_that_is_something_else_is_left_alone(tiny, tmp_path):
    before = bits(tiny)
    with pytest.raises(ReidError, match="differs"):
        twin.write(tiny, TINY, seed=1, progress=False)
    with pytest.raises(ReidError, match="missing"):
        twin.write(tmp_path, TINY, progress=False)
    assert bits(tiny) == before and twin.write(tiny, TINY, progress=False) == tiny


@pytest.mark.parametrize("arguments, told", [(dict(size="huge"), "smoke, mini"), (dict(size=twin.TwinSize(1, 5, 8)), "2 identities"),
                                             (dict(size=TINY, look="upside down"), "masked"), (dict(size=TINY, workers=0), "workers=0"),
                                             (dict(size=TINY, seed=-1), "seed")])
def test_bad_arguments_are_told(tmp_path, arguments, told):
    with pytest.raises(UsageError, match=told):
        twin.write(tmp_path / "twin", **arguments)


def test_looks_change_only_what_they_say():
    table = twin.plan("mini")
    swapped, hidden = swap_outfits(table), LOOKS["masked"](table)
    people = swapped[swapped.kind == "person"]
    assert (people.outfit != people.subject).mean() > 0.95 and not hidden.visible.any()
    assert sorted(people[people.camid == 1].groupby("subject").outfit.first()) == sorted(people[people.camid == 1].subject.unique())
    for other in (swapped, hidden):
        assert other.drop(columns=["outfit", "visible"]).equals(table.drop(columns=["outfit", "visible"]))


def test_where_people_stand_does_not_depend_on_who_they_are():
    record = records_of(twin.plan(TINY))[0]
    one, two = (twin.shot_of(record._replace(subject=subject, outfit=subject, pid=subject), 0) for subject in (1, 2))
    assert (one.actor.x, one.actor.z, one.actor.heading, one.light, one.box) == (two.actor.x, two.actor.z, two.actor.heading, two.light, two.box)
    assert np.isclose(one.actor.pose.phase, two.actor.pose.phase)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReidError, match="Cannot write"):
        twin.write(tmp_path / "file" / "twin", TINY, progress=False)


@pytest.mark.parametrize("stop", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGKILL)], ids=["ctrl-c", "kill"])
def test_stopping_ends_all_processes_and_keeps_what_was_drawn(tmp_path, stop):
    code = f"from reid_nb.twins.market1501 import write; write({str(tmp_path / 'twin')!r}, 'mini', workers=2, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if any(tmp_path.rglob("*.jpg")):
            break
        time.sleep(0.1)
    stop(process.pid)
    assert process.wait(60) != 0
    assert not (tmp_path / "twin").exists() and any(tmp_path.rglob("*.jpg"))
    for _ in range(200):  # helper processes end a moment later
        alive = [one.pid for one in psutil.process_iter(["status"]) if one.info["status"] != "zombie" and in_group(one.pid, process.pid)]
        if not alive:
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {alive}")


def in_group(pid, group):
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False
