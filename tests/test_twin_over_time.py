"""The twins over time: structure, bits, clothes, light, and no leak from the person into anything else."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from folders import bits
from reid_nb.errors import ReidError, UsageError
from reid_nb.twins import at_ustc, cuhk03, deepchange, llcm, ltcc, msmt17, prcc, regdb, sysu_mm01, vc_clothes
from reid_nb.twins.over_time import SEASONS, STRANGERS, WARDROBE, WARDROBES, Sighting, TwinSize, camera_of, person_of, picture, shot_of, wardrobe
from reid_nb.world.modalities import chemistry, night_place, near_infrared_cloth, render_near_infrared, thermal_cloth
from reid_nb.world.people import make_outfit
from reid_nb.world.scenes import masked, render
from reid_nb.world.writing import LOOKS, as_dataset, description, write_twin

TWINS = [at_ustc, cuhk03, deepchange, llcm, ltcc, msmt17, prcc, regdb, sysu_mm01, vc_clothes]
MINI = {module.SITE.name: module.plan("mini") for module in TWINS}
TINY = TwinSize(2, 2, 1, 1, height=16, width=8)
HASHES = {"at_ustc": "928c0ef0479c0926", "cuhk03": "2908dd374f923489", "deepchange": "ceee77a8944211f0", "llcm": "eb959aba68cc923b",
          "ltcc": "ed0a20d9977411fa", "msmt17": "dfac1571ed5899ef", "prcc": "ede754ed2ddd43f7", "regdb": "f24c4689e28e3494",
          "sysu_mm01": "f20317c8d22218ef", "vc_clothes": "d3b7629263b61107"}   # of the mini plans: their first 16 digits
MOMENTS = {"DT": ["DT"], "NT": ["NT"], "AD": ["DT", "NT"]}
name_of = lambda module: module.SITE.name


def records(table):
    return [Sighting(*row) for row in table.itertuples(index=False)]


def hollow(module, folder, size="smoke", seed=0):
    """The twin's folders, names and lists, with empty files for pictures."""
    twin, table = module.TWIN, module.plan(size, seed)
    about = description(twin.site.name, twin.generator, seed, module.SIZES[size], "normal", table, twin.columns)
    return write_twin(folder, records(table), about, lambda record: b"", (), 1, False, twin.lists(table, seed))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return regdb.write(tmp_path_factory.mktemp("twin") / "tiny", TINY, workers=1, progress=False)


@pytest.mark.parametrize("module", TWINS, ids=name_of)
@pytest.mark.parametrize("size", ["smoke", "mini", "night"])
def test_every_size_has_its_people_and_no_path_twice(module, size):
    wanted, table = module.SIZES[size], MINI[name_of(module)] if size == "mini" else module.plan(size)
    people = table[table.split != ""].groupby(table.split == "train").subject.nunique()
    if module is not regdb:   # whose tables are the test halves of ten splits
        assert (people[True], people[False]) == (wanted.train_ids, wanted.test_ids)
    assert table.path.is_unique and table.number.is_unique and (table.worn < WARDROBE).all()
    assert not set(table.subject[table.split == "train"]) & set(table.subject[table.split.isin(["query", "gallery"])])


@pytest.mark.parametrize("module", TWINS, ids=name_of)
def test_numbers_never_enter_the_ranges_of_others(module):
    table, site = MINI[name_of(module)], module.SITE
    assert table.subject.max() < STRANGERS and STRANGERS + 100 * table.number.max() < WARDROBES
    assert WARDROBES + WARDROBE * (STRANGERS + 9999) < 10_000_000 and site.own % 10_000_000 == 0


def test_every_twin_is_a_world_of_its_own():
    assert len({module.SITE.own for module in TWINS}) == len(TWINS)
    people = {name_of(module): shot_of(records(MINI[name_of(module)][:1])[0], module.SITE, 0).actor.person for module in TWINS}
    assert len(set(people.values())) == len(TWINS)


@pytest.mark.parametrize("module", TWINS, ids=name_of)
def test_a_person_wears_one_outfit_with_one_season_on_a_date(module):
    table = MINI[name_of(module)]
    assert (table.groupby(["subject", "worn"])[["season", "clothes"]].nunique() == 1).all().all() and table.season.isin(SEASONS).all()
    if module is not msmt17:   # whose people come back in the same clothes
        assert (table.groupby(["subject", "worn"]).date.nunique() == 1).all()


@pytest.mark.parametrize("module", TWINS, ids=name_of)
def test_infrared_means_an_infrared_eye(module):
    table = MINI[name_of(module)]
    kinds = np.array(module.SITE.kinds)[table.eye.to_numpy() - 1]
    assert ((kinds == "visible") == (table.modality == "rgb")).all()


# ---- AT-USTC

@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("interval", ["ST", "LT"])
def test_all_six_scenarios_have_valid_queries(moment, interval):
    table = MINI["at_ustc"]
    here = table[table.part.isin([f"{name}-{interval}" for name in MOMENTS[moment]])]
    pairs = here[here.split == "query"].merge(here[here.split == "gallery"], on="pid", suffixes=("", "_answer"))
    good = (pairs.camid != pairs.camid_answer) & ((pairs.modality != pairs.modality_answer) == (moment == "AD"))
    good &= (pairs.clothes == pairs.clothes_answer) == (interval == "ST")
    answered, asked = pairs[good].path.nunique(), (here.split == "query").sum()
    assert answered == asked if interval == "ST" else 0.7 * asked < answered < asked


def test_at_ustc_has_all_flags_cameras_and_dates():
    table = MINI["at_ustc"]
    flags = table.path.str.extract(r"-f(\d+)-")[0].astype(int)
    assert set(flags) == set(range(11)) and set(table.camid) == set(range(1, 17)) and set(table.date) == set(range(1, 14))
    for flag, (split, part) in at_ustc.PARTS.items():
        rows = table[flags == flag]
        assert set(rows.split) == {split} and set(rows.part) == {part}
    assert 0.05 < (flags == 1).sum() / flags.isin([0, 1]).sum() < 0.25


def test_at_ustc_trains_on_both_modalities_and_several_outfits():
    train = MINI["at_ustc"][MINI["at_ustc"].part == "train"]
    assert (train.groupby("pid").modality.nunique() == 2).all()
    assert train.groupby("pid").clothes.nunique().between(2, 4).all()
    owned = MINI["at_ustc"][MINI["at_ustc"].split == "query"].groupby("pid").clothes.nunique()
    assert 0 < (owned == 1).sum() < 20


# ---- the others' lists

def listed(module, size="smoke", seed=0):
    table = module.plan(size, seed)
    return table, module.TWIN.lists(table, seed)


@pytest.mark.parametrize("module", [llcm, regdb], ids=name_of)
def test_lists_of_paths_name_files_of_the_plan(module):
    table, lists = listed(module)
    for name, text in lists.items():
        if "test_id" not in name:
            assert {line.split()[0] for line in text.splitlines()} <= set(table.path)


def test_lists_of_msmt17_are_the_tables():
    table, lists = listed(msmt17)
    for name, rows in (("train", table.part == "train"), ("val", table.part == "val"), ("query", table.split == "query"), ("gallery", table.split == "gallery")):
        below = "train" if name in ("train", "val") else "test"
        lines = [line.split() for line in lists[f"list_{name}.txt"].splitlines()]
        assert {f"{below}/{path}" for path, _ in lines} == set(table.path[rows])
        assert all(int(path[:4]) == int(label) for path, label in lines)


def test_regdb_has_ten_splits_in_halves():
    table, lists = listed(regdb)
    assert len(lists) == 40
    for trial in range(1, 11):
        train, test = ({line.split("/")[1] for line in lists[f"idx/{side}_visible_{trial}.txt"].splitlines()} for side in ("train", "test"))
        assert len(train) == len(test) == 4 and not train & test
        tested = table.part.str.split(",").map(lambda trials: str(trial) in trials)
        assert test == set(table.pid[tested].astype(str))


def test_sysu_keeps_cameras_two_and_three_together_and_always_has_an_answer():
    table = MINI["sysu_mm01"]
    assert camera_of(sysu_mm01.SITE, 0, 2) == camera_of(sysu_mm01.SITE, 0, 3) != camera_of(sysu_mm01.SITE, 0, 1)
    for pid, rows in table[table.split != "train"].groupby("pid"):
        assert {3, 6} & set(rows.camid) and len({1, 4, 5} & set(rows.camid)) >= 2
    table, lists = listed(sysu_mm01)
    ids = {name: {int(number) for number in lists[f"exp/{name}_id.txt"].split(",")} for name in ("train", "val", "test")}
    assert ids["train"] | ids["val"] == set(table.pid[table.split == "train"]) and ids["test"] == set(table.pid[table.split == "query"])


def test_who_changes_clothes_in_ltcc_is_listed():
    table, lists = listed(ltcc, "mini")
    changing = {int(line) + 1 for line in lists["info/cloth-change_id_test.txt"].split()}
    owned = table[table.split != "train"].groupby("pid").clothes.nunique()
    assert changing == set(owned.index[owned > 1]) and 0.6 < len(changing) / len(owned) < 0.7


def test_prcc_changes_clothes_in_room_c_only():
    table = MINI["prcc"]
    assert (table.groupby("camid").clothes.first() == pd.Series({1: 1, 2: 1, 3: 2})).all() and (table.groupby("camid").worn.nunique() == 1).all()


# ---- bits and writing

def test_the_labels_are_the_same_on_every_machine():
    hashes = {name_of(module): as_dataset(name_of(module), MINI[name_of(module)], ".", module.TWIN.columns).labels_hash()[:16] for module in TWINS}
    assert hashes == HASHES


@pytest.mark.parametrize("module", TWINS, ids=name_of)
def test_the_loader_finds_what_the_plan_says(module, tmp_path):
    loader = pytest.importorskip(f"reid_nb.datasets.{name_of(module)}")
    folder = hollow(module, tmp_path / "twin")
    dataset = loader.load(folder)
    found, wanted = loader.counts(dataset), loader.expected(dataset)
    assert dataset.origin == "twin" and {name: found[name] for name in wanted} == wanted


def test_the_pictures_do_not_depend_on_the_number_of_processes(tiny, tmp_path):
    assert bits(regdb.write(tmp_path / "other", TINY, workers=2, progress=False)) == bits(tiny)


def test_a_night_is_the_same_the_second_time():
    record = records(MINI["at_ustc"][MINI["at_ustc"].eye == 9][:1])[0]
    first = picture(record, at_ustc.SITE, 0, 32, 16)
    night_place.cache_clear()
    assert (picture(record, at_ustc.SITE, 0, 32, 16) == first).all()


def test_a_folder_that_is_something_else_is_left_alone(tiny):
    before = bits(tiny)
    with pytest.raises(ReidError, match="differs"):
        regdb.write(tiny, TINY, seed=1, progress=False)
    assert bits(tiny) == before and regdb.write(tiny, TINY, progress=False) == tiny


def test_lists_and_formats_are_written(tiny):
    first = (tiny / "idx/train_thermal_1.txt").read_text().split()[0]
    assert (tiny / first).read_bytes()[:2] == b"BM" and len(list(tiny.rglob("*.bmp"))) == 80


@pytest.mark.parametrize("arguments, told", [(dict(size="huge"), "gpu, mini, night"), (dict(size=TwinSize(1, 5, 1, 1)), "2 identities"), (dict(size=TwinSize(2, 2, 1, 0)), "one image"),
                                             (dict(size=TwinSize(600, 600, 1, 1)), "999 at most"), (dict(size=TINY, look="odd"), "masked"), (dict(size=TINY, workers=0), "workers=0"),
                                             (dict(size=TINY, seed=-1), "seed")])
def test_bad_arguments_are_told(tmp_path, arguments, told):
    with pytest.raises(UsageError, match=told):
        at_ustc.write(tmp_path / "twin", **arguments)


# ---- the person, and nothing else

@pytest.mark.parametrize("eye", [1, 3, 11, 13])
def test_where_people_stand_does_not_depend_on_who_they_are(eye):
    record = records(MINI["at_ustc"][MINI["at_ustc"].eye == eye][:1])[0]
    one, two = (shot_of(record._replace(subject=subject, outfit=subject, pid=subject), at_ustc.SITE, 0) for subject in (1, 2))
    strip = lambda shot: (shot.actor.x, shot.actor.z, shot.actor.heading, shot.light, shot.box, shot.actor.pose, shot.camera)
    assert strip(one) == strip(two) and one.actor.person != two.actor.person


@pytest.mark.parametrize("kind", ["visible", "near infrared", "thermal"])
def test_nobody_is_there_when_the_person_is_not(kind):
    site = replace(at_ustc.SITE, kinds=(kind,) * 16)
    record = records(MINI["at_ustc"][MINI["at_ustc"].eye == 1][:1])[0]
    shown, hidden = (picture(record._replace(visible=visible), site, 0, 32, 16).astype(int) for visible in (True, False))
    others = picture(record._replace(visible=False, outfit=9), site, 0, 32, 16)
    assert np.abs(shown - hidden).max() > 30 and (hidden == others).all()
    assert kind == "visible" or (shown[..., 0] == shown[..., 2]).all()


def test_looks_change_only_what_they_say():
    table = MINI["at_ustc"]
    swapped, hidden = LOOKS["swapped"](table), LOOKS["masked"](table)
    assert (swapped.outfit != swapped.subject).mean() > 0.9 and not hidden.visible.any()
    for other in (swapped, hidden):
        assert other.drop(columns=["outfit", "visible"]).equals(table.drop(columns=["outfit", "visible"]))


def test_clothes_change_and_the_body_stays():
    record = records(MINI["at_ustc"][:1])[0]
    one, two = (shot_of(record._replace(worn=worn), at_ustc.SITE, 0) for worn in (0, 1))
    assert one.actor.person == two.actor.person and one.actor.outfit.top != two.actor.outfit.top and one.box == two.box


def test_seasons_dress_people():
    outfits = {season: [wardrobe(at_ustc.SITE, 0, owner, 0, season) for owner in range(1, 60)] for season in SEASONS}
    assert not any(outfit.coat for outfit in outfits["warm"]) and max(outfit.sleeves for outfit in outfits["warm"]) <= .42
    assert sum(outfit.coat is not None for outfit in outfits["cold"]) > 30 and min(outfit.sleeves for outfit in outfits["cold"]) == .98
    assert [outfit.top for outfit in outfits["warm"]] == [outfit.top for outfit in outfits["cold"]]


def test_people_keep_half_of_their_habits_and_the_first_outfit_is_anybodys():
    """The width of trousers is a real number, drawn anew for every outfit, so that two are equal by habit alone."""
    pairs = [[wardrobe(at_ustc.SITE, 0, owner, number) for number in (0, 1, 2)] for owner in range(1, 801)]
    kept = [first.bottom_width == second.bottom_width for first, second, _ in pairs]
    assert abs(np.mean(kept) - 0.5) < 4 * (0.5 * 0.5 / 800) ** 0.5
    assert all((first.bottom_width == third.bottom_width) == keeps for (first, _, third), keeps in zip(pairs, kept)), "a habit holds for all outfits"
    index = at_ustc.SITE.own + WARDROBES + WARDROBE * 1
    assert pairs[0][0] == make_outfit(0, index)


def test_people_of_one_tone_differ_in_shape_and_not_in_colour():
    plain = replace(at_ustc.SITE, one_tone=False)
    alike, varied = ([person_of(site, 0, number) for number in range(1, 201)] for site in (at_ustc.SITE, plain))
    assert len({person.hair for person in alike}) == 1 and len({person.hair for person in varied}) > 3
    tones, others = (np.log([person.skin for person in people]) for people in (alike, varied))
    assert 0.08 < tones[:, 0].std() < 0.12 and others[:, 0].std() > 0.5 and np.allclose(tones - tones[:, :1], tones[0] - tones[0, 0])
    assert all(replace(one, hair=two.hair, skin=two.skin) == two for one, two in zip(alike, varied)), "the shape is untouched"


def test_no_two_people_or_outfits_share_a_garment():
    tops = [wardrobe(at_ustc.SITE, 0, owner, number).top for owner in range(1, 40) for number in range(4)]
    assert len(set(tops)) == len(tops)


# ---- light

def test_near_infrared_is_not_luminance():
    tops = [wardrobe(at_ustc.SITE, 0, owner, 0).top for owner in range(1, 200)]
    day, night = (np.array([np.dot((.2126, .7152, .0722), look(top).colour) for top in tops]) for look in (lambda top: top, near_infrared_cloth))
    assert np.corrcoef(day, night)[0, 1] < 0.5
    assert (night[day < .06] > .35).mean() > 0.3      # dark by day, bright by night
    assert np.allclose(np.ptp([near_infrared_cloth(top).colour for top in tops], axis=1), 0)


def test_a_garment_keeps_its_chemistry():
    top = wardrobe(at_ustc.SITE, 0, 1, 0).top
    assert near_infrared_cloth(top) == near_infrared_cloth(top) and chemistry(top).random() == chemistry(top).random()
    assert thermal_cloth("coat", top).colour[0] < thermal_cloth("top", top).colour[0]


def test_hue_is_invisible_by_night():
    """Two dyes of the same luminance without pigment give the same near-infrared cloth, apart from the weave."""
    from reid_nb.world.modalities import _undyed
    red, green = _undyed((.5, .1, .1), .6, False), _undyed((.1, (.2126 * .4 + .7152 * .1 - .2126 * 0) / .7152, .1), .6, False)
    assert abs(red[0] - green[0]) < 0.01


def test_a_lamp_beside_the_lens_lights_who_is_near():
    from reid_nb.world.modalities import lamp_of, lamplight
    lamp = lamp_of(camera_of(at_ustc.SITE, 0, 9))
    light = [lamplight(lamp, (lamp.place + away * lamp.beam)[None], -lamp.beam[None])[0] for away in (3.0, 6.0, 12.0)]
    assert light[0] > 3 * light[1] > 9 * light[2]


def test_day_pictures_are_the_old_renderers():
    record = records(MINI["at_ustc"][MINI["at_ustc"].eye == 1][:1])[0]
    shot = shot_of(record, at_ustc.SITE, 0)
    assert (picture(record, at_ustc.SITE, 0, 32, 16) == render(shot, 32, 16)).all()
    assert (render_near_infrared(masked(shot), 32, 16) != render(masked(shot), 32, 16)).any()
