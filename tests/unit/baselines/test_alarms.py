"""Tests of what an observatory asks: events, delays, budgets, calibration."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from hephaestus_baselines.evaluation.alarms import (
    BUDGETS,
    count_years,
    detect_events,
    mean_interval,
    share_interval,
    trace_alarm_curve,
)
from hephaestus_baselines.evaluation.calibration import (
    apply_platt,
    assess_calibration,
    brier_score,
    expected_calibration_error,
    fit_platt,
    reliability_bins,
)
from hephaestus_baselines.evaluation.interval_ends import effective_number
from toy_predictions import classified, row


def name_of(start: int, days: int = 12) -> str:
    first = date(2020, 1, 1) + timedelta(start)
    return f"{first:%Y%m%d}_{first + timedelta(days):%Y%m%d}"


def test_events_are_found_by_any_interferogram_and_late_by_days_and_acquisitions():
    rows = [
        row("001A", (name_of(0),), positive=True, events=("a",)),  # ends on day 12: the onset of a
        row("001A", (name_of(12),), positive=True, events=("a",)),
        row("002D", (name_of(13),), positive=True, events=("a",)),  # ends on day 25, in another frame
        row("001A", (name_of(24),), positive=True, events=("a", "b")),  # ends on day 36, shows both
        row("001A", (name_of(60),), positive=True, events=("c",)),
        row("001A", (name_of(90),)),
    ]
    found = detect_events(classified([1, 1, 1, 1, 1, 0], [0.1, 0.2, 0.3, 0.9, 0.4, 0.8], rows), 0.5)
    events = {one.event: one for one in found.detections}
    assert (found.events, found.found) == (3, 2)
    assert (events["a"].interferograms, events["a"].alarms) == (4, 1)
    assert (events["a"].delay_days, events["a"].delay_acquisitions) == (24, 3)
    assert events["a"].onset == "2020-01-13"
    assert (events["b"].delay_days, events["b"].delay_acquisitions) == (0, 0)
    assert events["c"].delay_days is None
    assert found.recall == pytest.approx(2 / 3)
    assert found.macro_recall == pytest.approx((1 / 4 + 1 + 0) / 3)
    assert found.median_delay_days == 12
    assert found.effective_events == pytest.approx(36 / 18)


def test_budgets_are_the_best_points_within_them():
    """Recomputed threshold by threshold."""
    chance = np.random.default_rng(5)
    rows, label = [], []
    for number in range(300):
        deforms = number % 10 == 0
        events = (f"event {number // 50}",) if deforms else ()
        rows.append(row(f"{number % 3:03d}A", (name_of(4 * number),), positive=deforms, events=events))
        label.append(deforms)
    probability = np.round(np.clip(0.3 * np.array(label) + chance.random(300) * 0.7, 0, 1), 2)
    said = classified(label, probability, rows)
    curve = trace_alarm_curve(said)
    years = count_years(said)
    for budget in BUDGETS:
        best = (0.0, 0.0)
        for threshold in np.unique(said.probability):
            alarm = said.probability >= threshold
            days = {
                (r.frame, r.pairs[0][9:])
                for r, a, one in zip(rows, alarm, label, strict=True)
                if a and not one
            }
            if len(days) / years <= budget:
                recall = (alarm & said.label).sum() / said.label.sum()
                found = {e for r, a in zip(rows, alarm, strict=True) if a for e in r.events}
                best = max(best, (recall, len(found) / 6))
        assert curve.budgets[str(budget)].recall == pytest.approx(best[0])
        assert curve.budgets[str(budget)].days_per_frame_year <= budget
    recalls = [curve.budgets[str(budget)].recall for budget in BUDGETS]
    assert recalls == sorted(recalls)
    assert curve.recall == sorted(curve.recall)
    assert curve.recall[-1] == 1


def test_where_any_alarm_is_too_many_no_threshold_stands():
    """A probability may be 1 exactly, so 1 is a threshold that raises alarms."""
    rows = [
        row("001A", (name_of(0),), positive=True, events=("a",)),
        *[row("001A", (name_of(place),)) for place in range(1, 40)],
    ]
    curve = trace_alarm_curve(classified([1] + [0] * 39, [0.5] + [1.0] * 39, rows))
    assert curve.budgets["12"].recall == curve.budgets["12"].days_per_frame_year == 0
    assert np.isnan(curve.budgets["12"].threshold)
    again = type(curve).model_validate_json(curve.model_dump_json())
    assert np.isnan(again.budgets["12"].threshold)


def test_recall_is_undefined_where_there_is_nothing_to_recall():
    rows = [row("001A", (name_of(place),)) for place in range(5)]
    curve = trace_alarm_curve(classified([0] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], rows))
    again = type(curve).model_validate_json(curve.model_dump_json())
    for budget in again.budgets.values():
        assert np.isnan([budget.recall, budget.event_recall]).all()
    assert np.isnan(again.recall).all()


def simulated_shares(chance: np.random.Generator, events: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of events as uneven as the real ones, and how many of their interferograms raise an alarm."""
    sizes = np.maximum(1, np.round(chance.pareto(1.0, events) * 4)).astype(int)
    return sizes, chance.binomial(sizes, chance.beta(0.4, 0.3, events))


def test_intervals_over_events_cover_the_truth_as_often_as_they_say():
    """By simulation, with as few and as uneven events as the test part has."""
    chance = np.random.default_rng(11)
    many_sizes, many_hits = simulated_shares(chance, 200_000)
    truth, found_truth = (many_hits / many_sizes).mean(), (many_hits > 0).mean()
    covered = {"macro": 0, "found": 0}
    rounds = 1500
    for _ in range(rounds):
        sizes, hits = simulated_shares(chance, 30)
        low, high = mean_interval(list(hits / sizes))
        covered["macro"] += low <= truth <= high
        low, high = share_interval(int((hits > 0).sum()), 30)
        covered["found"] += low <= found_truth <= high
    assert 0.93 <= covered["macro"] / rounds <= 0.97
    assert 0.93 <= covered["found"] / rounds <= 0.97


def test_the_effective_number_of_events_is_that_of_equal_ones():
    assert effective_number(np.array([143.0, 94, 59, 48, 31])) < 5
    assert effective_number(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_number(np.array([])) == 0
    assert effective_number(np.zeros(3)) == 0  # events whose deforming pixels have no data


def test_cases_of_equal_probability_are_equally_calibrated_in_any_order():
    label = np.repeat([True, False], [3, 7])
    # a model that always says the share of positives is calibrated
    constant = reliability_bins(label, np.full(10, 0.3))
    assert expected_calibration_error(constant) == pytest.approx(0)
    levels = np.array([0.2, 0.8])[np.arange(40) % 2]
    true = np.random.default_rng(1).random(40) < levels
    order = np.random.default_rng(2).permutation(40)
    bins = [[vars(one) for one in reliability_bins(true[on], levels[on])] for on in (slice(None), order)]
    assert bins[0] == bins[1]


def test_calibration_mends_probabilities_that_are_too_high():
    chance = np.random.default_rng(2)
    true = expit(chance.normal(-2, 2, 4000))
    label = chance.random(4000) < true
    raised = apply_platt(true, 1.7, 2.0)  # as after training with as many positives as negatives
    slope, offset = fit_platt(label, raised)
    assert slope == pytest.approx(1 / 1.7, abs=0.06)
    mended = apply_platt(raised, slope, offset)
    assert expected_calibration_error(reliability_bins(label, mended)) < 0.02
    assert expected_calibration_error(reliability_bins(label, raised)) > 0.1
    assert brier_score(label, mended) < brier_score(label, raised)
    half = [
        classified(label[part], raised[part], part=name)
        for part, name in ((slice(0, 2000), "validation"), (slice(2000, 4000), "test"))
    ]
    found = assess_calibration(*half)
    assert found.fitted_on == "validation"
    assert found.ece_calibrated < 0.05 < found.ece
    assert found.brier_calibrated < found.brier_constant


def test_without_cases_of_both_kinds_no_mapping_is_fitted():
    quiet = classified([0] * 20, np.linspace(0.1, 0.9, 20), part="validation")
    found = assess_calibration(quiet, classified([1, 0], [0.7, 0.2]))
    assert (found.fitted_on, found.slope, found.offset) == ("nothing", 1, 0)
    assert found.brier == pytest.approx(found.brier_calibrated)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60))
def test_calibration_changes_no_ranking(cases):
    label = np.array([one for one, _ in cases])
    probability = np.array([float(np.float32(value)) for _, value in cases])
    slope, offset = fit_platt(label, probability)
    assert slope >= 0
    mapped = apply_platt(probability, slope, offset)
    order = np.argsort(probability, kind="stable")
    assert (np.diff(mapped[order]) >= 0).all()
    assert ((mapped >= 0) & (mapped <= 1)).all()
