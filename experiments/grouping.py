"""Runs in groups: several seeds of one optimizer, their medians and ranges, what these say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from isoloss.errors import UsageError
from isoloss.figures.formatting import number
from isoloss.figures.quantities import (
    QUANTITIES,
    ComparisonGroup,
    ComparisonRow,
    Quantity,
    Summary,
    single,
    summarise,
)
from isoloss.records.runs import Run

# Runs of a group are to differ in nothing else.
_FREE = ("run", "label", "seed")
_SPOKEN_OF = ("accuracy", "lambda_max", "scaled_lambda_max")
_LEVEL = 0.05


def grouped(
    runs: Sequence[Run], rows: Sequence[ComparisonRow], by: str | None
) -> tuple[list[ComparisonGroup], list[str]]:
    """Group runs by a setting of their training, in the order in which its values appear.

    A group is called by the label that its runs share, or else by the setting's value.

    Args:
        runs: The runs.
        rows: What is shown of each.
        by: Key of their `config.json`; None for a group a run.

    Returns:
        The groups, and in which other settings the runs of a group differ, in words.

    Raises:
        UsageError: If no run has the setting.
    """
    if by is None:
        return single(rows), []
    configs = [run.config() for run in runs]
    keys = sorted({key for config in configs for key in config} - {"run", "label"})
    if by not in keys:
        raise UsageError(
            f"`by`: expected a setting of the runs, got {by!r}\nthey have: {', '.join(keys)}"
        )
    members: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        members.setdefault(_text(config.get(by)), []).append(index)
    groups, notes = [], []
    for value, indices in members.items():
        labels = {rows[index].label for index in indices}
        label = labels.pop() if len(labels) == 1 else _named(by, value)
        groups.append(ComparisonGroup(label, tuple(rows[index] for index in indices)))
        for key in sorted(set(keys) - {by, *_FREE}):
            found = {_text(configs[index].get(key)): None for index in indices}
            if len(found) > 1:
                notes.append(f"runs of {label} differ in {key}: {', '.join(found)}")
    return groups, notes


def findings(groups: Sequence[ComparisonGroup]) -> list[str]:
    """Say what medians and ranges of groups of runs show, and no more.

    With n pairs of runs that agree in every sign, the exact two-sided sign-flip test gives
    p = 2^(1-n), the least it can.
    """
    several = [group for group in groups if group.several]
    if len(several) < 2:
        return []
    chosen = [quantity for quantity in QUANTITIES if quantity.key in _SPOKEN_OF]
    sentences = [text for quantity in chosen if (text := _ranges(quantity, several))]
    runs = min(len(group.rows) for group in several)
    least = 2.0 ** (1 - runs)
    if sentences and least > _LEVEL:
        sentences.append(
            f"{runs} runs each rank nothing: did all agree, an exact sign-flip test would still "
            f"give p = {number(least, 2)}; six seeds or more could show a difference."
        )
    return sentences


def _ranges(quantity: Quantity, groups: Sequence[ComparisonGroup]) -> str:
    """Say the ranges of one quantity, and which of them do not overlap."""
    factor = 100 if quantity.percent else 1
    found: list[tuple[str, Summary]] = []
    for group in groups:
        summary = summarise(quantity, group.rows)
        if summary is not None:
            found.append((group.label, summary))
    if len(found) < 2:
        return ""
    shown = [
        f"{label} {number(factor * one.median)} "
        f"[{number(factor * one.low)}, {number(factor * one.high)}]"
        for label, one in found
    ]
    apart, overlapping = [], []
    for (a, one), (b, other) in itertools.combinations(found, 2):
        if one.high < other.low:
            apart.append(f"{a} below {b}")
        elif other.high < one.low:
            apart.append(f"{b} below {a}")
        else:
            overlapping.append(f"{a} and {b}")
    said = [f"ranges apart: {', '.join(apart)}"] if apart else []
    said += [f"ranges that overlap: {', '.join(overlapping)}"] if overlapping else []
    return f"{quantity.heading}, median [lowest, highest]: {', '.join(shown)}; {'; '.join(said)}."


def _named(by: str, value: str) -> str:
    return value if by == "optimizer" else f"{by} {value}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
