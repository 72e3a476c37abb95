# ruff: noqa: RUF001, RUF002  (signs as they are printed)
"""Numbers as a reader expects them: few digits, the error deciding how many."""

from __future__ import annotations

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"


def power_of_ten(exponent: int) -> str:
    """10 to an integer power, as ``10⁻³``."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def one_line(text: str) -> str:
    """Return a text with every run of spaces and line breaks as one space, as in a table's cell."""
    return " ".join(text.split())


def number(value: float | None, digits: int = 3) -> str:
    """Return a value to some significant digits: ``0.0312``, ``136``, ``2.4×10⁻⁷``, ``nan``.

    Args:
        value: The value; None gives a dash.
        digits: Significant digits; trailing zeros are dropped.
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(float(value)).replace("-", "−")
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power < max(5, digits):
        text = f"{float(f'{value:.{digits - 1}e}'):.{max(0, digits - 1 - power)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = power_of_ten(power) if mantissa == "1" else f"{mantissa}×{power_of_ten(power)}"
    return text.replace("-", "−")


def with_error(value: float | None, error: float | None) -> str:
    """Return a value and its standard error, both cut at the error's second significant digit.

    Examples:
        >>> with_error(98.7612, 0.1134)
        '98.76 ± 0.11'
        >>> with_error(1234.5, 56.7)
        '1234 ± 57'

    Args:
        value: The value; None gives a dash.
        error: Its standard error; None, zero or a non-finite one leaves the value alone.
    """
    if value is None:
        return MISSING
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(value):
        return number(value, 4)
    power = 0
    largest = max(abs(value), error)
    if largest >= 1e6 or largest < 1e-3:
        power = math.floor(math.log10(largest))
    value, error = value / 10.0**power, error / 10.0**power
    places = 1 - int(f"{error:.1e}".split("e")[1])  # of the rounded error: 0.0996 is 0.10
    if places < 0:
        value, error = round(value, places), round(error, places)
    text = f"{value:.{max(0, places)}f} ± {error:.{max(0, places)}f}".replace("-", "−")
    return text if power == 0 else f"({text})×{power_of_ten(power)}"
