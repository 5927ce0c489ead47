"""The batch: its graph, its lock, its progress, and the whole way from nothing to a report."""
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from reid_nb import artefacts, reproduce, runs
from reid_nb.cells import CELL_COLUMNS
from reid_nb.claims import CLAIM_COLUMNS
from reid_nb.errors import ReidError, UsageError
from reid_nb.files import read_json, write_json
from reid_nb.machine import available_cores
from reid_nb.plans import load_plan

REID_NB = Path(sys.executable).parent / "reid-nb"


def call(*words, outputs, check=None, **more):
    done = subprocess.run([REID_NB, *words], env={**os.environ, "REID_NB_OUTPUTS": str(outputs)}, capture_output=True,
                          text=True, timeout=600, **more)
    assert check is None or done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture
def plan(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "fingerprint", lambda data: "pixels")
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    return load_plan("cnl", "mini")


def test_snakefile_orders_trunk_variant_table(plan, tmp_path):
    """Snakemake itself reads the file and lists the jobs of Table I in an order that respects their needs."""
    path = reproduce.write_snakefile(tmp_path, [reproduce.Share.of(plan, ["table_1"])])
    dry = subprocess.run([sys.executable, "-m", "snakemake", "-s", path, "-d", tmp_path, "-n", "--cores", "2"],
                         capture_output=True, text=True)
    text = dry.stdout + dry.stderr
    assert dry.returncode == 0, text
    assert text.index("rule run_cnl_trunk_s0") < text.index("rule run_cnl_c_nl_8_s0") < text.index("rule artefact_cnl_table_1")
    assert "rule run_cnl_latency" in text and "artefact_cnl_figure_4" not in text


def test_latency_takes_all_cores_and_training_its_own_threads(plan, tmp_path):
    text = reproduce.write_snakefile(tmp_path, [reproduce.Share.of(plan, list(plan.artefacts))]).read_text()
    assert f"threads: {available_cores()}\n" in text.split("rule run_cnl_latency")[1].split("rule ")[0]
    assert "threads: 1\n" in text.split("rule run_cnl_c_nl_8_s0")[1].split("rule ")[0]


def test_a_measurement_of_a_papers_own_takes_all_cores_too(plan, tmp_path):
    text = reproduce.write_snakefile(tmp_path, [reproduce.Share.of(load_plan("uniat", "mini"), ["table_2"])]).read_text()
    rule = text.split("rule run_uniat_times")[1].split("rule ")[0]
    assert f"threads: {available_cores()}\n" in rule and "reid_nb.cli" in rule, "all cores, and a process that nobody used"
    assert "reid_nb.warm" in text.split("rule run_uniat_said_moae_s0")[1].split("rule ")[0]


def test_only_what_an_artefact_needs_is_done(plan):
    assert reproduce.needed(plan, ["figure_4"]) == ["latency"]
    assert {"latency", "trunk-s0", "c-nl-8-s0"} <= set(reproduce.needed(plan, ["table_1"]))


def test_the_core_is_a_part_and_a_name_is_checked(plan):
    everything, core = reproduce.select(plan, [], False), reproduce.select(plan, [], True)
    assert everything == list(plan.artefacts) and core == ["table_1", "figure_1", "figure_4"]
    assert reproduce.select(plan, ["figure_4"], True) == ["figure_4"]
    with pytest.raises(UsageError, match="table_1"):
        reproduce.select(plan, ["table_9"], False)


def rounds(tmp_path, monkeypatch, plan, failing=()):
    """Let three rounds of a growing plan pass without training anything; the jobs of each round and what failed."""
    names, seen = ["c-nl-8-s0", "hac-8-s0", "agw-7-s0"], []
    done = lambda: [name for name in names if (runs.run_folder(plan, name) / "run.json").is_file()]

    def current(*_):
        needs = tuple(names[:len(done()) + 1])
        return dataclasses.replace(plan, artefacts={"search": dataclasses.replace(plan.artefact("search"), needs=needs)})

    def graph(folder, shares, extra, say):
        share = shares[0]
        seen.append([name for name in share.plan.artefact("search").needs if name not in done()])
        for name in ["trunk-s0", *seen[-1]]:
            if name not in failing:
                runs.write_json(runs.run_folder(plan, name) / "run.json", {})
        (folder / ".done").mkdir(exist_ok=True)
        for name in share.artefacts:
            assert len(done()) == len(names), f"{name} was made before its last round"
            (folder / reproduce.stamp(share.plan, name)).touch()
        return True

    monkeypatch.setattr(reproduce, "current_plan", current)
    monkeypatch.setattr(reproduce, "run_graph", graph)
    return seen, reproduce.run_rounds(tmp_path / "mini", ["cnl"], None, (), False, (), print)[2]


def test_rounds_go_on_until_nothing_new_is_asked_for(plan, tmp_path, monkeypatch):
    seen, failed = rounds(tmp_path, monkeypatch, plan)
    assert seen == [["c-nl-8-s0"], ["hac-8-s0"], ["agw-7-s0"], []] and not failed, "three rounds, and then the artefact"
    again, failed = rounds(tmp_path, monkeypatch, plan)
    assert again == [[], []] and not failed, "a second call finds everything done"


def test_a_failed_round_opens_no_other(plan, tmp_path, monkeypatch):
    seen, failed = rounds(tmp_path, monkeypatch, plan, failing=("hac-8-s0",))
    assert seen == [["c-nl-8-s0"], ["hac-8-s0"]] and "hac-8-s0" in failed[0]
    seen, failed = rounds(tmp_path, monkeypatch, plan)
    assert seen == [["hac-8-s0"], ["agw-7-s0"], []] and not failed, "the same call goes on where it stopped"


def test_a_planned_paper_is_called_planned():
    with pytest.raises(UsageError, match="'next' is planned and not here yet. Here: cnl, uniat"):
        load_plan("next", "mini")


def test_two_batches_in_one_folder(tmp_path):
    with reproduce.locked(tmp_path, "reproduction"):
        code = f"from reid_nb.files import locked\nwith locked({str(tmp_path)!r}, 'reproduction'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode and f"another reproduction (process {os.getpid()})" in other.stderr and "REID_NB_OUTPUTS" in other.stderr
    with reproduce.locked(tmp_path, "reproduction"):
        pass  # free again


def test_snakemake_takes_its_own_options():
    words = reproduce.snakemake_command(["--executor", "slurm", "--jobs", "20"])
    assert words[-4:] == ["--executor", "slurm", "--jobs", "20"] and "--cores" not in words
    assert "--cores" in reproduce.snakemake_command([])


@pytest.mark.parametrize("words, told", [(["--nosuchoption"], "Neither reid-nb nor Snakemake knows --nosuchoption"), (["--jobs"], "Snakemake refuses --jobs")])
def test_a_misspelt_option_is_found_before_anything_is_rendered(words, told, tmp_path, monkeypatch):
    monkeypatch.setenv("REID_NB_OUTPUTS", str(tmp_path))
    with pytest.raises(UsageError, match=told):
        reproduce.reproduce(["cnl"], "smoke", snakemake_arguments=words)
    assert list(tmp_path.iterdir()) == []
    reproduce.check_options(["--executor", "local", "--jobs", "2"])


def test_time_left_follows_the_speed_seen(plan, tmp_path):
    progress = reproduce.Progress(tmp_path, [reproduce.Share.of(plan, ["figure_4"])])
    total = sum(cost for _, cost in progress.steps.values())
    assert progress.seconds_left() == pytest.approx(total / available_cores())
    progress.started = time.time() - 100
    first = next(iter(progress.steps))
    progress.done.add(first)
    done = progress.steps[first][1]
    assert progress.seconds_left() == pytest.approx((total - done) * 100 / done, rel=0.05)


def test_what_an_interrupted_batch_left_says_nothing_about_speed(plan, tmp_path):
    share = [reproduce.Share.of(plan, ["table_1"])]
    path, (_, cost) = max(reproduce.Progress(tmp_path, share).steps.items(), key=lambda step: step[1][1])
    write_json(tmp_path / Path(path).parent / "progress.json", {"epoch": 8, "of": 10, "seconds_left": 1})
    progress = reproduce.Progress(tmp_path, share)
    total = sum(cost for _, cost in progress.steps.values())
    assert progress.seconds_left() == pytest.approx((total - 0.8 * cost) / available_cores())


def test_parameters_are_checked_before_anything_runs(plan, tmp_path):
    for given, words in [({"sedes": 3}, "seeds"), ({"seeds": "3"}, "'seeds' is int"), ({"preset": 1}, "'preset' is str")]:
        with pytest.raises(UsageError, match=words):
            artefacts.make(plan, "figure_4", given)
    assert not list(tmp_path.rglob("*.ipynb"))


def test_runs_that_are_not_done_are_named_before_a_table_is_replaced(plan):
    """An older table stays where it is."""
    old = reproduce.outputs_root() / "mini" / "cnl" / "figure_4" / "table.csv"
    old.parent.mkdir(parents=True)
    old.write_text("an older table")
    with pytest.raises(ReidError, match="1 run.*latency.*reid-nb reproduce cnl --artefact figure_4 --preset mini"):
        artefacts.make(plan, "figure_4")
    assert old.read_text() == "an older table" and not (old.parent / "record.json").exists()


def test_a_failing_notebook_is_recorded_and_named(plan, monkeypatch):
    """No old table stays beside the failure."""
    monkeypatch.setattr(artefacts, "finished", lambda plan, name: True)
    with pytest.raises(ReidError, match="figure_4 failed: ReidError.*reid-nb run cnl latency"):
        artefacts.make(plan, "figure_4")
    record = read_json(reproduce.outputs_root() / "mini" / "cnl" / "figure_4" / "record.json")
    assert record["status"] == "failed" and "is not done" in record["error"]


def test_a_preset_without_its_gpu_or_weights_ends_before_anything_is_rendered(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ReidError, match="gpu needs a GPU.*mini or night"):
        reproduce.check_ready(load_plan("cnl", "gpu"), [])
    reproduce.check_ready(load_plan("cnl", "gpu"), ["--executor", "slurm"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ReidError, match="No ImageNet weights resnet50"):
        reproduce.check_ready(load_plan("cnl", "paper"), [])
    with pytest.raises(ReidError, match="No ImageNet weights vit_base_patch16_224.orig_in21k_ft_in1k"):
        reproduce.check_ready(load_plan("uniat", "gpu"), [])


def test_cells_of_missing_artefacts_stay_in_view(plan):
    cells = reproduce.gather_cells(plan)
    assert list(cells.columns) == CELL_COLUMNS
    assert set(cells["artefact"]) == set(plan.artefacts) and set(cells["status"]) <= {"missing", "not-published"}


@pytest.mark.parametrize("words, code, said", [
    (["reproduce", "cnn"], 2, "Did you mean 'cnl'"), (["reproduce", "--preset", "tiny"], 2, "smoke"),
    (["reproduce", "cnl", "--artefact", "table_9"], 2, "table_1"), (["run", "cnl", "nothing", "--preset", "smoke"], 2, "c-nl"),
    (["artefact", "cnl", "figure_4", "--preset", "smoke", "-p", "seads=3"], 2, "seeds"), (["bench", "evalute"], 2, "evaluate"),
    (["evaluate", "nothing.npz"], 1, "nothing.npz")])
def test_wrong_calls_end_with_a_line_and_a_code(words, code, said, tmp_path):
    done = call(*words, outputs=tmp_path, check=code)
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One batch at preset smoke, from nothing; interrupted once on the way."""
    outputs = tmp_path_factory.mktemp("smoke")
    batch = subprocess.Popen([REID_NB, "reproduce", "--preset", "smoke"], env={**os.environ, "REID_NB_OUTPUTS": str(outputs)},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log, patience = outputs / "smoke" / "snakemake.log", time.time() + 240
    while not (log.is_file() and "run_cnl" in log.read_text()) and time.time() < patience and batch.poll() is None:
        time.sleep(0.2)
    batch.send_signal(signal.SIGINT)
    said = batch.communicate(timeout=60)[0]
    return outputs, batch, said, call("reproduce", "--preset", "smoke", outputs=outputs)


def test_interrupted_batch_says_so_and_leaves_nothing_half_written(smoke):
    outputs, batch, said, _ = smoke
    assert batch.returncode == 130, said
    assert "goes on where it stopped" in said and "Traceback" not in said
    assert not [path for path in outputs.rglob("*.partial*") if path.suffix != ".lock"]


def test_batch_ends_with_the_report(smoke):
    outputs, _, _, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"report: {outputs}/smoke/report/index.html" in done.stdout and "left" in done.stdout
    cells, claims = (pd.read_csv(outputs / "smoke" / name) for name in ("cells.csv", "claims.csv"))
    assert list(cells.columns) == CELL_COLUMNS and list(claims.columns) == CLAIM_COLUMNS
    made = cells[cells["artefact"].isin(["table_1", "figure_1", "figure_4"])]
    assert (made.query("kind == 'architecture'")["status"] == "match").all()
    assert cells[~cells.index.isin(made.index)]["value"].isna().all(), "no paper was named: the core alone"
    slow = cells.query("artefact == 'figure_4' and column == 'slow-down'").set_index("row")["value"]
    assert slow[["ResNet-50", "ResNet-101", "C-NL @ 5", "C-NL @ 8"]].notna().all() and slow.isna().any()
    for name in ("table_1", "figure_1", "figure_4"):
        here = {path.name for path in (outputs / "smoke" / "cnl" / name).iterdir()}
        assert {"notebook.ipynb", "record.json", "cells.csv", "table.csv", "table.tex"} <= here
    assert {"figure.png", "figure.svg"} <= here


def test_a_second_batch_recomputes_nothing(smoke):
    outputs = smoke[0]
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("run.json")}
    done = call("reproduce", "--preset", "smoke", outputs=outputs, check=0)
    assert "up to date" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in outputs.rglob("run.json")}


def test_a_deleted_table_is_made_again_by_another_executor(smoke):
    """Snakemake's cluster-generic executor with a local script in place of a scheduler."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    outputs = smoke[0]
    for path in (outputs / "smoke" / "cnl" / "figure_4").iterdir():
        path.unlink()
    submit = outputs / "submit.sh"
    submit.write_text(f"#!/bin/sh\necho $1 >>{outputs}/submitted\nsh $1\n")
    submit.chmod(0o755)
    call("reproduce", "--preset", "smoke", "--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit),
         "--jobs", "1", outputs=outputs, check=0)
    assert (outputs / "submitted").is_file() and (outputs / "smoke" / "cnl" / "figure_4" / "figure.svg").is_file()
