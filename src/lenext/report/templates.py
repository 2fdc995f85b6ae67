"""Templates, and the filters that write figures in them as a reader likes them."""

from collections.abc import Callable
from typing import Any

import jinja2

from lenext.report import text


def environment(*, autoescape: bool) -> jinja2.Environment:
    """The templates of this folder; in them, what a record lacks is nothing rather than an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("lenext.report", "."),
        autoescape=autoescape,  # noqa: S701 - Markdown has an escape of its own
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[[Any], Any]] = {
        "count": text.count,
        "compact": text.compact,
        "seconds": text.seconds,
        "milliseconds": milliseconds,
        "percent": text.percent,
        "interval": text.interval,
        "moment": text.moment,
        "points": text.points,
        "chance": text.chance,
        "bytes": text.size,
        "decimal": text.decimal,
        "short": lambda number: text.ABSENT if number is None else f"{number:.4g}",
        "blank": lambda value: "" if value is None else value,
    }
    made.filters |= {name: _known(show) for name, show in filters.items()} | {"plural": text.plural}
    return made


def milliseconds(duration: float | None) -> str:
    return text.seconds(None if duration is None else duration / 1000)


def _known(show: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`show` for what a record may lack: a key that is not there counts as None."""
    return lambda value: show(None if isinstance(value, jinja2.Undefined) else value)
