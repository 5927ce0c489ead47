"""What experts cost: the dense way computes the same, and the table has every row that was asked for. No timing is judged."""
import pytest
import torch

from reid_nb.errors import UsageError
from reid_nb.papers.uniat.experts import LAYOUTS
from reid_nb.papers.uniat.speed import DENSE, PHASES, TABLE_2, candidate, compute_all, measure, random_batch
from reid_nb.transforms import Classes

TINY = {"image_size": (32, 16), "embed_dim": 24, "depth": 1, "num_heads": 2}
CLASSES = Classes(3, 5, (0, 0, 1, 1, 2))


@pytest.mark.parametrize("name", [name for name in TABLE_2 if name != "MS-ReID"])
@pytest.mark.parametrize("switches", ["paper", "released"])
def test_all_experts_computed_or_the_chosen_alone_is_the_same(name, switches):
    model = candidate(name, CLASSES, switches=switches, **TINY).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.randn(3, 3, 32, 16)
    chosen = model(images)
    torch.testing.assert_close(compute_all(model)(images), chosen)


def test_a_table_of_ratios():
    names = ("MS-ReID", "MoAE 12" + DENSE)
    calls = []
    table = measure(names, batch=4, rounds=4, threads=1, device="cpu", classes=CLASSES, progress=lambda *at: calls.append(at), **TINY)
    assert list(zip(table["phase"], table["candidate"])) == [(phase, name) for phase in PHASES for name in names]
    assert (table.loc[table["candidate"] == "MS-ReID", "ratio"] == 1).all() and (table["ms"] > 0).all()
    assert calls == [(n, 4) for n in (1, 2, 3, 4)] and table.attrs["settings"]["batch"] == 4


def test_a_batch_has_both_modalities_and_consistent_targets():
    images, targets = random_batch(6, (32, 16), CLASSES, torch.device("cpu"))
    assert images.shape == (6, 3, 32, 16) and targets["modality"].sum() == 3
    assert all(CLASSES.owners[c] == p for p, c in zip(targets["pid"], targets["clothes"]))


def test_rows_are_those_of_table_2():
    assert set(filter(None, TABLE_2.values())) == set(LAYOUTS)


@pytest.mark.parametrize("wrong, told", [({"names": ("MoAE 13",)}, "MoAE 13"), ({"rounds": 3}, "rounds=3"), ({"phases": ("testing",)}, "testing")])
def test_what_cannot_be_measured_is_refused_at_once(wrong, told):
    with pytest.raises(UsageError, match=told):
        measure(**wrong)
