"""What estimate.json says, in both of its forms."""

import pytest

from lenext.report import foretold

NEW = {
    "predicted": {
        "seconds": {"value": 100.0, "low": 85.0, "high": 118.0},
        "step_seconds": {"value": 0.020, "low": 0.018, "high": 0.022},
        "peak_memory_bytes": {"value": 500e6, "low": 460e6, "high": 540e6},
        "epochs": 12.0,
    },
    "actual": {"seconds": 112.0, "step_seconds": 0.0235, "peak_memory_bytes": 471e6, "epochs": 12.5},
}


def test_figures_with_intervals() -> None:
    table = foretold.table(NEW)
    assert table["sentence"] == (
        "It took 12 % longer than predicted. That is within the interval given, 1.4 min to 2.0 min."
    )
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["Time", "Time of a step", "Peak memory", "Epochs"]
    assert [row["inside"] for row in rows.values()] == [True, False, True, None]
    assert rows["Time of a step"]["interval"] == "18 ms to 22 ms"
    assert rows["Peak memory"]["actual"] == "471 MB"
    assert (rows["Epochs"]["predicted"], rows["Epochs"]["actual"]) == ("12", "12.5")


def test_plain_numbers_of_older_runs() -> None:
    table = foretold.table(
        {"predicted": {"seconds": 18.0, "epochs": 12.0}, "actual": {"seconds": 17.0, "epochs": 12.0}}
    )
    assert table["sentence"] == "It took 6 % less than predicted."
    assert [(row["name"], row["predicted"], row["interval"], row["actual"]) for row in table["rows"]] == [
        ("Time", "18 s", "", "17 s"),
        ("Epochs", "12", "", "12"),
    ]


@pytest.mark.parametrize("estimate", [None, {}, {"predicted": {}}, {"predicted": None, "actual": {"seconds": 3.0}}])
def test_nothing_foretold_is_nothing_to_show(estimate) -> None:
    assert foretold.table(estimate) is None


def test_a_run_under_way_has_no_actual_figures() -> None:
    table = foretold.table({"predicted": NEW["predicted"]})
    assert table["sentence"] == ""
    assert {row["actual"] for row in table["rows"]} == {"–"}
    assert all(row["inside"] is None for row in table["rows"])


def test_an_interval_may_lack_an_end() -> None:
    told = foretold.of_amount({"value": 10.0, "low": 8.0, "high": None}, 9.0)
    assert (told.low, told.high, told.inside) == (8.0, 10.0, True)
    assert foretold.of_amount({"value": None}, 9.0) is None
