"""The ROREAS+ twin: published totals, bits, one robot's world that shares nobody with the Market twin."""
import numpy as np
import pytest

from folders import bits
from reid_nb.datasets.registry import verify
from reid_nb.datasets.roreas import COUNTS, load
from reid_nb.errors import ReidError, UsageError
from reid_nb.twins import market1501, roreas as twin
from reid_nb.world.scenes import make_place, masked, render
from reid_nb.world.writing import as_dataset, records_of

TINY = twin.TwinSize(2, 8, 2, 4, 5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return twin.write(tmp_path_factory.mktemp("twin") / "tiny", TINY, workers=1, progress=False)


def test_the_paper_size_has_the_published_numbers():
    table = twin.plan("paper")
    test = table[table.split != "train"]
    assert {"persons": table.pid.nunique(), "train identities": table.pid[table.split == "train"].nunique(),
            "train images": (table.split == "train").sum(), "test identities": test.pid.nunique(),
            "query images": (test.split == "query").sum(), "gallery images": (test.split == "gallery").sum()} == COUNTS


@pytest.mark.parametrize("size", ["smoke", "mini", "night"])
def test_smaller_sizes_keep_the_proportions_of_the_test_side(size):
    wanted, table = twin.SIZES[size], twin.plan(size)
    counts = table.split.value_counts()
    assert (counts["train"], counts["query"], counts["gallery"]) == (wanted.train_images, wanted.queries, wanted.gallery)
    assert counts["query"] / wanted.test_ids == pytest.approx(945 / 371, abs=0.05)
    assert counts["gallery"] / counts["query"] == pytest.approx(2520 / 945, abs=0.02)
    assert table.path.is_unique and not set(table.pid[table.split == "train"]) & set(table.pid[table.split != "train"])
    assert len(twin.plan("mini")) <= 2000


def test_every_query_is_the_only_one_of_its_tour_and_has_an_answer_on_another():
    table = twin.plan("mini", seed=3)
    query, gallery = table[table.split == "query"], table[table.split == "gallery"]
    assert not query.duplicated(["pid", "camid"]).any()
    for record in query.itertuples():
        assert ((gallery.pid == record.pid) & (gallery.camid != record.camid)).any()


def test_the_labels_are_the_same_on_every_machine():
    hashes = [as_dataset("roreas", twin.plan(size), ".").labels_hash() for size in ("mini", "paper")]
    assert hashes == ["05d51f52bc9e522203eff6f1ed970d8015d33fda08517ec8e8bcca6ae737a017",
                      "9b02f9644e9d59ee8728e4fe1d8e49e41ff9de430270014ea1ea33d24bd0f6b4"]


def test_shared_out_loses_nothing():
    for total, parts in ((34012, 50), (945, 371), (7, 7), (3, 7)):
        shares = twin.shared_out(total, parts, 0, 1)
        assert shares.sum() == total and np.ptp(shares) <= 1


def test_the_loader_finds_what_the_plan_says(tiny):
    dataset = load(tiny)
    assert dataset.origin == "twin" and verify(dataset)["ok"].all()
    assert dataset.labels_hash() == as_dataset("roreas", twin.plan(TINY), tiny).labels_hash()


def test_the_pictures_do_not_depend_on_the_number_of_processes(tiny, tmp_path):
    assert bits(twin.write(tmp_path / "other", TINY, workers=2, progress=False)) == bits(tiny)


def test_an_interrupted_twin_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    real, count = twin.picture, iter(range(100))

    def interrupted(*args):
        if next(count) == 5:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(twin, "picture", interrupted)
        twin.write(tmp_path / "twin", TINY, workers=1, progress=False)
    assert not (tmp_path / "twin").exists() and len(list(tmp_path.rglob("*.jpg"))) == 5
    twin.write(tmp_path / "twin", TINY, workers=1, progress=False)
    assert bits(tmp_path / "twin") == bits(tiny)


def test_a_folder_that_is_something_else_is_left_alone(tiny):
    with pytest.raises(ReidError, match="differs"):
        twin.write(tiny, TINY, seed=1, progress=False)


@pytest.mark.parametrize("arguments, told", [(dict(size="huge"), "gpu, mini, night"), (dict(size=twin.TwinSize(1, 8, 5, 10, 20)), "2 identities"),
                                             (dict(size=twin.TwinSize(2, 8, 5, 6, 20)), "2 to 12 tours"), (dict(size=TINY, look="odd"), "masked"),
                                             (dict(size=TINY, workers=0), "workers=0"), (dict(size=TINY, seed=-1), "seed")])
def test_bad_arguments_are_told(tmp_path, arguments, told):
    with pytest.raises(UsageError, match=told):
        twin.write(tmp_path / "twin", **arguments)


def test_nobody_lives_in_both_worlds():
    number = lambda module, size: {module.shot_of(record, 0).actor.person for record in records_of(module.plan(size))}
    assert not number(twin, TINY) & number(market1501, market1501.TwinSize(4, 4, 4))


def test_there_is_one_camera_at_eye_level_indoors():
    cameras = {twin.shot_of(record, 0).camera for record in records_of(twin.plan("smoke"))}
    lenses = {(c.height, c.pitch, c.focal, c.exposure, c.white_balance, c.saturation, c.gamma, c.noise, c.place) for c in cameras}
    assert len(cameras) > 5 and len(lenses) == 1 and 1.4 < next(iter(lenses))[0] < 1.7 and next(iter(lenses))[-1] == "corridor"


def test_people_stay_inside_the_walls_and_are_mostly_seen_from_behind():
    shots = [twin.shot_of(record, 0) for record in records_of(twin.plan("smoke"))]
    for shot in shots:
        corridor = twin.make_corridor(0, shot.camera.index)
        x, _, z = twin.turned(np.float32([[shot.actor.x, 0, shot.actor.z]]), corridor.turn)[0]
        assert corridor.left < x < corridor.right and 1.9 < z < 6.6
    assert 0.5 < np.mean([np.cos(shot.actor.heading) > 0.7 for shot in shots]) < 0.9


def test_where_people_stand_does_not_depend_on_who_they_are():
    record = records_of(twin.plan(TINY))[0]
    one, two = (twin.shot_of(record._replace(subject=subject, outfit=subject, pid=subject), 0) for subject in (1, 2))
    assert (one.actor.x, one.actor.z, one.actor.heading, one.light, one.box, one.things) == (two.actor.x, two.actor.z, two.actor.heading, two.light, two.box, two.things)


def test_a_corridor_is_finite_everywhere_and_its_lamps_shine():
    place = make_place(0, twin.robot_camera(0, 0))
    assert place.ambient.shape == (480, 480, 3) and np.isfinite(place.ambient).all() and np.isfinite(place.direct).all()
    assert place.ambient.min() >= 0 and place.direct.min() >= 0 and place.ambient.max() > 1.2


def test_nobody_leaves_the_picture_when_the_person_does():
    shot = twin.shot_of(records_of(twin.plan(TINY))[0], 0)
    assert np.abs(render(shot).astype(int) - render(masked(shot))).max() > 40
