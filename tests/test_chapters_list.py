"""The index lists every notebook as it stands, and every chapter has the header that a reader needs."""
import pytest

from reid_nb.chapters import chapters, chapters_table
from reid_nb.files import project_root, read_json

COURSE = [chapter for chapter in chapters() if chapter.part in ("foundations", "cnl", "uniat") and not chapter.is_artefact]


def test_the_index_has_the_table_of_chapters():
    index = "\n\n".join("".join(cell["source"]) for cell in read_json(project_root() / "nbs" / "index.ipynb")["cells"])
    assert chapters_table() in index


@pytest.mark.parametrize("chapter", COURSE, ids=lambda chapter: chapter.path)
def test_a_chapter_says_what_it_teaches_and_what_it_takes(chapter):
    cells = read_json(project_root() / chapter.path)["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert chapter.minutes and chapter.exercises == 3
    assert all(word in prose for word in ("**What you will learn.**", "**Prerequisites.**"))


def test_every_notebook_is_listed_once():
    on_disk = {path.relative_to(project_root()).as_posix() for path in (project_root() / "nbs").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts}
    listed = [chapter.path for chapter in chapters()]
    assert len(listed) == len(set(listed)) and set(listed) | {"nbs/index.ipynb"} == on_disk
