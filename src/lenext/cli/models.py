"""`lenext models`."""

from lenext.cli.console import Output, console, print_json, table


def models(*, output: Output = Output()) -> None:
    """List the ladder: year, parameters and arithmetic, beside what is published.

    Example: lenext models
    """
    from lenext.ladder import overview
    from lenext.report.text import compact

    rows = overview()
    if output.json:
        print_json({"models": rows})
        return
    numbers = ("\npx", "\nparams", "\nMACs", "published\nparams", "\n MACs")
    shown = table("\nmodel", "\nyear", *numbers, "\naccuracy", right=numbers)
    shown.padding, shown.show_edge = (0, 1, 0, 0), False  # so that it fits into 80 columns
    for column in shown.columns[:-1]:
        column.no_wrap = True
    for row in rows:
        published = row["published"] or {"params": None, "gmacs": None, "accuracy": ""}
        gmacs = published["gmacs"]
        shown.add_row(
            row["model"],
            str(row["year"]),
            str(row["shape"]["size"]),
            compact(row["params"]),
            compact(row["macs"]),
            compact(published["params"]),
            compact(gmacs and gmacs * 1e9),
            published["accuracy"],
        )
    out = console()
    out.print(shown)
    out.print("px: side of one image, as published; MACs: multiply-adds; `lenext cost MODEL` counts at any shape")
