"""The book: pages that open without a network, equations as MathML, failing chapters in view."""
import json
import re

import nbformat
import pytest

from reid_nb import book
from reid_nb.chapters import Chapter, chapters
from reid_nb.errors import ReidError
from reid_nb.files import project_root, read_json


def notebook(path, title, code):
    cells = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"# {title}\n\n> Summary."},
             {"cell_type": "markdown", "id": "b", "metadata": {}, "source": "Energy is $e = m c^2$; a price is `$5`.\n\n$$\\frac{1}{2}$$"},
             {"cell_type": "code", "id": "c", "metadata": {}, "source": code, "outputs": [], "execution_count": None}]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    notebook(root / "nbs" / "index.ipynb", "Index", "pass")
    notebook(root / "nbs" / "foundations" / "01_good.ipynb", "Good", "print(6 * 7)")
    notebook(root / "nbs" / "foundations" / "02_bad.ipynb", "Bad", "1 / 0")
    notebook(root / "nbs" / "foundations" / "03_worse.ipynb", "Worse", "1 +")
    listed = [Chapter(f"nbs/foundations/{name}.ipynb", "foundations", title, "Summary.", 5, 0)
              for name, title in [("01_good", "Good"), ("02_bad", "Bad <b>"), ("03_worse", "Worse")]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "project_root", lambda: root)
        page, failed = book.write_book(root / "book", listed)
        again = {path: path.stat().st_mtime_ns for path in (root / "book" / ".cache").iterdir()}
        book.write_book(root / "book", listed)
    return page.parent, failed, again


def test_a_chapter_is_executed_and_linked(written):
    text = (written[0] / "foundations" / "01_good.html").read_text()
    assert "42" in text and 'rel="next"' in text and "foundations/02_bad.html" in text and "5 min" in text


def test_a_failing_chapter_is_named_and_shown(written):
    folder, failed, _ = written
    assert failed[0] == "nbs/foundations/02_bad.ipynb: ZeroDivisionError: division by zero"
    assert failed[1].startswith("nbs/foundations/03_worse.ipynb: SyntaxError") and len(failed) == 2
    text = (folder / "foundations" / "02_bad.html").read_text()
    assert "This chapter failed when the book was made: ZeroDivisionError" in text and "Bad &lt;b&gt;" in text


def test_an_unchanged_chapter_is_not_executed_again(written):
    folder, _, before = written
    assert {path: path.stat().st_mtime_ns for path in (folder / ".cache").iterdir()} == before and len(before) == 1


def test_equations_are_mathml_and_nothing_is_fetched(written):
    for path in written[0].rglob("*.html"):
        text = path.read_text()
        assert "<mfrac>" in text and "<msup>" in text and "<code>$5</code>" in text
        assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"|@import|<script[^>]+src', text)


def test_links_lead_to_pages_of_the_book_or_are_plain_text():
    page = '<a href="foundations/02_x.ipynb">a</a> <a href="cnl/table_1.ipynb">b</a> <a href="../data/papers.bib">c</a> <a href="#d">d</a>'
    assert book.LINK.sub(book.link, page) == '<a href="foundations/02_x.html">a</a> b c <a href="#d">d</a>'


def test_every_formula_of_every_chapter_can_be_drawn():
    for chapter in chapters():
        for cell in read_json(project_root() / chapter.path)["cells"]:
            if cell["cell_type"] == "markdown":
                book.without_formulas("".join(cell["source"]), [])


def test_a_formula_that_cannot_be_drawn_is_shown():
    with pytest.raises(ReidError, match="a\\^b\\^c"):
        book.mathml("a^b^c", "inline")


@pytest.mark.parametrize("chapter", [chapter for chapter in chapters() if not chapter.is_artefact], ids=lambda chapter: chapter.path)
def test_every_chapter_becomes_a_page(chapter):
    """The chapter on the book itself, whose code speaks of formulas, included."""
    node = nbformat.read(project_root() / chapter.path, as_version=4)
    page = book.body_of(node)
    assert page.count("<math") >= sum("$$" in cell.source for cell in node.cells if cell.cell_type == "markdown")
    assert not book.TOKEN.search(page)
