"""Figures that are foretold, with how far they can be trusted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Amount:
    """A figure that is foretold; of ten actual ones nine are meant to lie between `low` and `high`."""

    value: float
    low: float
    high: float

    @classmethod
    def within(cls, value: float, factor: float) -> "Amount":
        """From `value` / `factor` to `value` · `factor`: errors of speed and memory are errors of a ratio."""
        return cls(value, value / factor, value * factor)

    def __add__(self, other: "Amount") -> "Amount":
        """The sum; both are taken to err in the same direction, which is the worse case."""
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> "Amount":
        return Amount(self.value * times, self.low * times, self.high * times)

    def __contains__(self, actual: float) -> bool:
        return self.low <= actual <= self.high
