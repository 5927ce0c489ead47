"""Predicates over cells: each can hold, fail, stay undecided, and say that it cannot be judged here."""
import numpy as np
import pandas as pd
import pytest

from reid_nb.claims import (Claim, Evidence, NotHere, Verdict, above, adds_more, all_of, any_of, below, bootstrap_spread, evaluate_claims, judge,
                            positive, same_speed, trained_above, trained_close)
from reid_nb.errors import UsageError

A, B = ("t", "a", "m"), ("t", "b", "m")


def evidence(a, b, spread=0.01, seeds=3, kind="trained", judged=True, aps=None, protocol="", status="shown"):
    rows = [{"artefact": "t", "row": row, "column": "m", "value": value, "spread": spread, "seeds": seeds, "kind": kind,
             "run": row, "unit": "fraction", "protocol": protocol, "status": status} for row, value in (("a", a), ("b", b))]
    return Evidence(pd.DataFrame(rows), judged, lambda run, setting: aps[run])


@pytest.mark.parametrize("a, b, expected", [(0.60, 0.50, "holds"), (0.50, 0.60, "fails"), (0.505, 0.50, "undecided"),
                                            (np.nan, 0.5, "not here")])
def test_trained_above(a, b, expected):
    claim = Claim("p", "t", "c", "a beats b", "", "IV", lambda e: trained_above(e, A, B))
    assert claim.evaluate(evidence(a, b))["status"] == expected


@pytest.mark.parametrize("a, b, spread, expected", [(0.60, 0.601, 0.001, "holds"), (0.50, 0.60, 0.01, "fails"),
                                                    (0.60, 0.601, 0.1, "undecided")])
def test_trained_close(a, b, spread, expected):
    assert trained_close(evidence(a, b, spread), A, B).status == expected


def test_one_seed_is_shown_with_a_paired_bootstrap_and_never_decides():
    aps = {"a": np.linspace(0.5, 1, 200), "b": np.linspace(0.1, 0.6, 200)}
    verdict = trained_above(evidence(0.75, 0.35, spread=np.nan, seeds=1, aps=aps), A, B)
    assert verdict.status == "undecided" and "bootstrap" in verdict.basis and "3 seeds" in verdict.needs
    assert verdict.margin == pytest.approx(0.4) and verdict.spread < 0.01
    assert trained_close(evidence(0.75, 0.35, spread=np.nan, seeds=1, aps=aps), A, B).status == "undecided"


def test_bootstrap_spread_is_the_standard_error_of_the_mean_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 0.2, 500), rng.normal(0.5, 0.2, 500)
    assert bootstrap_spread(a, b) == pytest.approx(np.std(a - b) / np.sqrt(500), rel=0.1)
    with pytest.raises(UsageError, match="same queries"):
        bootstrap_spread(a, b[:-1])


@pytest.mark.parametrize("kind, ask", [("trained", lambda e: trained_above(e, A, B)), ("hardware", lambda e: below(e, A, B)),
                                       ("hardware", lambda e: above(e, A, 0.1)), ("hardware", lambda e: same_speed(e, A, B))])
def test_numbers_of_an_unjudged_preset_are_not_judged(kind, ask):
    """At smoke neither a training of one epoch nor a latency of four rounds says anything; an exact count does."""
    found = Claim("p", "t", "c", "a beats b", "", "IV", ask, "night").evaluate(evidence(0.6, 0.5, kind=kind, judged=False))
    assert (found["status"], found["needs"]) == ("not here", "preset night or larger")
    assert below(evidence(0.5, 0.6, kind="architecture", spread=np.nan, judged=False), A, B).status == "holds"


@pytest.mark.parametrize("status, needs", [("left-out", "preset gpu or larger"), ("needs-gpu", "preset gpu or larger"), ("needs-data", "the real dataset"),
                                           ("quoted", "the methods that this paper quotes"),
                                           ("missing", "the artefact t (a, m)")])
def test_a_gap_names_its_remedy(status, needs):
    found = Claim("p", "t", "c", "a beats b", "", "IV", lambda e: trained_above(e, A, B), "gpu").evaluate(evidence(np.nan, 0.5, status=status))
    assert (found["status"], found["needs"]) == ("not here", needs)


@pytest.mark.parametrize("ask", [lambda e: below(e, A, B), lambda e: above(e, A, 1.0), lambda e: adds_more(e, B, A, 2), lambda e: same_speed(e, A, B)])
def test_a_noisy_measurement_settles_nothing(ask):
    noisy = ask(evidence(1.04, 1.45, 1e-4, kind="hardware", protocol="eager, batch 2, noisy"))
    assert noisy.status == "undecided" and "noisy" in noisy.basis and noisy.needs
    assert ask(evidence(1.04, 1.45, 1e-4, kind="hardware", protocol="eager, batch 2")).status in ("holds", "fails")


def test_not_worse_by_more_than_a_tolerance():
    """Equal holds, better holds, worse by more than the tolerance fails."""
    verdict = lambda a: trained_above(evidence(a, 0.6, spread=0.001), A, B, by=-0.005).status
    assert [verdict(a) for a in (0.6, 0.7, 0.595, 0.59)] == ["holds", "holds", "undecided", "fails"]


@pytest.mark.parametrize("a, b, expected", [(1.04, 1.45, "holds"), (1.45, 1.04, "fails"), (1.045, 1.05, "undecided")])
def test_below(a, b, expected):
    assert below(evidence(a, b, kind="hardware"), A, B).status == expected
    assert below(evidence(a, b, kind="hardware"), A, b).status == expected


def test_below_by_a_bound_and_above_a_number():
    ours = evidence(1.04, 1.45, kind="hardware", spread=0.001)
    assert below(ours, A, B, by=0.4).status == "holds" and below(ours, A, B, by=0.42).status == "fails"
    assert above(ours, A, 1.0).status == "holds" and above(ours, A, 1.1).status == "fails"


def test_same_speed():
    assert same_speed(evidence(1.02, 1.021, kind="hardware", spread=0.001), A, B).status == "holds"
    assert same_speed(evidence(1.02, 1.30, kind="hardware"), A, B).status == "fails"
    assert same_speed(evidence(1.02, 1.03, spread=5.0, kind="hardware"), A, B).status == "undecided", "noise proves nothing"


def says(status, margin=None):
    """A predicate with a fixed answer."""
    return lambda evidence: Verdict(status, margin)


def missing(evidence):
    raise NotHere("")


def test_all_of_takes_the_weakest_part():
    parts = [says("holds", 0.3), says("holds", 0.1)]
    assert all_of(*parts)(None).margin == 0.1
    assert all_of(*parts, says("undecided", 0.2))(None).status == "undecided"
    assert all_of(*parts, missing)(None).status == "not here"
    assert all_of(*parts, missing, says("fails", -1.0))(None).status == "fails", "what is missing saves no refuted sentence"


def test_any_of_takes_the_strongest_part():
    parts = [says("fails", -0.3), says("fails", -0.1)]
    assert any_of(*parts)(None).status == "fails" and any_of(*parts)(None).margin == -0.1
    assert any_of(*parts, missing)(None).status == "not here", "the missing case might hold"
    assert any_of(*parts, missing, says("undecided", 0.0))(None).status == "undecided"
    assert any_of(*parts, missing, says("holds", 0.2))(None).status == "holds"
    assert all_of(any_of(*parts, says("holds")), says("undecided"))(None).status == "undecided", "parts can be nested"


def test_a_claim_about_a_cell_that_no_table_has_is_a_mistake():
    with pytest.raises(UsageError, match="0 such cells"):
        trained_above(evidence(1, 2), ("t", "zzz", "m"), B)


def test_claims_table_keeps_the_sentence():
    claims = [Claim("p", "t", "c", "a beats b", "Judged as more.", "IV-C", lambda e: judge(1.0, 0.5, "exact count"))]
    table = evaluate_claims(claims, evidence(1, 2), "mini")
    assert table.loc[0, ["claim", "quote", "judged_as", "section", "status"]].tolist() == ["c", "a beats b", "Judged as more.", "IV-C", "holds"]


@pytest.mark.parametrize("a, b, spread, expected", [(1.09, 1.046, 0.001, "holds"), (1.05, 1.046, 0.001, "fails"), (1.09, 1.046, 0.1, "undecided")])
def test_adds_more_compares_what_is_added(a, b, spread, expected):
    """The paper's own numbers hold: 8.7 % is 1.9 times 4.6 %."""
    assert adds_more(evidence(a, b, spread, kind="hardware"), A, B, 1.5).status == expected


@pytest.mark.parametrize("gain, spread, seeds, expected", [(0.01, 0.002, 3, "holds"), (-0.01, 0.002, 3, "fails"), (0.001, 0.002, 3, "undecided"),
                                                           (0.01, 0.002, 1, "undecided"), (0.01, np.nan, 3, "undecided")])
def test_a_gain_is_judged_on_seeds_and_spread(gain, spread, seeds, expected):
    assert positive(evidence(gain, 0, spread, seeds), A).status == expected
    assert positive(evidence(gain + 0.5, 0, spread, seeds), A, by=0.5).status == expected
