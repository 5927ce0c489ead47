"""The world's parts, against geometry that can be worked out by hand."""
from dataclasses import replace

import numpy as np
import pytest

from reid_nb.errors import UsageError
from reid_nb.world import camera, people, scenes, seeds


@pytest.fixture(scope="module")
def shot():
    lens = camera.make_camera(0, 1)
    actor = scenes.Actor(people.make_person(0, 1), replace(people.make_outfit(0, 1), coat=None), people.Pose(0.1), 0.0, lens.distance, np.pi)
    return scenes.Shot(0, lens, scenes.make_light(0, 1, 5), actor)


def test_seeds_are_fixed_and_separate():
    assert seeds.integers(4, 1000, 0, "identity", 7).tolist() == [746, 722, 173, 421]
    assert seeds.shuffled(6, 3, "labels", 1).tolist() == [3, 4, 0, 5, 1, 2]
    drawn = {seeds.stream(seed, kind, 1).random() for seed in (0, 1) for kind in seeds.KINDS}
    assert len(drawn) == 2 * len(seeds.KINDS)
    with pytest.raises(UsageError, match="-1"):
        seeds.stream(-1, "camera")


def test_projection_and_rays_are_inverse():
    lens, rng = camera.make_camera(0, 2), np.random.default_rng(0)
    points = np.stack([rng.uniform(-2, 2, 50), rng.uniform(0, 2, 50), rng.uniform(4, 12, 50)], axis=1)
    pixels, depth = camera.project(lens, points)
    again = camera.axes(lens)[1] + depth[:, None] * camera.rays(lens, pixels)
    assert np.allclose(again, points, atol=1e-4)


def test_a_pinhole_by_hand():
    lens = replace(camera.make_camera(0, 0), height=1.0, pitch=0.0, focal=100.0)
    pixels, depth = camera.project(lens, np.array([[1.0, 2.0, 4.0]]))
    assert np.allclose(pixels, [[240 + 25, 135 - 25]]) and np.allclose(depth, 4)


def test_the_sensor_gains_colours_and_noise():
    lens = replace(camera.make_camera(0, 0), exposure=1.0, white_balance=(1.0, 1.0, 1.0), saturation=1.0, gamma=2.0, noise=0.0)
    grey = np.full((16, 8, 3), 0.25, np.float32)
    assert (np.abs(camera.expose(lens, grey, 0.5, np.random.default_rng(0)) - 127.5) < 1).all()
    warm = camera.expose(replace(lens, white_balance=(1.2, 1.0, 0.8)), grey, 0.5, np.random.default_rng(0))
    assert (warm[..., 0] > 130).all() and (warm[..., 2] < 125).all()
    assert camera.expose(replace(lens, noise=0.05), grey, 0.5, np.random.default_rng(0)).std() > 1


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.73])
def test_a_pose_keeps_the_bones_and_the_feet_on_the_ground(phase):
    person = people.make_person(0, 4)
    rest = people.pose_skeleton(person, people.Pose(walking=False, arms=("swing", "swing")))
    walk = people.pose_skeleton(person, people.Pose(phase))
    for name, (parent, _) in people.JOINTS.items():
        if parent:
            lengths = [np.linalg.norm(s.places[name] - s.places[parent]) for s in (rest, walk)]
            assert lengths[0] == pytest.approx(lengths[1])
    mesh = people.body(person, replace(people.make_outfit(0, 4), bag=None), people.Pose(phase))
    assert -0.03 < mesh.vertices[:, 1].min() < 0.03
    assert person.stature * 0.9 < mesh.vertices[:, 1].max() < person.stature * 1.12


def test_half_a_cycle_later_the_legs_have_changed_places():
    person = people.make_person(0, 5)
    one, two = (people.pose_skeleton(person, people.Pose(phase)).places for phase in (0.2, 0.7))
    assert np.allclose(one["knee r"] * [-1, 1, 1], two["knee l"])


def test_every_mesh_is_sound():
    for index in range(40):
        mesh = people.body(people.make_person(1, index), people.make_outfit(1, index), people.Pose(index / 40, index % 4 > 0))
        assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices) and mesh.faces.min() >= 0
        assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3)
        assert len(mesh.tube) == len(mesh.faces) == len(mesh.corners) and mesh.tube.max() == len(mesh.tubes) - 1


def test_patterns_show_both_colours():
    u, v = (x.ravel() for x in np.meshgrid(np.linspace(0, 1, 80), np.linspace(0, 0.6, 80)))
    for name, pattern in people.PATTERNS.items():
        share = pattern(u, v, 0.1).mean()
        assert share == 0 if name == "plain" else 0.01 < share < 0.8, name


def test_a_shot_renders_to_the_same_bits(shot):
    picture = scenes.render(shot)
    assert picture.shape == (128, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, scenes.render(shot)) and picture.std() > 10


def test_masking_removes_the_person_and_nothing_else(shot):
    thing = scenes.make_thing(np.random.default_rng(1), 0.1, shot.actor.z - 1.0)
    hidden = scenes.masked(replace(shot, things=(thing,)))
    with_thing, empty = scenes.radiance(hidden), scenes.radiance(scenes.masked(shot))
    assert np.abs(with_thing - empty).max() > 0.02           # what stands in the way stays
    person = np.abs(scenes.radiance(shot) - empty).max(-1) > 0.05
    assert 0.1 < person.mean() < 0.6
    other = scenes.wearing(scenes.masked(shot), people.make_outfit(0, 99))
    assert np.array_equal(scenes.radiance(other), empty)     # nothing of the clothes is left
    assert np.array_equal(scenes.radiance(shot)[:8, :8], empty[:8, :8])


def test_changing_the_outfit_changes_only_the_outfit(shot):
    other = scenes.wearing(shot, replace(shot.actor.outfit, top=replace(shot.actor.outfit.top, colour=(.8, .1, .1), pattern="plain")))
    assert scenes.crop_window(other) == scenes.crop_window(shot) == scenes.crop_window(scenes.masked(shot))
    changed = np.abs(scenes.radiance(other) - scenes.radiance(shot)).max(-1) > 0.02
    assert changed[30:70].mean() > 0.1 and changed[110:].mean() < 0.02


def test_the_box_can_cut_legs_off(shot):
    whole, upper = scenes.crop_window(shot), scenes.crop_window(replace(shot, box=scenes.Box(bottom=0.5)))
    assert upper[3] == pytest.approx(whole[3] / 2) and upper[1] > whole[1]
