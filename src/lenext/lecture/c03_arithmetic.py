"""C3: what ten convolutions cost over a million examples, on the slides' machines, on this one, and on others."""

from collections.abc import Callable

from lenext.bench import Measured, bench_infer, bench_train
from lenext.costing import Amount, operations, without_memory
from lenext.costing.accelerators import ACCELERATORS, accelerator_seconds
from lenext.foresight import TIME_FACTOR, measured_machine, predict_seconds, train_step_seconds
from lenext.ladder import cost
from lenext.lecture import figures, networks
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Lab, all_of, over_seeds
from lenext.models import build
from lenext.report import text
from lenext.training.precision import choose_device, choose_precision

SHAPE = {"classes": 100, "channels": 3, "size": 64}
EXAMPLES = 1_000_000
BATCH = 32
# What the slides print: operations, and hours and minutes at so many a second
SAID_MACS, SAID = 10e15, (("a CPU, 0.15 T", 0.15e12, 18 * 3600.0), ("a GPU, 12 T", 12e12, 14 * 60.0))
ROUNDED = 0.1
OTHERS = ("rtx3090", "a100", "h100")


def study(lab: Lab) -> Finding:
    networks.join_the_ladder()
    counted = cost(networks.EXAMPLE, **SHAPE)
    slides = [(name, counted.seconds_at(rate, EXAMPLES), said) for name, rate, said in SAID]
    arithmetic = counted.macs * EXAMPLES
    as_printed = abs(arithmetic / SAID_MACS - 1) <= ROUNDED and all(
        abs(ours / said - 1) <= ROUNDED for _, ours, said in slides
    )

    measured_machine(lab.observer.stage)
    with without_memory():
        network = build(networks.EXAMPLE, **SHAPE)
    precision = choose_precision("auto", choose_device()).name
    shape = SHAPE["channels"], SHAPE["size"], precision
    foretold = {
        "forward": Amount.within(predict_seconds(network, *shape, batch=BATCH), TIME_FACTOR),
        "training": Amount.within(
            train_step_seconds(network, SHAPE["channels"], SHAPE["size"], BATCH, precision), TIME_FACTOR
        ),
    }
    repeats = len(lab.seeds)
    lab.observer.stage(f"measuring {repeats} times forward and in training, {BATCH} examples at a time")
    timed: dict[str, Callable[..., Measured]] = {"forward": bench_infer, "training": bench_train}
    took = {
        what: bench(networks.EXAMPLE, **SHAPE, batch_size=BATCH, repeats=repeats, seconds=1.0)
        for what, bench in timed.items()
    }
    whole = {what: foretold[what] * (EXAMPLES / BATCH) for what in foretold}
    actual = {what: over_seeds(_seconds(measured)) for what, measured in took.items()}
    inside = [actual[what].value in whole[what] for what in whole]
    rows = [
        [f"{name}, as on the slides", "forward", text.seconds(said), text.seconds(ours), ""]
        for name, ours, said in slides
    ]
    rows += [
        [f"this machine, {precision}", what, "", text.between(whole[what].low, whole[what].high, text.seconds),
         text.seconds(actual[what].value)]
        for what in whole
    ]  # fmt: skip
    found = operations(network, channels=SHAPE["channels"], size=SHAPE["size"], training=True)
    for name in OTHERS:
        seconds = accelerator_seconds(found, BATCH, ACCELERATORS[name], precision="bf16", training=True)
        rows.append(
            [f"{name}, {ACCELERATORS[name].source}", "training", "", text.seconds(seconds * EXAMPLES / BATCH), ""]
        )
    measures = [Measure("multiply-adds of ten layers over a million examples", arithmetic)]
    for what, ours in whole.items():
        came = actual[what]
        value, low, high = (seconds / ours.value for seconds in (came.value, came.low, came.high))
        measures.append(Measure(f"measured over foretold, {what}", value, low, high, "times"))
    share = took["training"].share_of_peak
    return Finding(
        verdict=all_of(["holds" if as_printed else "fails", "holds" if all(inside) else "fails"]),
        words=f"Ten such layers take {text.compact(arithmetic)} multiply-adds forward over a million examples: "
        f"{text.seconds(slides[0][1])} and {text.seconds(slides[1][1])} at the slides' rates. This machine takes "
        f"{text.seconds(actual['forward'].value)} forward and {text.seconds(actual['training'].value)} to train on "
        f"them once, at {text.percent(share)} of what a matrix product reaches; foretold were "
        f"{text.seconds(whole['forward'].value)} and {text.seconds(whole['training'].value)}.",
        measures=measures,
        tables=[Table("A million examples through ten convolutions",
                      ("machine", "", "on the slide", "reckoned", "measured"), rows)],
        figures={"Measured time over foretold time": figures.dots(measures[1:], "Measured / foretold", at=1.0)},
    )  # fmt: skip


def _seconds(measured: Measured) -> list[float]:
    """For all examples, by each repeat."""
    return [EXAMPLES / rate for rate in measured.repeats]


CLAIM = Claim(
    "C3",
    "Training cost is set by the convolutions' arithmetic: ten layers over a million examples are 10 PF, 18 h on a CPU "
    "of 0.15 TF, 14 min on a GPU of 12 TF.",
    "Ten 5×5 convolutions from 100 channels to 100 on maps of 64×64. Their multiply-adds are counted; what they take "
    "on this machine is foretold from its profile, measured on other layers, and then measured, forward and training.",
    f"Holds if the slides' figures are within {ROUNDED:.0%} of what is counted, and the measured times within a factor "
    f"of {TIME_FACTOR:g} of those foretold.",
    study,
    minutes=1,
)
