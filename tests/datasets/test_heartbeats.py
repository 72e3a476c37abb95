from __future__ import annotations

import numpy as np
import pytest

from isoloss.datasets.heartbeats import LENGTH, RATE, cut_at_annotations, cut_like_kachuee


def pulses(times: list[float], heights: list[float], length: int) -> np.ndarray:
    """Narrow peaks (4 samples wide) on a flat line."""
    grid = np.arange(length)
    return sum(
        h * np.exp(-(((grid - t) / 4) ** 2)) for t, h in zip(times, heights, strict=True)
    ) + np.zeros(length)


def test_annotations_are_in_the_middle_and_the_ends_are_left_out() -> None:
    signal = np.random.default_rng(0).normal(size=500)
    # windows of 187 around 93 and 406 just fit into 500 samples, those around 92 and 407 do not
    beats = cut_at_annotations(signal, np.array([92.4, 92.6, 250.0, 406.4, 406.6]))
    assert beats.index.tolist() == [1, 2, 3]
    assert beats.left_out == {"window passes an end of the record": 2}
    for row, centre in zip(beats.series, (93, 250, 406), strict=True):
        window = signal[centre - 93 : centre + 94]
        expected = (window - window.min()) / (window.max() - window.min())
        np.testing.assert_allclose(row, expected, atol=6e-8)  # half a float32 rounding at 1


def test_a_constant_window_becomes_zeros() -> None:
    assert not cut_at_annotations(np.full(300, 7.0), np.array([150.0])).series.any()


def test_kachuee_on_a_regular_rhythm() -> None:
    # a beat every 100 samples: T = 100, so beats of 120 samples, zeros behind
    times = [50.0 + 100 * k for k in range(25)]
    signal = pulses(times, [1.0] * 25, 2550)
    beats = cut_like_kachuee(signal, np.array(times) + 10)  # annotated 80 ms late
    # the last peak at 2450 leaves 100 samples, fewer than 1.2 T
    assert beats.index.tolist() == list(range(24))
    assert beats.left_out["1.2 periods pass the end of the record"] == 1
    assert (sum(beats.left_out.values()), beats.unlabelled) == (1, 0)
    assert beats.series.shape == (24, LENGTH)
    for row in beats.series:
        np.testing.assert_allclose(row[:120], signal[50:170], atol=1e-6)
        assert not row[120:].any()


def test_kachuee_leaves_out_what_has_no_peak_label_or_period() -> None:
    # first 10 s: four beats, one of them too low, a period of 250 samples (two of 250, one of 500)
    # that makes 1.2 T longer than 187; then 10 s with one beat
    times = [100.0, 350.0, 600.0, 850.0, 1100.0, 1700.0]
    heights = [1.0, 1.0, 0.8, 1.0, 1.0, 1.0]
    signal = pulses(times, heights, 20 * RATE)
    annotated = np.array([100.0, 350.0, 600.0, 1100.0, 1700.0, 2200.0])  # one less, one more
    beats = cut_like_kachuee(signal, annotated)
    assert beats.index.tolist() == [0, 1, 3]
    assert beats.left_out == {
        "no R peak within 150 ms": 2,
        "the only R peak of its 10 s": 1,
        "1.2 periods pass the end of the record": 0,
    }
    assert beats.unlabelled == 1
    np.testing.assert_allclose(beats.series[0], signal[100:287], atol=1e-6)


def test_kachuee_gives_an_annotation_its_nearest_peak() -> None:
    signal = pulses([500.0, 516.0, 700.0], [1.0, 0.98, 1.0], 10 * RATE)
    beats = cut_like_kachuee(signal, np.array([512.0, 700.0]))
    assert (beats.index.tolist(), beats.unlabelled) == ([0, 1], 0)
    assert beats.series[0].argmax() == 0
    np.testing.assert_allclose(beats.series[0][:50], signal[516:566] / signal[516], atol=1e-6)


@pytest.mark.parametrize("distance", [18.0, 19.0])
def test_peak_and_annotation_match_within_150_ms(distance: float) -> None:
    signal = pulses([300.0, 500.0], [1.0, 1.0], 10 * RATE)
    beats = cut_like_kachuee(signal, np.array([300.0, 500.0 + distance]))
    assert len(beats.index) == (2 if distance <= 0.150 * RATE else 1)
