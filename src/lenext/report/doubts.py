"""The page of labels that are likely wrong."""

from typing import Any

from lenext.record import Record
from lenext.report import pictures


def page(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """The page's context; there are no charts."""
    found = record.read_json("label_errors.json")
    images = pictures.read(record.path("label_errors.npy"))
    rows = [
        {**row, "picture": pictures.data_uri(image), "small": pictures.is_small(image)}
        for row, image in zip([*found["listed"], *found["hardest"]], () if images is None else images, strict=False)
    ]
    context = {
        **found,
        "title": f"Labels of {found['data']}",
        "root": record.root,
        "listed": rows[: len(found["listed"])],
        "hardest": rows[len(found["listed"]) :],
    }
    titles = {
        "listed": "Likely wrong",
        "pairs": "Which for which",
        "hardest": "Other great losses",
        "judged": "How",
        "environment": "Environment",
    }
    context["sections"] = [(key, name) for key, name in titles.items() if context[key]]
    return context, {}
