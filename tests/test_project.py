"""The project as a whole: notebooks and package say the same, the README too, and nothing heavy loads by itself."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reid_nb.files import project_root
from reid_nb.readme import notebook_text, readme_text

ROOT = project_root()
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def modules(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.py"))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A copy of the project in which everything was cleaned and exported anew, from nothing."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for tool in ("nbdev_clean", "nbdev_export"):
        subprocess.run([Path(sys.executable).parent / tool], cwd=copy, check=True, capture_output=True, env=outside_a_notebook())
    return copy


def outside_a_notebook() -> dict:
    """The environment without IN_TEST, which running a chapter sets and which makes nbdev_export do nothing."""
    return {name: value for name, value in os.environ.items() if name != "IN_TEST"}


def test_package_is_what_the_notebooks_export(exported):
    """Also finds modules that no notebook exports any more, and notebooks that were never exported."""
    ours, fresh = modules(ROOT / "reid_nb"), modules(exported / "reid_nb")
    assert sorted(ours) == sorted(fresh), "run nbdev_export, and delete modules whose notebook is gone"
    differing = [name for name in fresh if ours[name] != fresh[name]]
    assert not differing, f"run nbdev_export: {differing}"


def test_every_module_is_known_to_git():
    listed = subprocess.run(["git", "ls-files", "reid_nb", "nbs"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    here = {str(path.relative_to(ROOT)) for path in [*(ROOT / "reid_nb").rglob("*.py"), *NOTEBOOKS]}
    assert here <= set(listed.stdout.split())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_clean(path, exported):
    """Cleaned by nbdev, without outputs, with the kernel that papermill needs."""
    assert path.read_text() == (exported / path.relative_to(ROOT)).read_text(), "run nbdev_clean"
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
        assert len(cell["source"]) <= 40 or cell["cell_type"] != "code", f"a cell of {len(cell['source'])} lines"


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 80 and [link for link in links if not (ROOT / link).exists()] == []


def test_readme_is_the_index_notebook():
    assert (ROOT / "README.md").read_text() == readme_text(), "run reid-nb readme"


def test_top_level_holds_no_more_than_the_card_names():
    allowed = {"nbs", "reid_nb", "data", "outputs", "tests", "settings.ini", "setup.py", "README.md", "LICENSE",
               "MANIFEST.in", "constraints.txt"}
    listed = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert {name for name in listed.stdout.split() if not name.startswith(".")} <= allowed


@pytest.mark.parametrize("module", ["reid_nb", "reid_nb.cli", "reid_nb.plans", "reid_nb.papers.cnl.plan"])
def test_import_is_light(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'timm', 'papermill', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_notebook_text_shows_sources_and_tags(tmp_path):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["a = 1\n", "b = 2"], "outputs": ["x"]}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert notebook_text(tmp_path / "n.ipynb") == "# %% [code] tags=['parameters']\na = 1\nb = 2\n"


def test_git_diff_shows_a_notebook_as_text(tmp_path):
    """The documented command switches a readable diff on."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("config", "diff.reid-nb.textconv", f"{Path(sys.executable).parent / 'reid-nb'} text")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    target = tmp_path / "n.ipynb"
    target.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": ["a = 1"]}]}))
    git("add", "-A")
    target.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": ["a = 2"]}]}))
    assert "-a = 1\n+a = 2" in git("diff")
