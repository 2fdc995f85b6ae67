"""C15: what breaking up channels into groups saves, and whether ResNeXt beats ResNet at equal cost."""

from lenext.costing import Count, Layer
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import EQUAL, Arm, Lab, accuracy, all_of, at_cost, count, gain, judge, measured, seconds
from lenext.report import text

CARDINALITIES = (1, 2, 4, 8, 16)  # 1: ResNet
QUICK_CARDINALITIES = (1, 8)
WIDTH = 0.375
SIZE = 14  # pixels: a quarter of the arithmetic of 28
CHANNELS = 64  # that groups share in the first stage, where what they cut is counted


def resnext(cardinality: int, width: int) -> Arm:
    """ResNeXt-29 with groups of so many channels in its first stage, at full width; of one group, ResNet."""
    name = "ResNet" if cardinality == 1 else f"{cardinality} groups"
    return Arm(name, f"resnext29_{cardinality}x{width}d", {"model": {"width": WIDTH}})


BUDGET = resnext(4, 19)  # whose multiply-adds all have; that many can be had with any of these numbers of groups


def study(lab: Lab) -> Finding:
    cardinalities = QUICK_CARDINALITIES if lab.quick else CARDINALITIES
    images = material.fashion(1_500, 500, 2_000, size=SIZE) if lab.quick else material.fashion(5_000, size=SIZE)
    epochs = 6 if lab.quick else 8
    macs = count(BUDGET, images).macs
    arms = {
        groups: at_cost(macs, [resnext(groups, width) for width in range(1, 129)], images) for groups in cardinalities
    }
    whole = {groups: count(Arm("", f"resnext29_{groups}x{CHANNELS // groups}d"), images) for groups in cardinalities}
    cuts = {groups: _cuts(whole[1], of) for groups, of in whole.items() if groups > 1}
    trained = lab.train(list(arms.values()), images, epochs=epochs)
    trials = {groups: trained[arm.name] for groups, arm in arms.items()}
    resnet = trials[1]
    grouped = gain([trial for groups in cuts for trial in trials[groups]], resnet)
    gains = [measured(gain(trials[groups], resnet), f"{groups} groups over ResNet") for groups in cuts]
    of_all = measured(grouped, "ResNeXt, all its numbers of groups, over ResNet")
    exact = [cut == groups for groups, of_layers in cuts.items() for cut in of_layers]
    rows = [
        [arm.name, arm.model, figures.said(accuracy(trials[groups], arm.name)),
         text.compact(trials[groups][0].summary["params"]), text.compact(trials[groups][0].summary["macs"]),
         text.seconds(seconds(trials[groups]))]
        for groups, arm in arms.items()
    ]  # fmt: skip
    return Finding(
        verdict=all_of(["holds" if all(exact) else "fails", judge(grouped)]),
        words=f"Of {len(exact)} counts of a layer's parameters or multiply-adds, groups divide {sum(exact)} by exactly "
        f"their number; of the whole network's multiply-adds {max(cuts)} groups leave "
        f"{text.percent(whole[max(cuts)].macs / whole[1].macs)}, as its 1×1 convolutions stay whole. With channels "
        f"added until the cost is equal, groups change test accuracy by {figures.said(of_all)}, all their numbers "
        "taken together.",
        measures=[of_all, *gains,
                  *(Measure(f"cut of the 3×3 convolutions by {groups} groups", min(of_layers), unit="times")
                    for groups, of_layers in cuts.items())],
        tables=[
            Table(
                "What groups cut of a network with as many channels",
                ("groups", "parameters of 3×3", "multiply-adds", "all parameters", "multiply-adds"),
                [[str(groups), *(text.compact(sum(getattr(layer, what) for layer in _in_groups(of)))
                                 for what in ("params", "macs")),
                  text.compact(of.params), text.compact(of.macs)] for groups, of in whole.items()],
            ),
            Table(
                f"{images.words}; {epochs} epochs",
                ("", "network", "test accuracy", "parameters", "multiply-adds", "training"),
                rows,
            ),
        ],
        figures={
            "Test accuracy by the number of groups, at equal multiply-adds; faint lines are single seeds":
                figures.lines(
                    {"ResNeXt-29": [[(groups, its[seed].accuracy) for groups, its in trials.items()]
                                    for seed in lab.seeds]},
                    "Groups; 1 is ResNet", "Test accuracy", log_x=True, points=True,
                ),
            "What groups gain over ResNet": figures.dots([*gains, of_all], "Test accuracy gained, points", at=0),
        },
    )  # fmt: skip


def _in_groups(of: Count) -> list[Layer]:
    """The 3×3 convolutions of the bottlenecks."""
    return [layer for layer in of.layers if layer.name.endswith("conv2")]


def _cuts(one: Count, groups: Count) -> list[float]:
    """By how much parameters and multiply-adds differ, layer by layer; the first are of fewer groups."""
    pairs = zip(_in_groups(one), _in_groups(groups), strict=True)
    return [ratio for a, b in pairs for ratio in (a.params / b.params, a.macs / b.macs)]


CLAIM = Claim(
    "C15",
    "Breaking up channels into b groups cuts parameters and computation by b; ResNeXt can use more dimensions for the "
    "same budget and has a higher accuracy.",
    f"Parameters and multiply-adds of every 3×3 convolution of ResNeXt-29 are counted, in groups and in one. Then "
    f"ResNet, which is ResNeXt-29 with one group, and ResNeXt-29 with 2, 4, 8 and 16, all at {WIDTH:g} of their width "
    f"outside the bottlenecks, are trained with the same images of {SIZE} px, epochs and recipe; groups are as wide as "
    f"makes multiply-adds equal within {EQUAL:.0%}.",
    "Holds if every 3×3 convolution costs exactly as many times less as it has groups, and at equal multiply-adds "
    "ResNeXt, its numbers of groups above one taken together, has a higher test accuracy than ResNet with the whole "
    "interval; fails if a cost is not so, or the accuracy is not higher with the whole interval.",
    study,
    minutes=17,
)
