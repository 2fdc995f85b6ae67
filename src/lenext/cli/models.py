"""`lenext models`."""

from lenext.cli.console import Output, console, print_json, table

SHAPE = {"classes": 10, "channels": 1, "size": 28}


def models(*, output: Output = Output()) -> None:
    """List the ladder: family, year, size, arithmetic, and what is published.

    Example: lenext models
    """
    from lenext.ladder import overview
    from lenext.report.text import compact

    rows = overview(**SHAPE)
    if output.json:
        print_json({"shape": SHAPE, "models": rows})
        return
    shown = table("model", "family", "year", "params", "MACs", "published", right=("year", "params", "MACs"))
    for row in rows:
        shown.add_row(
            row["model"],
            row["family"],
            str(row["year"]),
            compact(row["params"]),
            compact(row["macs"]),
            row["published"],
        )
    out = console()
    out.print(shown)
    out.print(f"Parameters and multiply-adds (MACs) per image for {SHAPE['classes']} classes of gray "
              f"{SHAPE['size']}-pixel images.")  # fmt: skip
