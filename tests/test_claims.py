"""Predicates over cells: each can hold, fail, stay undecided, and say that it cannot be judged here."""
import numpy as np
import pandas as pd
import pytest

from reid_nb.claims import (Claim, Evidence, Verdict, adds_more, all_of, below, bootstrap_spread, evaluate_claims, judge, positive, same_speed,
                            trained_above, trained_close)
from reid_nb.errors import UsageError

A, B = ("t", "a", "m"), ("t", "b", "m")


def evidence(a, b, spread=0.01, seeds=3, kind="trained", judged=True, aps=None):
    rows = [{"artefact": "t", "row": row, "column": "m", "value": value, "spread": spread, "seeds": seeds, "kind": kind,
             "run": row, "protocol": "p"} for row, value in (("a", a), ("b", b))]
    return Evidence(pd.DataFrame(rows), judged, lambda run, setting: aps[run] if setting == "p" else None)


@pytest.mark.parametrize("a, b, expected", [(0.60, 0.50, "holds"), (0.50, 0.60, "fails"), (0.505, 0.50, "undecided"),
                                            (np.nan, 0.5, "not here")])
def test_trained_above(a, b, expected):
    claim = Claim("p", "t", "c", "a beats b", "IV", lambda e: trained_above(e, A, B))
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


def test_trained_numbers_of_an_unjudged_preset_are_not_judged():
    assert trained_above(evidence(0.6, 0.5, judged=False), A, B).status == "not here"


@pytest.mark.parametrize("a, b, expected", [(1.04, 1.45, "holds"), (1.45, 1.04, "fails"), (1.045, 1.05, "undecided")])
def test_below(a, b, expected):
    assert below(evidence(a, b, kind="hardware"), A, B).status == expected
    assert below(evidence(a, b, kind="hardware"), A, b).status == expected


def test_same_speed():
    assert same_speed(evidence(1.02, 1.021, kind="hardware", spread=0.001), A, B).status == "holds"
    assert same_speed(evidence(1.02, 1.30, kind="hardware"), A, B).status == "fails"
    assert same_speed(evidence(1.02, 1.03, spread=5.0, kind="hardware"), A, B).status == "undecided", "noise proves nothing"


def test_all_of_takes_the_weakest_part():
    parts = [Verdict("holds", 0.3), Verdict("holds", 0.1)]
    assert all_of(*parts).margin == 0.1
    assert all_of(*parts, Verdict("undecided", 0.2)).status == "undecided"
    assert all_of(*parts, Verdict("not here")).status == "not here"
    assert all_of(*parts, Verdict("not here"), Verdict("fails", -1.0)).status == "fails"


def test_a_claim_about_a_cell_that_no_table_has_is_a_mistake():
    with pytest.raises(UsageError, match="0 such cells"):
        trained_above(evidence(1, 2), ("t", "zzz", "m"), B)


def test_claims_table_keeps_the_sentence():
    claims = [Claim("p", "t", "c", "a beats b", "IV-C", lambda e: judge(1.0, 0.5, "exact count"))]
    table = evaluate_claims(claims, evidence(1, 2), "mini")
    assert table.loc[0, ["claim", "text", "section", "status"]].tolist() == ["c", "a beats b", "IV-C", "holds"]


@pytest.mark.parametrize("a, b, spread, expected", [(1.09, 1.046, 0.001, "holds"), (1.05, 1.046, 0.001, "fails"), (1.09, 1.046, 0.1, "undecided")])
def test_adds_more_compares_what_is_added(a, b, spread, expected):
    """The paper's own numbers hold: 8.7 % is 1.9 times 4.6 %."""
    assert adds_more(evidence(a, b, spread, kind="hardware"), A, B, 1.5).status == expected


@pytest.mark.parametrize("gain, spread, seeds, expected", [(0.01, 0.002, 3, "holds"), (-0.01, 0.002, 3, "fails"), (0.001, 0.002, 3, "undecided"),
                                                           (0.01, 0.002, 1, "undecided"), (0.01, np.nan, 3, "undecided")])
def test_a_gain_is_judged_on_seeds_and_spread(gain, spread, seeds, expected):
    assert positive(evidence(gain, 0, spread, seeds), A).status == expected
    assert positive(evidence(gain, 0, spread, seeds, judged=False), A).status == "not here"
