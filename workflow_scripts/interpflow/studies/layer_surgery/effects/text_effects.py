"""What plans cost in loss on neutral text: by family, beside random orders and beside controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interpflow.plans.families import FAMILIES, INTACT, RANDOM_INNER_ORDER, RANDOM_ORDER
from interpflow.stats.block_influence import influence_against_damage
from interpflow.stats.clustered_share import mean_share
from interpflow.stats.layer_orders import damage_curve, distance_correlation, share_as_mild
from interpflow.stats.paired_contrasts import mean_over
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined
from interpflow.studies.layer_surgery.effects.outcomes import Outcomes
from interpflow.studies.layer_surgery.estimate_rows import Analyst, FloatArray, Row

TEXT, BAND, CONTROLS, ORDERS = "text", "null band", "against controls", "order distance"
INFLUENCE, CKA = "block_influence", "depth_cka"
CHANGE, KEPT = "loss change", "top-1 kept"
N_CURVE_BINS = 10
# Orders whose distance differs from a plan's by at most this share of the largest are "as far".
_NEAR_SHARE = 0.08
_BAND_QUANTILES = (0.025, 0.5, 0.975)


def text_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Mean Δ loss (nats per token, unit = document) and top-1 kept of every structured plan; each
    family of plans is one family of hypotheses."""
    rows: list[Row] = []
    for family in FAMILIES:
        plans = outcomes.plans.of_family(family)
        if family == INTACT or not plans:
            continue
        names, labels = [row["plan"] for row in plans], [row["label"] for row in plans]
        deltas, kept = outcomes.losses.delta(names), outcomes.losses.kept(names)
        rows += analyst.changes(TEXT, family, labels, deltas.T, quantity=CHANGE)
        for label, shares in zip(labels, kept, strict=True):
            share = mean_share(shares, quantity=KEPT, level=analyst.settings.level)
            rows.append(analyst.row(TEXT, family, label, share))
    return rows


def band_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Where each structured plan lies among the random orders: among all, and, if it is an order
    itself, among those about as far that move the same ends (moving the first block breaks a model
    whatever the distance). On the documents on which all of them were measured."""
    orders = outcomes.plans.of_role("random_order")
    by_document = outcomes.losses.delta(row["plan"] for row in orders)
    # Random orders may be run on fewer documents: like is compared with like.
    shared = np.isfinite(by_document).all(axis=0)
    damage = mean_over(by_document[:, shared])
    inner = np.array([row["kind"] == RANDOM_INNER_ORDER for row in orders], dtype=bool)
    distances = np.array([row["distance"] for row in orders], dtype=np.float64)
    rows = [
        analyst.row(BAND, "random orders", name, _band(damage[chosen]))
        for name, chosen in (
            (RANDOM_ORDER, ~inner), (RANDOM_INNER_ORDER, inner), ("all", inner | True),
        )
    ]  # fmt: skip
    reach = max(2.0, _NEAR_SHARE * outcomes.plans.n_layers * (outcomes.plans.n_layers - 1) / 2)
    for family in FAMILIES:
        for plan in outcomes.plans.of_family(family):
            if family == INTACT:
                continue
            own = float(mean_over(outcomes.losses.delta([plan["plan"]])[:, shared])[0])
            bands = {f"{family}: all orders": np.ones(len(orders), dtype=bool)}
            if plan["distance"] is not None:
                near = np.abs(distances - plan["distance"]) <= reach
                same = np.array([_ends(row) == _ends(plan) for row in orders], dtype=bool)
                # Where both kinds of orders keep the ends, those that were drawn to do so.
                kind = inner if not any(_ends(plan)) else ~inner
                bands[f"{family}: orders as far"] = near & same & kind
            rows += [
                analyst.row(BAND, name, plan["label"], share_as_mild(own, damage[chosen]))
                for name, chosen in bands.items()
            ]
    return rows


def _ends(order: Row) -> tuple[bool, bool]:
    """Whether an order moves the first and the last block."""
    return bool(order["moves_first"]), bool(order["moves_last"])


def control_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Loss of each skipped range minus the mean of its controls: sets of as many blocks at like
    depth that are not a range. Negative: a range is milder than blocks taken here and there."""
    controls: dict[str, list[str]] = {}
    for row in outcomes.plans.of_role("control"):
        controls.setdefault(row["control_of"], []).append(row["plan"])
    ranges = [row for row in outcomes.plans.of_family("skip_range") if row["plan"] in controls]
    if not ranges:
        return []
    differences = [
        outcomes.losses.delta([row["plan"]])[0]
        - mean_over(outcomes.losses.delta(controls[row["plan"]]).T)
        for row in ranges
    ]
    labels = [row["label"] for row in ranges]
    return analyst.changes(
        CONTROLS, "skip_range", labels, np.array(differences).T, quantity="loss beyond controls"
    )


def order_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Rank correlation of damage with Kendall's distance, and mean damage by distance."""
    rows: list[Row] = []
    for name, chosen, strata in _order_sets(outcomes):
        if not chosen:
            rows.append(analyst.row(ORDERS, name, "", undefined("rank correlation", EMPTY_CELL)))
            continue
        distances = [row["distance"] for row in chosen]
        damage = _measured(outcomes.losses.delta(row["plan"] for row in chosen))
        spans = [row["displacement"] for row in chosen]
        ends = [f"{row['moves_first']}{row['moves_last']}" for row in chosen]
        for level, covariates in (("", None), ("given the largest move", spans)):
            found = distance_correlation(
                distances, damage, strata=ends if strata else None, covariates=covariates,
                n_permutations=analyst.settings.n_permutations,
                n_resamples=analyst.settings.n_resamples,
                seed=analyst.seed_of(ORDERS, name, level), level=analyst.settings.level,
            )  # fmt: skip
            rows.append(analyst.row(ORDERS, name, level, found))
        if strata:
            continue
        edges = np.linspace(0.5, max(distances) + 0.5, N_CURVE_BINS + 1)
        points = damage_curve(
            distances, damage, edges.tolist(), n_resamples=analyst.settings.n_resamples,
            seed=analyst.seed_of(ORDERS, name, "curve"), level=analyst.settings.level,
        )  # fmt: skip
        for low, high, point in zip(edges[:-1], edges[1:], points, strict=True):
            level = f"{(low + high) / 2:.1f}"
            rows.append(analyst.row(ORDERS, f"{name}: curve", level, point))
    return rows


def influence_rows(
    analyst: Analyst, outcomes: Outcomes, lens_estimates: Sequence[Row]
) -> list[Row]:
    """Rank correlation over blocks of what they do to the states, from the lens stage, with the
    loss that skipping them costs: of their influence (1 − cosine of the states before and after),
    and of 1 − CKA of the two."""
    cosine, cka = {}, {}
    for row in lens_estimates:
        if row["estimate"] is None:
            continue
        if (row["analysis"], row["factor"]) == (INFLUENCE, "block"):
            cosine[int(row["level"])] = row["estimate"]
        elif (row["analysis"], row["factor"]) == (CKA, "next depth"):
            cka[int(row["level"].split("-")[0])] = 1.0 - row["estimate"]
    plans = outcomes.plans.of_family("skip_each")
    damage = mean_over(outcomes.losses.delta(row["plan"] for row in plans))
    return [
        analyst.row(
            analysis, "skip_each", "",
            influence_against_damage(
                [known.get(block, np.nan) for block in range(len(plans))], damage,
                quantity=quantity, level=analyst.settings.level,
                n_resamples=analyst.settings.n_permutations, seed=analyst.seed_of(analysis),
            ),
        )
        for analysis, known, quantity in (
            (INFLUENCE, cosine, "rank correlation of influence and damage"),
            (CKA, cka, "rank correlation of 1 − CKA and damage"),
        )
    ]  # fmt: skip


ALL_ORDERS, GIVEN_ENDS, INNER_ORDERS = "all orders", "given moved ends", "inner orders"


def _order_sets(outcomes: Outcomes) -> list[tuple[str, list[Row], bool]]:
    """Sets of random orders, and whether they are compared within strata of which ends moved.

    An order of all blocks that moves neither end is no more an inner order than by chance; both
    kinds are kept apart so that one sample by distance is not mixed with another.
    """
    orders = outcomes.plans.of_role("random_order")
    whole = [row for row in orders if row["kind"] == RANDOM_ORDER]
    inner = [row for row in orders if row["kind"] == RANDOM_INNER_ORDER]
    return [(ALL_ORDERS, whole, False), (GIVEN_ENDS, orders, True), (INNER_ORDERS, inner, False)]


def _measured(damage: FloatArray) -> FloatArray:
    """The documents that were measured under every plan."""
    return damage[:, np.isfinite(damage).all(axis=0)]


def _band(damage: FloatArray) -> Estimate:
    """Median damage of random orders; its limits are the band's quantiles, not an interval."""
    finite = damage[np.isfinite(damage)]
    if len(finite) == 0:
        return undefined("loss change of random orders", EMPTY_CELL)
    low, middle, high = np.quantile(finite, _BAND_QUANTILES)
    return Estimate(
        quantity="loss change of random orders", estimate=middle, ci_low=low, ci_high=high,
        test="band_quantiles", n_units=len(finite),
    )  # fmt: skip
