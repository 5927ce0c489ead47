"""What every test shares: no display, and outputs that go to a temporary folder instead of the checkout."""
import os
import signal

import pytest

os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A test run that was started in the background of a shell ignores Ctrl-C, and so would every process that a test starts and
# then interrupts. A handler, unlike "ignore", is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def outputs(tmp_path_factory):
    """One temporary outputs root for all tests and all workers, so that a twin is rendered once."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "outputs"
    root.mkdir(exist_ok=True)
    os.environ["REID_NB_OUTPUTS"] = str(root)
    return root
