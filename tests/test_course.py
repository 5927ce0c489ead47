"""Exercises: three a chapter, solved in place, and without their answers in the students' copies."""
import ast
import json

import pytest

from reid_nb.course import chapters_with_exercises, student_copy, stub, write_course
from reid_nb.errors import ReidError
from reid_nb.files import read_json

CHAPTERS = chapters_with_exercises()


def tagged(notebook, tag):
    return ["".join(cell["source"]) for cell in notebook["cells"] if tag in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_three_exercises_each_with_solution_and_check(path):
    order = [tag for cell in read_json(path)["cells"] for tag in cell["metadata"].get("tags", [])
             if tag in ("exercise", "solution", "check")]
    assert order == ["exercise", "solution", "check"] * 3


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_answer_survives_in_the_students_copy(path):
    notebook = read_json(path)
    copied = student_copy(notebook)
    for answer, left in zip(tagged(notebook, "solution"), tagged(copied, "your-turn"), strict=True):
        for node in ast.walk(ast.parse(answer)):
            if isinstance(node, ast.Return) and node.value is not None:
                assert ast.unparse(node) not in left
            if isinstance(node, ast.Assign):
                assert ast.unparse(node) not in left
        ast.parse(left)
    assert tagged(copied, "check") == tagged(notebook, "check")


def test_a_stub_keeps_the_question():
    left = stub('def f(x):\n    """What f is."""\n    return x + 1\n\na, b = 1, 2\nprint(a)')
    assert left == 'def f(x):\n    """What f is."""\n    raise NotImplementedError(\'Your turn.\')\n\na, b = ...  # your turn'


def test_the_check_fails_until_the_answer_is_there():
    notebook = {"cells": [{"cell_type": "code", "metadata": {"tags": ["solution"]}, "source": ["def f(x):\n", "    return x + 1"]}]}
    space = {}
    exec("".join(student_copy(notebook)["cells"][0]["source"]), space)
    with pytest.raises(NotImplementedError):
        space["f"](1)


def test_the_course_is_written_whole_and_never_over_somebodys_work(tmp_path):
    folder = write_course(tmp_path / "course")
    written = sorted(folder.rglob("*.ipynb"))
    assert len(written) == len(CHAPTERS)
    assert all(json.loads(path.read_text())["cells"] for path in written)
    with pytest.raises(ReidError, match="not empty"):
        write_course(folder)
