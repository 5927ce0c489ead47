"""A run's address: what changes it, what does not; and what a missing run says."""
import dataclasses
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from reid_nb import runs
from reid_nb.cells import Sheet
from reid_nb.errors import ReidError, UsageError
from reid_nb.plans import PRESETS, Data, Evaluate, Measure, Plan, Train, load_plan, slug
from reid_nb.recipes import STRONG_BASELINE
from reid_nb.runs import Latency, put_latency

DATA = Data("market1501", "smoke")


@pytest.fixture(autouse=True)
def data_is_here(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "fingerprint", lambda data: f"pixels of {data.label}")
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))


def plan_of(**changes):
    base = Train("a", STRONG_BASELINE, DATA, seed=0, settings=("market1501/standard",))
    jobs = {"a": dataclasses.replace(base, **changes), "b": dataclasses.replace(base, name="b", start="a")}
    return Plan("cnl", "title", PRESETS["smoke"], 1, jobs, {})


@pytest.mark.parametrize("changes", [
    {"seed": 1}, {"threads": 2}, {"data": Data("market1501", "mini")}, {"settings": ("market1501/standard", "another")},
    {"recipe": STRONG_BASELINE.scaled(lr=1e-3)}], ids=lambda changes: next(iter(changes)))
def test_address_follows_what_decides_the_outcome(changes):
    assert runs.address(plan_of(), "a") != runs.address(plan_of(**changes), "a")
    assert runs.address(plan_of(), "b") != runs.address(plan_of(**changes), "b"), "a run follows the run it starts from"


def test_address_ignores_what_does_not():
    assert runs.address(plan_of(), "a") == runs.address(plan_of(cost=999.0), "a")


def test_code_hash_sees_code_and_not_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "module_path", lambda name: tmp_path / "m.py" if name == "reid_nb.m" else None)
    seen = []
    for text in ['def f(x):\n    """One."""\n    return x + 1\n', '# a comment\ndef f(x):\n    """Two."""\n\n    return x + 1\n',
                 'def f(x):\n    """One."""\n    return x + 2\n']:
        (tmp_path / "m.py").write_text(text)
        runs.source_of.cache_clear()
        seen.append(runs.code_hash("reid_nb.m"))
    runs.source_of.cache_clear()
    assert seen[0] == seen[1] != seen[2]


def test_code_hash_follows_imports_through_the_package():
    modules = runs.source_of("reid_nb.training")[1]
    assert "reid_nb.losses" in modules or "reid_nb.recipes" in modules
    assert not any("papers" in name for name in modules), "training must not depend on a paper"


def test_code_hash_covers_a_methods_own_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    for text in ("def trunk():\n    return 1\n", "def trunk():\n    return 2\n"):
        (tmp_path / "own_file_of_a_method.py").write_text(text)
        runs.source_of.cache_clear()
        seen.append(runs.code_hash("own_file_of_a_method", "reid_nb.errors"))
    assert seen[0] != seen[1]
    with pytest.raises(UsageError, match="no module 'nobody_wrote_this'"):
        runs.code_hash("nobody_wrote_this")


def test_latency_of_another_machine_is_another_run(monkeypatch):
    plan = load_plan("cnl", "smoke")
    here = runs.address(plan, "latency")
    monkeypatch.setattr(runs, "processor", lambda: "another processor")
    assert runs.address(plan, "latency") != here


def test_a_latency_depends_on_these_and_no_more():
    found = runs.ingredients(load_plan("cnl", "smoke"), load_plan("cnl", "smoke").job("latency"))
    assert set(found) == {"candidates", "backends", "batch", "image_size", "rounds", "kind", "start", "data", "code", "machine", "cores"}


TIMER = """
import pandas as pd

def take(names, progress):
    progress(1, 2)
    table = pd.DataFrame({"candidate": names, "ratio": 1.0})
    table.attrs = {"machine": {"cores": 2}, "settings": {"batch": 4}}
    return table
"""


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """A function of (arguments of the job) that gives a plan whose only job measures with a module of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "timer_of_a_test.py").write_text(TIMER)
    runs.source_of.cache_clear()
    yield lambda **changes: Plan("cnl", "title", PRESETS["smoke"], 1, {"m": Measure(**{"name": "m", "function": "timer_of_a_test:take", "arguments": {"names": ("a", "b")}} | changes)}, {})
    sys.modules.pop("timer_of_a_test", None)
    runs.source_of.cache_clear()


def test_a_measurement_of_a_papers_own_is_a_run(timed):
    plan = timed()
    folder = runs.execute(plan, "m")
    run = runs.load_run(plan, "m")
    assert run.table("times.csv")["candidate"].tolist() == ["a", "b"] and runs.read_json(folder / "progress.json") == {"epoch": 1, "of": 2}
    assert (run.record["kind"], run.record["measured"], run.record["conditions"]) == ("measure", {"batch": 4}, {"cores": 2})


def test_a_measurement_follows_its_arguments_its_code_and_its_machine(timed, monkeypatch, tmp_path):
    here = runs.address(timed(), "m")
    assert here == runs.address(timed(cost=5.0), "m") != runs.address(timed(arguments={"names": ("a",)}), "m")
    with monkeypatch.context() as patched:
        patched.setattr(runs, "available_cores", lambda: 99)
        assert runs.address(timed(), "m") != here
    (tmp_path / "timer_of_a_test.py").write_text(TIMER.replace("1.0", "2.0"))
    runs.source_of.cache_clear()
    assert runs.address(timed(), "m") != here


def test_a_run_that_is_not_done_names_the_command():
    with pytest.raises(ReidError, match="reid-nb run cnl a --preset smoke"):
        runs.load_run(plan_of(), "a")


def test_a_run_is_taken_over_from_another_preset(monkeypatch, tmp_path):
    """The seed that both presets share is trained once; another seed or another recipe is not the same run."""
    monkeypatch.setattr(runs, "fingerprint", lambda data: "pixels")
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    mini, night = load_plan("cnl", "mini"), load_plan("cnl", "night")
    there, here = runs.run_folder(mini, "resnet-50-s0"), runs.run_folder(night, "resnet-50-s0")
    (there / "checkpoints").mkdir(parents=True)
    (here / "checkpoints").mkdir(parents=True)   # of a training that was interrupted
    (there / "per_query.csv").write_text("ap\n0.5\n")
    runs.write_json(there / "run.json", {"preset": "mini"})
    monkeypatch.setattr(runs, "execute_train", lambda *_: pytest.fail("trained again"))
    assert runs.execute(night, "resnet-50-s0") == here and (here / "per_query.csv").read_text() == "ap\n0.5\n"
    assert runs.read_json(here / "run.json") == {"preset": "mini"} and there.is_dir()
    assert [path.name for path in here.parent.iterdir()] == [here.name]
    assert not runs.take_over(night, runs.run_folder(night, "resnet-50-s1")) and not runs.take_over(night, runs.run_folder(night, "hac-8-s0"))


def test_unknown_names():
    for call, words in [(lambda: load_plan("cnn", "mini"), "Did you mean 'cnl'"), (lambda: load_plan("cnl", "mimi"), "'mini'"),
                        (lambda: load_plan("cnl", "mini").job("c-nl-8-s1"), "c-nl-8-s0"),
                        (lambda: load_plan("cnl", "mini").artefact("table1"), "table_1"),
                        (lambda: load_plan("cnl", "mini", 0), "at least one seed"),
                        (lambda: runs.twin_module("market"), "market1501")]:
        with pytest.raises(UsageError, match=words):
            call()


def test_a_plan_holds_all_that_its_parts_need():
    with pytest.raises(UsageError, match="needs a job 'z'"):
        Plan("cnl", "t", PRESETS["smoke"], 1, {"a": dataclasses.replace(plan_of().jobs["b"], start="z")}, {})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_of_table_1_is_trained_or_said_to_be_left_out(preset):
    plan = load_plan("cnl", preset)
    trained = {name.rsplit("-s", 1)[0] for name in plan.artefact("table_1").needs if name != "latency"}
    measured = {"smoke": 6, "gpu": 2 + 6 * 17 + 6, "paper": 2 + 6 * 17 + 6}   # ResNets, six blocks at 17 positions, rows of two and three blocks
    assert len(plan.jobs["latency"].candidates) == measured.get(preset, 39)
    assert set(plan.artefact("figure_5").needs) <= set(plan.artefact("search").needs)
    assert len(trained) == (5 if preset == "smoke" else 15)
    assert all(job.threads >= 1 for job in plan.jobs.values() if job.kind == "train")


def transfer_plan(**changes):
    """Trained on one dataset, scored on another, then trained there in two steps."""
    there = Data("roreas", "smoke")
    base = Train("a", STRONG_BASELINE, DATA, seed=0, settings=("market1501/standard",))
    jobs = [base, Evaluate("far", "a", **{"data": there, "settings": ("market1501/standard",), **changes}),
            dataclasses.replace(base, name="step1", start="a", data=there),
            dataclasses.replace(base, name="step2", start="step1", data=there), dataclasses.replace(base, name="warm", start="a")]
    return Plan("cnl", "title", PRESETS["smoke"], 1, {job.name: job for job in jobs}, {})


def test_a_score_on_another_dataset_has_an_address_of_its_own():
    far = runs.address(transfer_plan(), "far")
    assert far not in {runs.address(transfer_plan(), name) for name in ("a", "step1")}
    assert far != runs.address(transfer_plan(data=DATA), "far") and far != runs.address(transfer_plan(settings=("another",)), "far")
    assert far == runs.address(transfer_plan(cost=1.0), "far")


def test_what_a_network_was_trained_on_before_is_told():
    plan = transfer_plan()
    told = {name: runs.weights_of(plan, job) for name, job in plan.jobs.items()}
    elsewhere = "trained on market1501 (twin, smoke)"
    assert told == {"a": STRONG_BASELINE.init, "warm": "twin-trunk", "far": elsewhere, "step1": elsewhere, "step2": elsewhere}


@pytest.fixture
def growing(monkeypatch):
    """A plan whose next job follows from the score of the one before: a, then b, then nothing."""
    base = Train("a", STRONG_BASELINE, DATA, seed=0, settings=("market1501/standard",))

    def grow(plan, finished):
        last = list(plan.jobs.values())[-1]
        done = finished(last.name)
        if done and last.name == "a":
            job = dataclasses.replace(base, name="b", seed=round(100 * done.score()))
            return dataclasses.replace(plan, jobs={**plan.jobs, "b": job})
        return plan

    plan = Plan("cnl", "title", PRESETS["smoke"], 1, {"a": base}, {}, grow)
    monkeypatch.setattr(runs, "load_plan", lambda *args: plan)
    return plan


def test_a_plan_grows_with_its_results(growing):
    assert list(runs.current_plan("cnl", "smoke").jobs) == ["a"], "nothing has run yet"
    runs.write_json(runs.run_folder(growing, "a") / "run.json", {"settings": ["market1501/standard"], "scores": {"market1501/standard": {"mAP": 0.07}}})
    assert runs.current_plan("cnl", "smoke").job("b").seed == 7, "the next round follows from the score"


def test_a_result_of_other_code_opens_no_round(growing, monkeypatch):
    runs.write_json(runs.run_folder(growing, "a") / "run.json", {"settings": ["market1501/standard"], "scores": {"market1501/standard": {"mAP": 0.07}}})
    monkeypatch.setattr(runs, "fingerprint", lambda data: "other pixels")
    assert list(runs.current_plan("cnl", "smoke").jobs) == ["a"]


def test_a_plan_can_be_listed_before_any_data_is_rendered(growing, monkeypatch):
    monkeypatch.setattr(runs, "fingerprint", lambda data: pytest.fail("data was asked for"))
    assert list(runs.current_plan("cnl", "smoke").jobs) == ["a"]


def test_slug_is_safe_everywhere():
    assert slug("C-NL @ 6, 8, 14 (circle loss)") == "c-nl-6-8-14-circle-loss"


@pytest.fixture
def market(monkeypatch, tmp_path):
    """A registry whose market1501 is `market.dataset`, verified or not."""
    from types import SimpleNamespace

    import pandas as pd

    found = SimpleNamespace(origin="real", ok=True)
    monkeypatch.setattr(runs.registry, "load", lambda name, root=None: SimpleNamespace(root=tmp_path, origin=found.origin))
    checks = lambda dataset: pd.DataFrame({"expected": [12936], "found": [1800], "ok": [found.ok]}, index=["train images"])
    monkeypatch.setattr(runs.registry, "verify", checks)
    return found


def test_a_twin_in_the_real_datasets_place_is_refused(market):
    real = Data("market1501", None)
    assert runs.prepare(real).origin == "real"
    market.origin = "twin"
    with pytest.raises(ReidError, match="holds a twin of market1501"):
        runs.prepare(real)


def test_an_incomplete_real_dataset_is_refused(market):
    market.ok = False
    with pytest.raises(ReidError, match="train images: 1800 instead of 12936"):
        runs.prepare(Data("market1501", None))


@pytest.mark.parametrize("noisy", [True, False])
def test_a_noisy_latency_says_so_in_its_cell(noisy):
    table = pd.DataFrame([{"candidate": "AGW @ 8", "ms": 90.0, "ms_q1": 89.0, "ms_q3": 92.0, "speed": 11.1, "ratio": 1.2, "ratio_q1": 1.19, "ratio_q3": 1.22,
                           "noisy": noisy}]).set_index("candidate")
    run = SimpleNamespace(name="latency", record={"image_size": [256, 128], "batch": 2, "conditions": {"cores": 2}})
    session = SimpleNamespace(sheet=Sheet("cnl", "figure_4", PRESETS["mini"]))
    put_latency(session, Latency(table, "eager", run), "AGW @ 7", "AGW @ 8")
    cell = session.sheet.frame().query("row == 'AGW @ 7' and column == 'slow-down'").iloc[0]
    assert cell["value"] == 1.2 and cell["spread"] == pytest.approx(0.015) and "measured as AGW @ 8" in cell["protocol"]
    assert cell["protocol"].endswith("noisy") == noisy
