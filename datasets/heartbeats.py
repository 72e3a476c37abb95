"""Single heartbeats cut from a continuous electrocardiogram: two published rules.

Both give beats of `LENGTH` samples at `RATE` samples a second, each scaled to [0, 1] by its own
minimum and maximum (a constant one becomes zeros), and both account for every annotated beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating]

RATE = 125  # Hz
LENGTH = 187  # samples, 1.496 s
MATCH = 0.150  # s; peak and annotation are the same beat within this (ANSI/AAMI EC57)
WINDOW = 10  # s
THRESHOLD = 0.9  # of the scaled window
PERIODS = 1.2  # length of a beat in nominal periods


@dataclass(frozen=True)
class Beats:
    """Beats of one record, and what became of the annotated ones that are not among them.

    Attributes:
        series: (beats, LENGTH) float32, in [0, 1].
        index: (beats,), which annotation each belongs to, ascending.
        left_out: annotated beats without a series, by reason. With `index` they are all.
        unlabelled: detected peaks that no annotation belongs to; they are left out, too.
    """

    series: NDArray[np.float32]
    index: NDArray[np.int64]
    left_out: dict[str, int]
    unlabelled: int = 0


def cut_at_annotations(signal: Samples, beats: Samples) -> Beats:
    """Cut 187 samples with the annotation in the middle.

    The annotation's time is rounded to the sample k (half to even); the beat is samples
    k - 93, .., k + 93. One whose window passes an end of the record is left out.

    Args:
        signal: (samples,) at `RATE`.
        beats: times of the annotated beats, in samples of `signal`, ascending.
    """
    first = np.rint(beats).astype(np.int64) - LENGTH // 2
    fits = (first >= 0) & (first + LENGTH <= len(signal))
    windows = np.lib.stride_tricks.sliding_window_view(signal, LENGTH)
    index = np.flatnonzero(fits)
    left_out = {"window passes an end of the record": int((~fits).sum())}
    return Beats(_scale(windows[first[fits]]), index, left_out)


def cut_like_kachuee(signal: Samples, beats: Samples) -> Beats:
    """Find R peaks and cut beats by the method of Kachuee et al. 2018, section III.A.

    Theirs, in their order: (1) windows of 10 s; (2) each scaled to [0, 1]; (3) local maxima, where
    the first derivative changes sign; (4) R peaks are those above 0.9; (5) the median R-R interval
    is the period T of the window; (6) a beat is the 1.2 T after a peak; (7) zeros pad it to the
    fixed length. What they leave open is read so: the maxima are those of the whole record, so
    that none is lost at a seam (of a flat top, its middle); the last window is as long as what is
    left; a window with one peak has no period; 1.2 T is rounded, may reach into the next window,
    and is cut off after 187 samples; each beat is scaled again before it is padded; a peak belongs
    to the nearest annotation within 150 ms, and an annotation keeps the nearest of its peaks.

    To the letter this finds little more than half of the beats of the MIT-BIH database (a single
    large beat in 10 s hides the others); the published CSV pair has 109,446 of 109,494, so more
    than these steps must have been at work there.

    Args:
        signal: (samples,) at `RATE`.
        beats: times of the annotated beats, in samples of `signal`, ascending.
    """
    peaks, lengths = _r_peaks(signal)
    after = np.searchsorted(beats, peaks)
    nearest = np.clip(np.stack([after - 1, after]), 0, len(beats) - 1)
    distances = np.abs(beats[nearest] - peaks)
    closer = distances.argmin(0), np.arange(len(peaks))
    owner, distance = nearest[closer], distances[closer]
    labelled = distance <= MATCH * RATE
    order = np.lexsort((distance, owner))
    order = order[labelled[order]]
    matched, at = np.unique(owner[order], return_index=True)
    chosen = order[at]
    counted = lengths[chosen] > 0
    fits = counted & (peaks[chosen] + lengths[chosen] <= len(signal))
    chosen, index = chosen[fits], matched[fits]
    # All beats as full rows of the signal (zeros beyond its end), then what is after 1.2 T off.
    columns = np.arange(LENGTH)
    padded = np.concatenate([signal, np.zeros(LENGTH)])
    rows = padded[peaks[chosen, None] + columns]
    inside = columns < lengths[chosen, None]
    left_out = {
        "no R peak within 150 ms": len(beats) - len(matched),
        "the only R peak of its 10 s": int((~counted).sum()),
        "1.2 periods pass the end of the record": int((counted & ~fits).sum()),
    }
    return Beats(_scale(rows, inside), index, left_out, int((~labelled).sum()))


def _r_peaks(signal: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return R peaks and the lengths of their beats, 0 where the window has no period."""
    from scipy.signal import find_peaks  # takes a while to import

    starts = np.arange(0, len(signal), WINDOW * RATE)
    low = np.minimum.reduceat(signal, starts)
    span = np.maximum.reduceat(signal, starts) - low
    peaks = find_peaks(signal)[0]
    window = peaks // (WINDOW * RATE)
    high = signal[peaks] - low[window] > THRESHOLD * span[window]
    peaks, window = peaks[high], window[high]
    lengths = np.zeros_like(peaks)
    for number in np.unique(window):
        own = window == number
        if own.sum() > 1:
            period = np.median(np.diff(peaks[own]))
            lengths[own] = min(round(PERIODS * period), LENGTH)
    return peaks, lengths


def _scale(rows: Samples, inside: NDArray[np.bool_] | bool = True) -> NDArray[np.float32]:
    """Scale each row to [0, 1] by what is inside; zeros elsewhere."""
    inside = np.broadcast_to(inside, rows.shape)
    low = np.where(inside, rows, np.inf).min(1, keepdims=True)
    span = np.where(inside, rows, -np.inf).max(1, keepdims=True) - low
    scaled = (rows - low) / np.where(span > 0, span, 1)
    return np.where(inside, scaled, 0).astype(np.float32)
