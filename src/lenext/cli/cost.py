"""`lenext cost`."""

import textwrap
from typing import TYPE_CHECKING, Any

from lenext.cli.console import Output, console, print_json, table

if TYPE_CHECKING:
    from lenext.costing import Count, Layer

GLUE = "\N{NO-BREAK SPACE}"


def cost(
    model: str,
    /,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    layers: bool = False,
    set: tuple[str, ...] = (),  # noqa: A002 (the option's name)
    output: Output = Output(),
) -> None:
    """Count what a model costs for one image: parameters, multiply-adds, memory.

    Example: lenext cost resnet50 --size 64 --classes 10

    Parameters
    ----------
    model
        A rung of the ladder; `lenext models` lists them.
    size
        Side of the image in pixels; otherwise as published.
    channels
        1 for gray images, 3 for colour; otherwise as published.
    classes
        Classes to tell apart; otherwise as published.
    layers
        Show a row per layer.
    set
        One setting of the model, as model.width=0.5; may be given again.
    """
    from lenext.errors import UsageError
    from lenext.ladder import cost as count
    from lenext.ladder import published_shape, rung
    from lenext.spec import Model, from_dict, parse_sets

    settings = parse_sets(set)
    options = settings.pop("model", {})
    sections = rung(model).sections if not rung(model).is_network else ()
    if settings.keys() - {*sections} or not isinstance(options, dict) or "name" in options:
        example = "codebook.words=1024" if "codebook" in sections else "model.width=0.5"
        raise UsageError(f"given --set {' '.join(set)}, accepted: settings of the model, such as {example}")
    from_dict(Model, {"name": model, **options}, "model")  # so that an unknown one is called model.so-and-so
    given = {"classes": classes, "channels": channels, "size": size}
    shape = published_shape(model) | {key: value for key, value in given.items() if value is not None}
    counted = count(model, **shape, **options, **settings)
    if output.json:
        print_json(_document(model, shape, counted))
        return
    if layers and counted.layers:
        _print_layers(counted.layers)
    _print_totals(model, shape, counted)


def _document(model: str, shape: dict[str, int], counted: "Count") -> dict[str, Any]:
    return {
        "model": model,
        "shape": shape,
        "params": counted.params,
        "training_params": counted.training_params,
        "macs": counted.macs,
        "flops": counted.flops,
        "inference_bytes": counted.inference_bytes,
        "training_bytes": counted.training_bytes,
        "uncounted": dict(counted.uncounted),
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": layer.shape,
                "params": layer.params,
                "macs": layer.macs,
                "flops": layer.flops,
                "output_bytes": layer.output_bytes,
                "kept_bytes": layer.kept_bytes,
            }
            for layer in counted.layers
        ],
    }


def _print_totals(model: str, shape: dict[str, int], counted: "Count") -> None:
    from lenext.report.text import compact, count, size

    shown = table("what", "number", "short", right=("number", "short"))
    shown.show_header = False
    shown.add_row("parameters", count(counted.params), compact(counted.params))
    if counted.training_params != counted.params:
        shown.add_row("parameters in training", count(counted.training_params), compact(counted.training_params))
    shown.add_row("multiply-adds (MACs)", count(counted.macs), compact(counted.macs))
    shown.add_row("FLOPs, two per MAC", count(counted.flops), compact(counted.flops))
    if counted.inference_bytes is not None:
        shown.add_row("activation bytes at inference", count(counted.inference_bytes), size(counted.inference_bytes))
    if counted.training_bytes is not None:
        shown.add_row("activation bytes kept for training", count(counted.training_bytes),
                      size(counted.training_bytes))  # fmt: skip
    out = console()
    image = _times(shape["channels"], shape["size"], shape["size"])
    out.print(f"{model}, {count(shape['classes'])} classes, for one image of {image}")
    out.print(shown)
    if counted.uncounted:
        # A name stays on one line with its number
        named = ", ".join(f"{name}{GLUE}{count(calls)}" for name, calls in counted.uncounted.items())
        lines = textwrap.fill(f"not counted as multiply-adds: {named}", out.width, break_on_hyphens=False)
        out.print(lines.replace(GLUE, " "))


def _print_layers(layers: "tuple[Layer, ...]") -> None:
    from lenext.report.text import ABSENT, compact, size

    numbers = ("output", "params", "MACs", "kept")
    shown = table("layer", "kind", *numbers, right=numbers)
    shown.padding, shown.show_edge = (0, 1, 0, 0), False  # long names need the room
    for column in shown.columns:
        column.no_wrap = column.header != "kind"
    for layer in layers:
        params, macs = compact(layer.params) if layer.params else "", compact(layer.macs) if layer.macs else ""
        if not layer.output_bytes:
            params = macs = ABSENT
        kept = size(layer.kept_bytes) if layer.kept_bytes else ""
        shown.add_row(layer.name or "the network", layer.kind, _times(*layer.shape), params, macs, kept)
    out = console()
    out.print(shown)
    out.print("output: numbers of one image; kept: bytes that the backward pass needs")
    if any(not layer.output_bytes for layer in layers):
        out.print(f"{ABSENT}: takes part in training only")
    out.print()


def _times(*sides: int) -> str:
    return "×".join(map(str, sides))
