"""Money, energy, and the slides' way of reckoning."""

import re

from lenext.errors import UsageError

_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def parse_rate(text: str) -> float:
    """Operations a second from text such as ``0.15T`` or ``900G``. Raises UsageError for anything else."""
    match = re.fullmatch(r"([\d.]+)\s*([kMGTP]?)", text.strip())
    try:
        rate = float(match[1]) * _SCALES[match[2]] if match else 0.0
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise UsageError(f"a rate: given {text!r}, accepted: operations a second, such as 0.15T or 900G")
    return rate


def seconds_at_rate(macs: int, examples: float, rate: float) -> float:
    """Seconds of one forward pass over so many examples, as the slides and most papers reckon.

    A multiply-add counts as one operation, and backward as nothing: 10 layers of 1 G over 1 M examples are 10 P, 18 h
    at 0.15 T a second and 14 min at 12 T.
    """
    return macs * examples / rate


def money(seconds: float, price_per_hour: float) -> float:
    return seconds / 3600 * price_per_hour


def kilowatt_hours(seconds: float, watts: float) -> float:
    return seconds / 3600 * watts / 1000
