"""C17: batch norm and group norm as batches get small."""

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, accuracy, all_of, gain, judge, measured, over_seeds
from lenext.report import text

BATCHES, QUICK_BATCHES = (1, 2, 4, 16, 64), (2, 16)
KINDS = {"batch norm": "batch", "group norm": "group"}
RATE = 0.1 / 64  # the learning rate for an image of a batch: that of most networks with a norm
WIDTH = 0.25


def study(lab: Lab) -> Finding:
    images = material.fashion(500, 500, 2_000) if lab.quick else material.fashion(2_000)
    epochs = 4 if lab.quick else 5
    batches = QUICK_BATCHES if lab.quick else BATCHES
    smallest, largest = batches[0], batches[-1]
    arms = {
        (kind, batch): Arm(f"{kind}, {text.plural(batch, 'image')}", "resnet9", {
            "model": {"width": WIDTH, "norm": norm},
            "recipe": {"batch_size": batch, "lr": RATE * batch, "ema": 0.0},
        }, may_diverge=True)
        for kind, norm in KINDS.items() for batch in batches
    }  # fmt: skip
    trained = lab.train(list(arms.values()), images, epochs=epochs)
    trials = {key: trained[arm.name] for key, arm in arms.items()}
    of_batch, of_group = KINDS
    better = gain(trials[of_group, smallest], trials[of_batch, smallest])
    losses = {
        kind: [many.accuracy - few.accuracy for many, few in zip(trials[kind, largest], trials[kind, smallest],
                                                                 strict=True)]
        for kind in KINDS
    }  # fmt: skip
    steadier = over_seeds(losses[of_batch], losses[of_group])
    at_most = {kind: gain(trials[kind, smallest], trials[kind, largest]) for kind in KINDS}
    measures = [
        measured(better, f"test accuracy of group norm over batch norm, batches of {smallest}"),
        measured(steadier, f"loss of batch norm from batches of {largest} to {smallest}, beyond that of group norm"),
        *(measured(one, f"{kind}, batches of {smallest} over {largest}") for kind, one in at_most.items()),
    ]
    rows = [
        [kind, str(batch), figures.said(accuracy(of, kind)), text.count(sum(trial.diverged for trial in of))]
        for (kind, batch), of in trials.items()
    ]
    curves = {
        kind: [[(batch, 1 - trials[kind, batch][seed].accuracy) for batch in batches] for seed in lab.seeds]
        for kind in KINDS
    }
    return Finding(
        verdict=all_of([judge(better), judge(steadier)]),
        words=f"With {text.plural(smallest, 'image')} in a batch instead of {largest}, test accuracy changes by "
        f"{figures.said(measures[2])} with batch norm and by {figures.said(measures[3])} with group norm. At "
        f"{smallest}, group norm in place of batch norm changes it by {figures.said(measures[0])}.",
        measures=measures,
        tables=[
            Table(
                f"{images.words}; {epochs} epochs",
                ("", "images in a batch", "test accuracy", "runs that diverged"),
                rows,
            )
        ],
        figures={
            "Test error by the images in a batch; faint lines are single seeds": figures.lines(
                curves, "Images in a batch", "Test error", log_x=True, points=True
            ),
        },
    )


CLAIM = Claim(
    "C17",
    "Group normalization holds up where batches are small and batch normalization fails.",
    f"ResNet-9 at {WIDTH:g} of its width with batch norm and with group norm, trained on batches of {BATCHES[0]} to "
    f"{BATCHES[-1]} images: the same images and epochs, the learning rate in proportion to the batch (Goyal et al. "
    "2017; Wu & He 2018), no moving average of the weights. Batch norm judges by the running statistics that it has "
    f"gathered, as usual; of {BATCHES[-1]} images two cores normalise a half each.",
    "Holds if on the smallest batches group norm has a higher test accuracy than batch norm with the whole interval, "
    "and loses less than it against its own on the largest, with the whole interval; fails if one of them is not so, "
    "with the whole interval.",
    study,
    minutes=19,
)
