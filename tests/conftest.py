"""What every test shares: no display, and outputs that go to a temporary folder instead of the checkout."""
import os

import pytest

os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def outputs(tmp_path_factory):
    """One temporary outputs root for all tests and all workers, so that a twin is rendered once."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "outputs"
    root.mkdir(exist_ok=True)
    os.environ["REID_NB_OUTPUTS"] = str(root)
    return root
