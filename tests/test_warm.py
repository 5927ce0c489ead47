"""Jobs that fork from a loaded process do what they would do alone, and end with whoever asked for them."""
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Client

import psutil
import pytest

from folders import bits
from reid_nb.plans import Data
from reid_nb.runs import prepare, twin_folder
from reid_nb.warm import PLACE, workshop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every job starts cold")


def call(log, *words):
    return [sys.executable, "-c", "from reid_nb.warm import main; main()", str(log), *map(str, words)]


def wait_for_the_door(where):
    until = time.time() + 60
    while not os.path.exists(where[PLACE]) and time.time() < until:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def shop():
    with workshop() as where:
        wait_for_the_door(where)
        yield where


def server(where):
    return next(process for process in psutil.process_iter(["cmdline"]) if where[PLACE] in (process.info["cmdline"] or []))


def test_a_training_computes_the_same_bits(shop, tmp_path):
    """The weights, and every query's score."""
    prepare(Data("market1501", "smoke"))
    found, twin = [], twin_folder(Data("market1501", "smoke"))
    for name, where in [("warm", shop), ("cold", {})]:
        outputs = tmp_path / name
        (outputs / "twins").mkdir(parents=True)
        (outputs / "twins" / twin.name).symlink_to(twin)
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "REID_NB_OUTPUTS": str(outputs), **where}
        log = tmp_path / f"{name}.log"
        done = subprocess.run(call(log, "run", "cnl", "trunk-s0", "--preset", "smoke"), env=environment)
        assert done.returncode == 0, log.read_text()
        found.append({path: value for path, value in bits(outputs / "smoke" / "runs").items()
                      if path.endswith(("model.safetensors", "per_query.csv"))})
    assert len(found[0]) == 2 and found[0] == found[1]


@pytest.mark.parametrize("warm", [True, False])
def test_exit_code_and_words_come_back(shop, tmp_path, warm):
    log = tmp_path / "log"
    done = subprocess.run(call(log, "plan", "nobody"), env={**os.environ, **(shop if warm else {})}, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout + done.stderr
    assert "nobody" in log.read_text()


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_job_ends_with_its_caller_and_the_next_one_is_served(shop, tmp_path, sent, code):
    log, before = tmp_path / "log", server(shop).children()
    caller = subprocess.Popen(call(log, "bench", "world"), env={**os.environ, **shop})
    until, fork = time.time() + 60, []
    while not fork and time.time() < until:
        fork = [process for process in server(shop).children() if process not in before]
        time.sleep(0.1)
    caller.send_signal(sent)
    caller.wait(timeout=60)
    fork[0].wait(timeout=60)
    assert caller.returncode == code
    assert subprocess.run(call(log, "plan", "cnl"), env={**os.environ, **shop}).returncode == 0


def test_a_job_that_is_stopped_at_once_says_so_and_nothing_else(tmp_path, capfd):
    with workshop() as where:
        wait_for_the_door(where)
        codes = set()
        for _ in range(20):
            with Client(where[PLACE], "AF_UNIX") as caller:
                caller.send((["plan", "cnl"], str(tmp_path / "log"), os.getcwd(), dict(os.environ)))
                caller.send("stop")
                codes.add(caller.recv())
    assert codes == {130} and not capfd.readouterr().err


def test_nothing_is_left_of_a_workshop(tmp_path):
    with workshop() as where:
        wait_for_the_door(where)
        process = server(where)
    assert not process.is_running() and not os.path.exists(where[PLACE])
