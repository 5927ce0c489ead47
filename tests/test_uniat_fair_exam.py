"""The judged run of the chapter on the twin of AT-USTC that is kept with the project: its verdicts follow from its own numbers."""
import pytest

from reid_nb.files import project_root, read_json
from reid_nb.protocols import SCENARIOS

REFERENCE = read_json(project_root() / "outputs" / "reference" / "uniat_fair_exam.json")
TIMES = REFERENCE["times"]


def test_every_cue_was_measured_in_six_scenarios():
    assert {"chance", "height", "build", "colour of clothes", "cut of clothes", "habits", "histogram", "histogram, masked", "date"} == set(TIMES)
    assert all(set(row) == set(SCENARIOS) for row in TIMES.values()) and set(TIMES["chance"].values()) == {1}


@pytest.mark.parametrize("verdict", REFERENCE["verdicts"], ids=lambda verdict: verdict["criterion"])
def test_a_verdict_follows_from_its_number(verdict):
    limit = float(verdict["bound"].split()[-1])
    assert verdict["holds"] == (verdict["measured"] >= limit if verdict["bound"].startswith("at least") else verdict["measured"] <= limit)


def test_the_papers_sentences_about_cues_hold_in_the_twin():
    """Clothes are worth much within a day and next to nothing across dates, the body the same everywhere, habits less than the body, a picture without the person nothing."""
    long = [name for name in SCENARIOS if name.endswith("LT")]
    assert all(TIMES[cue][name] <= 1.5 for cue in ("colour of clothes", "histogram") for name in long)
    assert all(TIMES["cut of clothes"][name] < TIMES["cut of clothes"]["DT-ST"] / 20 for name in long)
    assert all(TIMES[cue]["DT-ST"] >= 5 for cue in ("colour of clothes", "cut of clothes", "histogram"))
    assert TIMES["colour of clothes"]["AD-ST"] < TIMES["colour of clothes"]["DT-ST"] / 3
    assert max(TIMES["build"].values()) < 2 * min(TIMES["build"].values()) and max(TIMES["histogram, masked"].values()) <= 1.5
    assert all(1.5 < TIMES["habits"][name] < TIMES["build"][name] for name in long)
