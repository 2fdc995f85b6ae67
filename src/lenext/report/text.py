"""Numbers as a reader likes them: 12,345; 1.2 M; 3.4 min; 97.2 %. None, for what was not measured, is a dash."""

import datetime
from collections.abc import Callable, Sequence

ABSENT = "–"

# not strftime's, which speaks the machine's language
_MONTHS = ("January", "February", "March", "April", "May", "June",
           "July", "August", "September", "October", "November", "December")  # fmt: skip

_TIMES = ((1e-6, "µs", 1000), (1e-3, "ms", 1000), (1, "s", 60), (60, "min", 60), (3600, "h", 24), (86400, "d", None))
_THOUSANDS = ((1, "", 1000), (1e3, "k", 1000), (1e6, "M", 1000), (1e9, "G", 1000), (1e12, "T", 1000), (1e15, "P", None))


def count(number: float | None) -> str:
    """A number of things, in full: ``12,345``."""
    return ABSENT if number is None else f"{number:,.0f}"


def compact(number: float | None) -> str:
    """A large number of things: ``1.2 M``; in full below 10,000."""
    if number is None or abs(number) < 10_000:
        return count(number)
    return _scaled(number, _THOUSANDS, 100)


def seconds(duration: float | None) -> str:
    """A duration given in seconds: ``45 µs``, ``3.4 min``, ``12 h``."""
    if duration is None:
        return ABSENT
    return _scaled(duration, _TIMES, 10) if duration else "0 s"


def percent(share: float | None) -> str:
    """A share of 1 as ``97.2 %``; only a whole is ``100 %`` and only nothing is ``0 %``."""
    if share is None:
        return ABSENT
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share > 0.9995:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Two shares of 1, low and high, as ``96.4–97.9 %``."""
    return ABSENT if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def between(low: float, high: float, show: Callable[[float | None], str]) -> str:
    """Two figures that `show` writes: ``15 s to 22 s``."""
    return f"{show(low)} to {show(high)}"


def points(difference: float | None, decimals: int = 1) -> str:
    """A difference of two shares of 1, in percentage points, with its sign: ``+1.3``, ``−0.4``; ``0.0`` has none."""
    if difference is None:
        return ABSENT
    said = f"{100 * difference:+.{decimals}f}"
    return said[1:] if float(said) == 0 else said.replace("-", "−")


def chance(p: float | None) -> str:
    """A p value: ``0.013``, ``< 0.001``."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def size(number: float | None) -> str:
    """A size given in bytes: ``246 kB``, ``1.2 MB`` (1 kB is 1,000 bytes)."""
    if number is None or number < 1000:
        return ABSENT if number is None else f"{number:.0f} B"
    return _scaled(number, _THOUSANDS, 100) + "B"


def decimal(number: float | None) -> str:
    """A number of no unit, such as a loss, to three decimals."""
    return ABSENT if number is None else f"{number:.3f}"


def moment(when: str) -> str:
    """A date of the records, such as ``2026-11-23T07:05:00+00:00``, as ``23 November 2026, 07:05 UTC``."""
    utc = datetime.datetime.fromisoformat(when).astimezone(datetime.UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc:%Y, %H:%M} UTC"


def words(name: str) -> str:
    """A name of the records as words: ``near_duplicates`` is ``near duplicates``."""
    return name.replace("_", " ")


def sentence(said: str) -> str:
    """A remark of the records as a sentence: ``fitted on a part`` is ``Fitted on a part.``"""
    return said[:1].upper() + said[1:] + ("" if said.endswith((".", "!", "?")) else ".")


def plural(number: float, thing: str, things: str | None = None) -> str:
    """``1 image``, ``12,345 images``."""
    return f"{count(number)} {thing if number == 1 else things or thing + 's'}"


def _scaled(number: float, units: Sequence[tuple[float, str, int | None]], fine: int) -> str:
    """`number` in the first of `units` (its size, name, how many make the next) in which it stays below the next.

    Below `fine` with one decimal.
    """
    amount, digits, name = number, 0, ""
    for unit, name, limit in units:  # noqa: B007 - the last ones are used
        amount = number / unit
        digits = 1 if round(abs(amount), 1) < fine else 0
        if limit is None or round(abs(amount), digits) < limit:
            break
    return f"{amount:,.{digits}f} {name}"
