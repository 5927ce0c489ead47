"""A person's own pictures go the whole way: folder or list, training, evaluation, search, with cameras and without."""
import colorsys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reid_nb.datasets.folder import load_csv, load_folder
from reid_nb.errors import ReidError
from reid_nb.metrics import evaluate
from reid_nb.protocols import ALL_PAIRS, MARKET1501
from reid_nb.recipes import STRONG_BASELINE
from reid_nb.retrieval import extract, search
from reid_nb.training import load_trained, train

RECIPE = STRONG_BASELINE.scaled(name="own", model_args={"depth": 18, "width": 0.125}, image_size=(32, 16), identities=4, images=2, epochs=2,
                                pad=2, init="random")


def paint(path, person, people, rng):
    """A picture of nobody: two stripes in a person's colours, in changing light, with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = [np.multiply(colorsys.hsv_to_rgb((person / people + shift) % 1, 0.8, 0.8), 255) for shift in (0, 0.35)]
    picture = np.repeat(np.array(stripes), 16, axis=0)[:, None] * np.ones((1, 16, 1)) * rng.uniform(0.6, 1) + rng.normal(0, 25, (32, 16, 3))
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=92)


@pytest.fixture(scope="module")
def friends(tmp_path_factory):
    """Eight people with six pictures each, three from either of two cameras; the names say all that."""
    root, rng = tmp_path_factory.mktemp("own") / "friends", np.random.default_rng(0)
    for person in range(8):
        for number in range(6):
            paint(root / f"friend{person}" / f"p{person}_cam{1 + number % 2}_{number}.jpg", person, 8, rng)
    return root


@pytest.fixture(scope="module")
def run(friends):
    """A network trained for two epochs on the friends' folder, without cameras."""
    return train(RECIPE, load_folder(friends), 0, friends.parent / "run", threads=1, progress=False)


def score(run, own, protocol):
    query, gallery = (extract(load_trained(run), table, own.root, RECIPE.image_size, progress=False) for table in (own.query, own.gallery))
    return evaluate(query, gallery, own.query, own.gallery, protocol)


def chance(own, protocol, rounds=20):
    rngs = map(np.random.default_rng, range(rounds))
    return np.mean([evaluate(rng.normal(size=(len(own.query), 8)), rng.normal(size=(len(own.gallery), 8)), own.query, own.gallery, protocol).mAP
                    for rng in rngs])


def test_without_cameras(friends, run):
    own = load_folder(friends)
    found = score(run, own, ALL_PAIRS)
    assert "camid" not in own.query and len(found.per_query) == len(own.query) == 4
    assert found.mAP > chance(own, ALL_PAIRS) + 0.2


def test_with_cameras_from_names(friends, run):
    own = load_folder(friends, pattern=r"p(?P<pid>\d)_cam(?P<camid>\d)")
    found = score(run, own, MARKET1501)
    assert len(own.query) == 8 and found.per_query["valid"].all() and found.mAP > chance(own, MARKET1501) + 0.2


def test_a_list_says_the_same_as_the_folder(friends):
    own = load_folder(friends)
    paths = sorted(path.relative_to(friends).as_posix() for path in friends.rglob("*.jpg"))
    pd.DataFrame({"path": paths, "pid": [path.split("/")[0] for path in paths]}).to_csv(friends / "list.csv", index=False)
    assert load_csv(friends / "list.csv").labels_hash() == own.labels_hash()


def test_the_camera_rule_is_refused_without_cameras(friends, run):
    with pytest.raises(ReidError, match="needs the column 'camid'.*all_pairs"):
        score(run, load_folder(friends), MARKET1501)


def test_one_camera_for_all_leaves_no_answer_and_says_so(friends, run):
    own = load_folder(friends)
    single = type(own)(own.name, own.root, *(table.assign(camid=1) for table in own.splits.values()), origin="own")
    with pytest.raises(ReidError, match="4 lost all of theirs to the protocol market1501.*all_pairs"):
        score(run, single, MARKET1501)


def test_without_a_query_evaluation_says_so(tmp_path, run):
    rng = np.random.default_rng(1)
    for person in range(4):
        paint(tmp_path / f"{person}" / "only.jpg", person, 4, rng)
    with pytest.warns(UserWarning, match="2 of 2 test people"):
        own = load_folder(tmp_path)
    with pytest.raises(ReidError, match="query"):
        score(run, own, ALL_PAIRS)


def test_search_ranks_own_pictures(friends, run):
    own = load_folder(friends)
    found = search(friends / own.query["path"][0], friends, run.parent)
    assert len(found) == 47 and own.query["path"][0] not in set(found["path"])
    assert own.query["identity"][0] in found["path"][0]
