"""`lenext cost`."""

import textwrap
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from lenext.cli.console import Output, console, print_json, table

if TYPE_CHECKING:
    from lenext.costing import Amount, Count, Layer
    from lenext.costing.profiling import Profile
    from lenext.foresight import Plan, Shape

IMAGES = 50_000  # where the whole ladder is shown and nothing is said: as of CIFAR-10
GLUE = "\N{NO-BREAK SPACE}"


@Parameter(name="*")
@dataclass(frozen=True)
class Training:
    """What training will cost: asked for by --data or --images."""

    data: str | None = None
    "Images to train on: a name, a folder, a manifest."
    images: int | None = None
    "As many training images instead, of the model's shape."
    epochs: float | None = None
    "Passes over them; otherwise those of the recipe."
    budget: str | None = None
    "Tell how many epochs fit into a time, such as 30m."
    on: str | None = None
    "An accelerator instead of this machine, such as a100 or rtx4090."
    probe: bool = False
    "Make some steps, for a narrower interval."
    price: float | None = None
    "Price of the machine per hour."
    watts: float | None = None
    "Power of the machine at work."
    flop_rate: str | None = None
    "Reckon as the slides do, one forward pass at so many multiply-adds a second: 0.15T."


def cost(
    model: str | None = None,
    /,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    layers: bool = False,
    device: bool = False,
    set: tuple[str, ...] = (),  # noqa: A002 (the option's name)
    training: Training = Training(),
    output: Output = Output(),
) -> None:
    """Count what a model costs for one image, and foretell what training it will take.

    Example: lenext cost resnet50 --size 64 --classes 10 --images 50000 --epochs 30

    Parameters
    ----------
    model
        A rung of the ladder; `lenext models` lists them. Without one, the whole ladder as a table.
    size
        Side of the image in pixels; otherwise as published, or of the data.
    channels
        1 for gray images, 3 for colour; otherwise as published, or of the data.
    classes
        Classes to tell apart; otherwise as published, or of the data.
    layers
        Show a row per layer.
    device
        Show what this machine can do, measured once; with --probe measured anew.
    set
        One setting, as model.width=0.5 or recipe.batch_size=64; may be given again.
    """
    from lenext.errors import UsageError
    from lenext.ladder import cost as count
    from lenext.ladder import published_shape, rung
    from lenext.spec import Model, from_dict, parse_sets

    if device:
        _print_device(output, anew=training.probe)
        return
    given = {"classes": classes, "channels": channels, "size": size}
    asked = training.data is not None or training.images is not None
    if (
        model is not None
        and not asked
        and (unread := [name for name, value in asdict(training).items() if value not in (None, False)])
    ):
        raise UsageError(f"--{unread[0].replace('_', '-')}: accepted together with --data or --images")
    if model is None:
        _ladder(given, training, output)
        return
    settings = parse_sets(set)
    options = settings.pop("model", {})
    sections = rung(model).sections if not rung(model).is_network or asked else ()
    if settings.keys() - {*sections} or not isinstance(options, dict) or "name" in options:
        example = "codebook.words=1024" if "codebook" in sections else "model.width=0.5"
        raise UsageError(f"given --set {' '.join(set)}, accepted: settings of the model, such as {example}")
    from_dict(Model, {"name": model, **options}, "model")  # so that an unknown one is called model.so-and-so
    images = _shape(model, given, training) if asked else None
    shape = published_shape(model) | {key: value for key, value in given.items() if value is not None}
    if images is not None:
        shape = {"classes": images.classes, "channels": images.channels, "size": images.size}
    counting = {key: value for key, value in settings.items() if key != "recipe"}
    counted = count(model, **shape, **options, **counting)
    document = _document(model, shape, counted)
    plan = None
    if images is not None:
        plan = _plan(model, parse_sets(set), images, training)
        document |= _planned(plan) | _reckoned(counted, images, plan, training)
    if output.json:
        print_json(document)
        return
    if layers and counted.layers:
        _print_layers(counted.layers)
    _print_totals(model, shape, counted)
    if plan is not None:
        _print_plan(plan, document, training)


def _shape(model: str | None, given: dict[str, int | None], training: Training) -> "Shape":
    """Of the data where there are any, else of the model as published; what is given wins."""
    from lenext.foresight import Shape
    from lenext.ladder import published_shape

    if training.data is not None:
        from lenext.data import prepare
        from lenext.spec import Data, from_dict

        own = {key: given[key] for key in ("size", "channels") if given[key] is not None}
        found = Shape.of(prepare(from_dict(Data, {"source": training.data, **own}, "data")))
        return replace(found, classes=given["classes"] or found.classes)
    below = published_shape(model) if model else {"classes": 10, "channels": 3, "size": 32}
    shape = below | {key: value for key, value in given.items() if value is not None}
    train = IMAGES if training.images is None else training.images
    return Shape(classes=shape["classes"], channels=shape["channels"], size=shape["size"], train=train)


def _plan(model: str, settings: dict[str, Any], images: "Shape", training: Training) -> "Plan":
    from lenext.foresight import plan
    from lenext.ladder import resolve
    from lenext.spec import parse_seconds

    layer = {} if training.epochs is None else {"epochs": training.epochs}
    return plan(
        resolve("images", model, settings, layer),
        images,
        budget=parse_seconds(training.budget),
        price=training.price,
        watts=training.watts,
        on=training.on,
        probe=training.probe,
    )


def _planned(plan: "Plan") -> dict[str, Any]:
    """The plan for JSON: a figure and, beside it, its interval."""
    rows: dict[str, Any] = {}
    for name, value in vars(plan).items():
        if hasattr(value, "low"):
            rows |= {name: value.value, f"{name}_interval": [value.low, value.high]}
        elif name != "model":
            rows[name] = value
    return rows


def _reckoned(counted: "Count", images: "Shape", plan: "Plan", training: Training) -> dict[str, Any]:
    if training.flop_rate is None:
        return {}
    from lenext.errors import UsageError
    from lenext.spec import parse_amount

    rate = parse_amount(training.flop_rate)
    if not rate:
        raise UsageError(f"--flop-rate: given {training.flop_rate}, accepted: more than 0, such as 0.15T")
    passes = plan.epochs if training.epochs is not None and plan.epochs else 1.0
    return {"seconds_at_flop_rate": counted.seconds_at(rate, images.train * passes)}


def _ladder(given: dict[str, int | None], training: Training, output: Output) -> None:
    """Every rung on the same images."""
    from lenext.errors import UsageError
    from lenext.ladder import LADDER, cost
    from lenext.report.text import ABSENT, compact, seconds
    from lenext.report.text import size as in_bytes

    images = _shape(None, given, training)
    shape = {"classes": images.classes, "channels": images.channels, "size": images.size}
    rows, refused = [], {}
    for name in LADDER:
        try:
            plan = _plan(name, {}, images, training)
            counted = cost(name, **shape)
        except UsageError as error:
            refused[name] = str(error)
            continue
        rows.append({"model": name, "params": counted.params, "macs": counted.macs, **_planned(plan)})
    rows.sort(key=lambda row: row["seconds"])
    if output.json:
        print_json({"shape": shape, "images": images.train, "models": rows, "refused": refused})
        return
    last = f"in {training.budget}" if training.budget else "epochs"
    columns = ("params", "MACs", "epoch", "training", "at most", "memory", last)
    shown = table("model", *columns, right=columns)
    shown.padding = (0, 1, 0, 0)  # long names need the room
    for column in shown.columns:
        column.no_wrap = True
    for row in rows:
        _, high = row["seconds_interval"]
        memory = row.get("peak_memory_bytes")
        count = row["epochs_in_budget"] if training.budget else row["epochs"]
        shown.add_row(
            row["model"], compact(row["params"]), compact(row["macs"]), seconds(row.get("epoch_seconds")),
            seconds(row["seconds"]), seconds(high), in_bytes(memory),
            ABSENT if count is None else f"{count:.0f}" if count >= 10 else f"{count:.1f}",
        )  # fmt: skip
    out = console()
    out.print(f"{images.train:,} images of {_times(images.channels, images.size, images.size)}, "
              f"{images.classes} classes, on {rows[0]['device'] if rows else 'this machine'}")  # fmt: skip
    out.print(shown)
    for name, reason in refused.items():
        out.print(f"{name}: {reason}")
    _say_borrowed(any(row["borrowed"] for row in rows))


def _print_plan(plan: "Plan", document: dict[str, Any], training: Training) -> None:
    from lenext.report.text import count, seconds, size

    def row(what: str, amount: "Amount | None", shown: Any) -> None:
        if amount is not None:
            rows.add_row(what, shown(amount.value), f"{shown(amount.low)}–{shown(amount.high)}")

    rows = table("training", "foretold", "nine in ten within", right=("foretold", "nine in ten within"))
    row(f"a step of {plan.batch_size} images", plan.step_seconds, seconds)
    row(f"an epoch of {plan.images:,} images", plan.epoch_seconds, seconds)
    row("the whole run" if plan.epochs is None else f"the whole run, {plan.epochs:g} epochs", plan.seconds, seconds)
    row("memory it takes", plan.peak_memory_bytes, size)
    row("money", plan.money, lambda amount: f"{amount:,.2f}")
    row("energy", plan.kilowatt_hours, lambda amount: f"{amount:.3g} kWh")
    if plan.data_images_per_second is not None:
        rows.add_row("images read and augmented", f"{plan.data_images_per_second:,.0f}/s", "")
    if plan.largest_batch is not None:
        rows.add_row("most images at a time that fit", count(plan.largest_batch), "")
    if plan.epochs_in_budget is not None:
        rows.add_row(f"epochs in {training.budget}", f"{plan.epochs_in_budget:.1f}", "")
    if "seconds_at_flop_rate" in document:
        rows.add_row(f"as slides reckon, at {training.flop_rate}", seconds(document["seconds_at_flop_rate"]), "")
    out = console()
    out.print(f"on {plan.device}")
    out.print(rows)
    _say_borrowed(plan.borrowed)


def _say_borrowed(borrowed: bool) -> None:
    if borrowed:
        console(stderr=True).print(
            "this machine has not been measured, so intervals are wide; `lenext cost --device` does, in half a minute"
        )


def _print_device(output: Output, *, anew: bool) -> None:
    from lenext.foresight import measured_machine

    measured = measured_machine(lambda text: console(stderr=True).print(text), fresh=anew)
    if output.json:
        print_json(_device(measured))
        return
    from lenext.report.text import compact, seconds, size

    shown = table("what", "rate", right=("rate",))
    shown.show_header = False
    document = _device(measured)
    for name, rate in document["macs_per_second"].items():
        shown.add_row(name, f"{compact(rate)} MAC/s")
    shown.add_row("memory, copying", f"{size(document['bytes_per_second'])}/s")
    shown.add_row("JPEGs, decoding", f"{compact(document['decoded_pixels_per_second'])} pixels/s")
    shown.add_row("an operation on next to nothing", seconds(document["overhead_seconds"]))
    out = console()
    out.print(f"{measured.device}, {measured.threads} threads, measured in {measured.seconds:.0f} s")
    out.print(shown)


def _device(measured: "Profile") -> dict[str, Any]:
    rates = {f"matrix product, {name}": rate for name, rate in measured.peaks.items()}
    rates |= {f"{kind} convolutions, {measured.precision}": rate for kind, rate in measured.rates().items()}
    return {
        "device": measured.device,
        "threads": measured.threads,
        "macs_per_second": rates,
        "bytes_per_second": measured.bandwidth,
        "decoded_pixels_per_second": measured.decoding,
        "overhead_seconds": measured.overhead(),
        "measured_seconds": measured.seconds,
    }


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
