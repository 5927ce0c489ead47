"""Exercises: three a chapter, solved in place, and without their answers in the students' copies."""
import ast
import json

import pytest

from reid_nb.chapters import chapters
from reid_nb.course import chapters_with_exercises, grade, student_copy, stub, with_checks_of, write_course
from reid_nb.errors import ReidError
from reid_nb.files import project_root, read_json

CHAPTERS = chapters_with_exercises()
RECORDS = project_root() / "nbs" / "foundations" / "05_records.ipynb"


def tagged(notebook, tag):
    return ["".join(cell["source"]) for cell in notebook["cells"] if tag in cell["metadata"].get("tags", [])]


def test_every_chapter_to_read_has_exercises():
    to_read = {project_root() / each.path for each in chapters() if each.part not in ("course", "laboratory") and not each.is_artefact}
    assert to_read <= set(CHAPTERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_three_exercises_each_with_solution_and_check(path):
    order = [tag for cell in read_json(path)["cells"] for tag in cell["metadata"].get("tags", [])
             if tag in ("exercise", "solution", "check")]
    assert order == ["exercise", "solution", "check"] * 3


def answers(source):
    """The statements of a solution cell that a student is to find: function and class bodies without docstrings, and what else is no import."""
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield from map(ast.unparse, node.body[1 if ast.get_docstring(node) else 0:])
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_answer_survives_in_the_students_copy(path):
    notebook = read_json(path)
    copied = student_copy(notebook)
    for solution, left in zip(tagged(notebook, "solution"), tagged(copied, "your-turn"), strict=True):
        assert all(answer not in left for answer in answers(solution))
        ast.parse(left)
    assert tagged(copied, "check") == tagged(notebook, "check")
    exported = [[cell for cell in each["cells"] if "".join(cell["source"]).startswith("#| export")] for each in (notebook, copied)]
    assert exported[0] == exported[1]


def test_a_stub_keeps_the_question():
    left = stub('def f(x):\n    """What f is."""\n    return x + 1\n\na, b = 1, 2\nprint(a)')
    assert left == 'def f(x):\n    """What f is."""\n    raise NotImplementedError(\'Your turn.\')\n\na, b = ...  # your turn'


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return write_course(tmp_path_factory.mktemp("course") / "course")


def test_the_course_is_written_whole_and_never_over_somebodys_work(course):
    written = sorted(course.rglob("*.ipynb"))
    assert len(written) == len(CHAPTERS)
    assert all(json.loads(path.read_text(encoding="utf-8"))["cells"] for path in written)
    with pytest.raises(ReidError, match="not empty"):
        write_course(course)


def test_the_page_of_contents_names_each_chapter_in_reading_order(course):
    page = (course / "README.md").read_text(encoding="utf-8")
    places = [page.index(f"({path.relative_to(course).as_posix()}) | ") for path in
              (course / each.relative_to(project_root() / "nbs") for each in CHAPTERS)]
    assert places == sorted(places)


def test_checks_fail_until_the_answers_are_there(course):
    """A real chapter: none of its three checks passes on the student's copy, all pass on the teacher's."""
    blank = grade(course / "foundations" / RECORDS.name, RECORDS)
    assert not blank["passed"].any() and (blank["error"] == "NotImplementedError: Your turn.").all()
    assert grade(RECORDS, RECORDS)["passed"].all()


def test_checks_that_were_made_easier_do_not_count(tmp_path):
    notebook = read_json(RECORDS)
    easier = json.loads(json.dumps(notebook))
    for cell in easier["cells"]:
        if "check" in cell["metadata"].get("tags", []):
            cell["source"] = ["assert True\n"]
    assert tagged(with_checks_of(easier, notebook, tmp_path), "check") == tagged(notebook, "check")
    easier["cells"] = [cell for cell in easier["cells"] if "check" not in cell["metadata"].get("tags", [])]
    with pytest.raises(ReidError, match="work.ipynb has 0 cells tagged check, its chapter 3"):
        with_checks_of(easier, notebook, tmp_path / "work.ipynb")
