"""C14: whether a k×k convolution as 1×k and k×1 saves much and loses little."""

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Arm, Lab, accuracy, all_of, count, gain, judge, measured, seconds
from lenext.report import text

LITTLE = 0.01
# The networks by the kernels that are sliced; the first convolution of each stays whole
NETWORKS = {
    "5×5": ("tower5", {}),
    "3×3": ("vgg11_bn", {"width": 0.25}),
}


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 2_000) if lab.quick else material.fashion(10_000)
    epochs = 5 if lab.quick else 15
    arms = {
        (kernel, sliced): Arm(f"{kernel} {'sliced' if sliced else 'whole'}", model,
                              {"model": {**options, "sliced": sliced}})
        for kernel, (model, options) in NETWORKS.items() for sliced in (False, True)
    }  # fmt: skip
    trained = lab.train(list(arms.values()), images, epochs=epochs)
    rows, saved, kept = [], [], {}
    for kernel in NETWORKS:
        whole, sliced = (arms[kernel, is_sliced] for is_sliced in (False, True))
        kept[kernel] = gain(trained[sliced.name], trained[whole.name])
        before, after = (_convolutions(arm, images) for arm in (whole, sliced))
        saved += [
            Measure(f"{what} of the {kernel} convolutions, whole over sliced", one / other, unit="times")
            for what, one, other in zip(("parameters", "multiply-adds"), before, after, strict=True)
        ]
        for arm, (params, macs) in ((whole, before), (sliced, after)):
            its = trained[arm.name]
            rows.append(
                [arm.name, text.compact(params), text.compact(macs), text.compact(its[0].summary["params"]),
                 text.compact(its[0].summary["macs"]), figures.said(accuracy(its, arm.name)),
                 text.seconds(seconds(its))]
            )  # fmt: skip
    gains = [measured(one, f"test accuracy of {kernel} sliced over whole") for kernel, one in kept.items()]
    return Finding(
        verdict=all_of([judge(one, more_than=-LITTLE) for one in kept.values()]),
        words=" ".join(
            f"Slicing {kernel} convolutions divides their parameters by {saved[2 * place].value:.2g}, their "
            f"multiply-adds by {saved[2 * place + 1].value:.2g}, and changes test accuracy by "
            f"{figures.said(gains[place])}."
            for place, kernel in enumerate(NETWORKS)
        ),
        measures=[*gains, *saved],
        tables=[
            Table(
                f"{images.words}; {epochs} epochs",
                ("convolutions", "their parameters", "multiply-adds", "the network's", "multiply-adds",
                 "test accuracy", "training"),
                rows,
            )
        ],
        figures={
            "Test accuracy with whole convolutions and with sliced ones": figures.dots(
                [accuracy(of, name) for name, of in trained.items()], "Test accuracy"
            ),
            "Test accuracy of sliced over whole; a loss up to the line is little": figures.dots(
                gains, "Test accuracy gained, points", at=-100 * LITTLE
            ),
        },
    )  # fmt: skip


def _convolutions(arm: Arm, images: material.Material) -> tuple[int, int]:
    """Parameters and multiply-adds of those that slicing is about: all but the first."""
    of = [layer for layer in count(arm, images).layers if layer.kind == "Conv2d"][1:]
    return sum(layer.params for layer in of), sum(layer.macs for layer in of)


CLAIM = Claim(
    "C14",
    "Slicing convolutions reduces their cost, as in Inception v4: 1×5 and 5×1 instead of 5×5.",
    "A network of three 5×5 convolutions with pooling, and VGG-11 with batch norm at a quarter of its width, each as "
    "it is and with every k×k convolution but the first as 1×k and then k×1; same images, epochs and recipe in a pair. "
    "Parameters and multiply-adds are counted from the networks.",
    f"Holds if both lose less than {100 * LITTLE:g} point of test accuracy with the whole interval; fails if one of "
    "them loses that much or more with the whole interval. How much is saved is counted and shown.",
    study,
    minutes=10,
)
