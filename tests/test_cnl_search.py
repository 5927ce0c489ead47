"""The search: rounds follow from results alone, respect the budget, and rules say what the results bear out."""
from itertools import combinations

import numpy as np
import pytest

from reid_nb.papers.cnl import plan as plans
from reid_nb.papers.cnl.search import NO_GAIN, RULES, SCOPES, Rule, Scope, best_rival, mixed, predicted_latency, rounds, rules, singles, space
from reid_nb.papers.cnl.variants import variant
from reid_nb.plans import PRESETS

SCOPE = Scope(("hac", "cnl"), (1, 4, 8, 14, 17), ("cnl",), rounds=4)
WORTH = {1: 0.0, 4: 0.01, 8: 0.03, 14: 0.025, 17: 0.02}
RATIOS = {each.row: 1.02 for each in singles(SCOPE)}


def additive(network):
    """An invented mAP to which each position adds its worth."""
    return 0.7 + sum(WORTH[at] for at in network.positions) + 0.001 * isinstance(network.block, tuple)


def searched(scope=SCOPE, worth=additive, ratios=RATIOS, seeds=1):
    """The rounds of a search whose networks all get trained, and their scores."""
    scores, before = {}, -1
    while len(scores) > before:
        before = len(scores)
        decided = rounds(scope, scores, ratios, seeds)
        scores = {each.row: [worth(each)] * seeds for each in sum(decided, [])}
    return decided, scores


def test_the_space_is_counted_as_by_listing_it():
    assert space(3, 7, 2) == 3 * len(list(combinations(range(7), 2)))
    assert space(2, 5, 3, mixed=True) == len(list(combinations(range(5), 3))) * 2**3


def test_the_first_round_waits_for_nothing_and_the_second_for_all_of_it():
    assert rounds(SCOPE, {}, {}, 1) == [singles(SCOPE)]
    scores = {each.row: [additive(each)] for each in singles(SCOPE)}
    assert len(rounds(SCOPE, scores, RATIOS, 1)) == 2
    scores.popitem()
    assert len(rounds(SCOPE, scores, RATIOS, 1)) == 1, "one run is missing"


def test_a_round_waits_for_every_seed_and_for_the_latency():
    scores = {each.row: [additive(each)] * 2 for each in singles(SCOPE)}
    assert len(rounds(SCOPE, scores, RATIOS, 3)) == 1 and len(rounds(SCOPE, scores, {}, 2)) == 1
    assert len(rounds(SCOPE, scores, RATIOS, 2)) == 2


def test_pairs_and_triples_grow_from_the_best():
    decided, _ = searched()
    assert {each.positions for each in decided[1]} == {(1, 8), (4, 8), (8, 14), (8, 17)}
    assert [each.row for each in decided[1] if each.block != "cnl"] == ["AGW @ 8, 14", "AGW @ 8 + C-NL @ 14", "C-NL @ 8 + AGW @ 14"]
    assert {each.positions for each in decided[2]} == {(1, 8, 14), (4, 8, 14), (8, 14, 17)} and len(decided[2]) == 3
    assert {each.positions for each in decided[3]} == {(1, 8, 14, 17), (4, 8, 14, 17)}


def test_the_order_of_results_does_not_matter():
    decided, scores = searched()
    assert rounds(SCOPE, dict(reversed(scores.items())), dict(reversed(RATIOS.items())), 1) == decided


def test_what_rule_3_compares_does_not_depend_on_the_winner():
    """A comparison with the winner of a round would be unfair to its rivals, so its positions are fixed beforehand."""
    for best in (1, 17):
        decided, _ = searched(worth=lambda n: 0.5 + 0.1 * (best in n.positions))
        assert {"C-NL @ 8, 14", "AGW @ 8, 14", "AGW @ 8 + C-NL @ 14", "C-NL @ 8 + AGW @ 14"} <= {each.row for each in decided[1]}
        assert all(best in each.positions for each in decided[1] if each.positions != (8, 14))


def test_the_budget_keeps_the_slow_out():
    dear = {**RATIOS, "C-NL @ 17": 1.09}
    decided, _ = searched(ratios=dear)
    assert all(17 not in each.positions for each in decided[1]) and all(
        predicted_latency(each, dear) <= SCOPE.budget for each in sum(decided[1:], []) if each.block == "cnl")


def test_an_unmeasured_block_is_not_grown():
    decided, _ = searched(ratios={row: ratio for row, ratio in RATIOS.items() if row != "C-NL @ 14"})
    assert all(14 not in each.positions for each in decided[1] if each.positions != SCOPE.compared_at)


def test_predicted_latency_adds_up():
    assert predicted_latency(variant("cnl", 6, 8), {"C-NL @ 8": 1.03}) == pytest.approx(1.06), "6 has the shape of 8"
    assert np.isnan(predicted_latency(variant("cnl", 8, 14), {"C-NL @ 8": 1.03}))


def judged(worth, seeds=3, scope=SCOPE, noise=1e-4, draw=0):
    """All rules on a search with invented results and a little noise, by name."""
    decided, scores = searched(scope, worth, seeds=seeds)
    rng = np.random.default_rng(draw)
    return {rule.name: rule for rule in rules({each: scores[each.row] + noise * rng.standard_normal(seeds) for each in sum(decided, [])}, seeds)}


def test_rules_hold_fail_and_stay_open():
    good = judged(additive)
    assert good["good singles"].verdict == good["mixed types"].verdict == "holds"
    assert good["mixed types"].margin == pytest.approx(0.001, abs=2e-4) and good["mixed types"].comparisons == 4
    assert good["three are enough"].verdict == "fails", "each block adds, so a fourth does too"
    assert good["stage ends"].verdict == "not here" and not good["stage ends"].comparisons, "one position a stage"
    bad = judged(lambda n: additive(n) - 0.1 * isinstance(n.block, tuple))
    assert bad["mixed types"].verdict == "fails" and bad["mixed types"].margin < 0
    assert {rule.verdict for rule in judged(additive, seeds=1).values()} <= {"undecided", "not here"}, "one seed settles nothing"
    assert judged(lambda n: additive(n) - 0.01 * max(0, len(n.positions) - 3) ** 2 - 0.02 * (len(n.positions) == 4))["three are enough"].verdict == "holds"


def test_distance_is_judged_beyond_what_single_blocks_are_worth():
    """Far positions are bad by themselves here; only crowding, not their worth, may decide."""
    crowded = lambda n: additive(n) - sum(0.02 * 0.7 ** (b - a) for a, b in combinations(n.positions, 2))
    away = lambda n: crowded(n) - 0.1 * (17 in n.positions) - 0.1 * (1 in n.positions)
    assert judged(crowded)["far apart"].verdict == judged(away)["far apart"].verdict == "holds"
    assert judged(lambda n: 2 * additive(n) - crowded(n))["far apart"].verdict == "fails"


def test_stage_ends_are_read_from_differences_of_singles():
    wide = Scope(("cnl",), (2, 3, 4, 16, 17), ("cnl",), rounds=1)
    found = judged(lambda n: 0.5 + 0.002 * (n.positions[0] in (4, 17)), scope=wide, noise=0)["stage ends"]
    assert found.verdict == "holds" and np.allclose(found.gains, 0.5) and found.comparisons == 3, "the end wins all of them"


def test_most_often_counts_cases_and_not_their_size():
    """The end of stage 1 loses by little to 2 and to 3, the end of stage 4 wins by much once: one of three."""
    wide = Scope(("cnl",), (2, 3, 4, 16, 17), ("cnl",), rounds=1)
    found = judged(lambda n: 0.5 + 0.2 * (n.positions[0] == 17) - 0.001 * (n.positions[0] == 4), scope=wide, noise=0)["stage ends"]
    assert np.allclose(found.gains, 1 / 3 - 1 / 2) and found.verdict == "fails"


def test_different_stages_are_judged_beyond_what_single_blocks_are_worth():
    wide = Scope(("cnl",), (6, 8, 14), ("cnl",), rounds=2)
    worth = lambda bonus: lambda n: 0.5 + 0.02 * (8 in n.positions) + bonus * (n.positions == (8, 14)) - 0.1 * (14 in n.positions)
    ratios = {f"C-NL @ {at}": 1.01 for at in (6, 8, 14)}
    verdict = lambda bonus: rules({each: [worth(bonus)(each) + 1e-5 * seed for seed in range(3)] for each in sum(searched(wide, worth(bonus), ratios)[0], [])}, 3)
    named = lambda bonus: {rule.name: rule for rule in verdict(bonus)}["different stages"]
    assert named(0.01).verdict == "holds" and named(-0.01).verdict == "fails" and named(0.01).comparisons == 1
    assert judged(additive)["different stages"].verdict == "not here", "one position a stage"


@pytest.mark.parametrize("gain, verdict", [(0.0, "holds"), (0.01, "holds"), (-NO_GAIN, "undecided"), (-0.01, "fails")])
def test_no_further_improvement_holds_for_equals(gain, verdict):
    assert Rule("three are enough", "", (gain - 1e-4, gain, gain + 1e-4), 1, NO_GAIN).verdict == verdict
    assert {rule.tolerance for rule in judged(additive).values()} == {0.0, NO_GAIN}


def test_a_rival_is_chosen_and_scored_on_different_seeds():
    ours, lucky, solid, other = variant("cnl", 8, 14), variant("cnl", 1, 8), variant("cnl", 4, 8), variant("hac", 1, 8)
    results = {ours: [.9, .9, .9], lucky: [.9, .4, .4], solid: [.7, .7, .7], other: [1.0, 1.0, 1.0]}
    assert best_rival(results, ours) == [.7, .7, .7]
    assert best_rival({ours: [.9], lucky: [.8]}, ours) == [] == best_rival({ours: [.9, .9]}, ours)


def test_the_best_of_many_rivals_is_not_flattered():
    """Thirty rivals of the same worth: their best mean lies above it, the rival's does not."""
    rng = np.random.default_rng(0)
    rivals = [variant("cnl", a, b) for a, b in combinations(range(1, 10), 2)][:30]
    draws = [{each: rng.normal(0.7, 0.01, 3) for each in rivals} for _ in range(300)]
    flattered = np.mean([max(values.mean() for values in draw.values()) for draw in draws])
    assert flattered > 0.71 and np.mean([best_rival(draw, variant("cnl", 8, 14)) for draw in draws]) == pytest.approx(0.7, abs=0.001)


def test_a_world_without_rules_rarely_shows_one():
    """Three seeds exceed their own standard deviation by chance in 11 % of cases, in each direction (t above the root of 3)."""
    verdicts = [rule.verdict for draw in range(150) for name, rule in judged(lambda n: 0.5, noise=0.004, draw=draw).items()
                if name in ("good singles", "far apart", "mixed types")]
    assert verdicts.count("holds") / len(verdicts) < 0.2 and verdicts.count("fails") / len(verdicts) < 0.2


def test_every_rule_of_the_paper_has_a_row():
    assert set(RULES) == {"good singles", "stage ends", "far apart", "different stages", "mixed types", "three are enough"}


def test_mixing_exchanges_one_block():
    assert [n.block for n in mixed(variant("cnl", 8, 14), "agw")] == [("agw", "cnl"), ("cnl", "agw")]


class Finished:
    """A run with a score; `latency` has all candidates equally fast."""

    def __init__(self, score):
        self.score = lambda: score

    def table(self, file):
        import pandas as pd
        return pd.DataFrame([{"backend": "onnxruntime", "candidate": each.row, "ratio": 1.0} for each in plans.candidates("mini")])


@pytest.mark.parametrize("preset", ["mini", "night"])
def test_the_plan_grows_to_the_last_round_and_stops(preset):
    plan, sizes = plans.plan(PRESETS[preset], 1), []
    while not sizes or len(plan.jobs) > sizes[-1]:
        sizes.append(len(plan.jobs))
        plan = plan.grow(plan, lambda name: Finished(0.5))
    assert len(sizes) == SCOPES[preset].rounds and sizes == sorted(set(sizes))
    assert set(plan.artefact("search").needs) <= set(plan.jobs)
