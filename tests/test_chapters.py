"""Every chapter runs from first to last cell, solutions and checks included, without network and without a dataset."""
import pytest
from nbdev.test import test_nb as run_cells

from reid_nb.files import project_root
from reid_nb.plans import PAPERS, load_plan

ROOT = project_root()
ARTEFACTS = {artefact.notebook for paper in PAPERS for artefact in load_plan(paper, "smoke").artefacts.values()}
CHAPTERS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "nbs").rglob("*.ipynb"))
            if str(path.relative_to(ROOT)) not in ARTEFACTS and ".ipynb_checkpoints" not in path.parts]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_runs(chapter):
    passed, _ = run_cells(ROOT / chapter, skip_flags={"notest"}, basepath=ROOT)
    assert passed
