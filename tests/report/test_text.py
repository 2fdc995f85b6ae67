import subprocess
import sys

import pytest

from lenext.report import text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.count(12_345), "12,345"),
        (text.compact(9_999), "9,999"),
        (text.compact(61_706), "61.7 k"),
        (text.compact(999_960), "1.0 M"),
        (text.compact(1_200_000), "1.2 M"),
        (text.compact(138_357_544), "138 M"),
        (text.compact(1.024e16), "10.2 P"),
        (text.seconds(0), "0 s"),
        (text.seconds(4.2e-5), "42 µs"),
        (text.seconds(0.9996), "1.0 s"),
        (text.seconds(59.97), "1.0 min"),
        (text.seconds(204), "3.4 min"),
        (text.seconds(7200), "2.0 h"),
        (text.size(650), "650 B"),
        (text.size(246_000), "246 kB"),
        (text.size(1_200_000), "1.2 MB"),
        (text.percent(0.972), "97.2 %"),
        (text.percent(1), "100 %"),
        (text.percent(0.99999), "> 99.9 %"),
        (text.percent(0.00001), "< 0.1 %"),
        (text.interval([0.964, 0.979]), "96.4–97.9 %"),
        (text.plural(1, "image"), "1 image"),
        (text.plural(2, "class", "classes"), "2 classes"),
        (text.sentence("fitted on a part"), "Fitted on a part."),
        (text.sentence("LIBLINEAR, at most 9 iterations."), "LIBLINEAR, at most 9 iterations."),
        (text.moment("2026-11-23T09:05:00+02:00"), "23 November 2026, 07:05 UTC"),
    ],
)
def test_numbers_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("show", [text.count, text.compact, text.seconds, text.size, text.percent, text.interval])
def test_what_was_not_measured_is_a_dash(show) -> None:
    assert show(None) == "–"


def test_the_text_helpers_do_not_load_the_charts() -> None:
    code = (
        "import sys, lenext.report.text; print([m for m in ('altair', 'jinja2', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
