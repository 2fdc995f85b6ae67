"""Throughputs foretold for accelerators from their published peaks, against published measurements. Nothing is run.

    python benchmarks/published_throughput.py

Images a second, 224 px (inception_v3 299), as published:

timm     results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv and benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv,
         -rtx4090.csv in huggingface/pytorch-image-models, Apache-2.0
NVIDIA   DeepLearningExamples, PyTorch/Classification/ConvNets/README.md: 8 GPUs with their reading of the data,
         divided by 8; of ResNet-50 on A100 one GPU alone, from resnet50v1.5/README.md

What share of the published peaks is reached was chosen on the first set and is judged by the others.
"""

import statistics

import torchvision
from torch import nn

import lenext
from lenext.costing import operations, without_memory
from lenext.costing.accelerators import ACCELERATORS, accelerator_seconds
from results import write

# network: images a step, images a second
TRAINING_3090 = {
    "resnet18": (512, 3481.78), "mnasnet1_0": (512, 2929.31), "mobilenet_v2": (512, 2313.1),
    "resnet34": (512, 2036.51), "efficientnet_b0": (512, 1751.72), "resnet50": (512, 1218.01),
    "resnext50_32x4d": (384, 1001.03), "vgg11": (512, 954.03), "densenet121": (256, 913.65),
    "vgg11_bn": (384, 832.74), "inception_v3": (384, 782.35), "densenet169": (256, 752.52),
    "resnet101": (256, 747.89), "vgg13": (384, 677.45), "wide_resnet50_2": (384, 668.78),
    "densenet201": (192, 562.52), "vgg16": (384, 546.06), "resnet152": (192, 501.44), "vgg16_bn": (256, 470.3),
    "vgg19": (384, 457.37), "resnext101_32x8d": (128, 312.8),
}  # fmt: skip
PREDICTION_3090 = {
    "mnasnet1_0": (1024, 11914.93), "resnet18": (1024, 11188.75), "mobilenet_v2": (1024, 9887.57),
    "efficientnet_b0": (1024, 8241.4), "resnet34": (1024, 6529.57), "resnet50": (1024, 3729.86),
    "resnext50_32x4d": (1024, 3135.91), "densenet121": (1024, 3031.71), "vgg11_bn": (1024, 2779.08),
    "inception_v3": (1024, 2561.31), "densenet169": (1024, 2499.14), "resnet101": (1024, 2287.55),
    "vgg13": (1024, 2160.71), "wide_resnet50_2": (1024, 2093.41), "densenet201": (1024, 1923.55),
    "vgg16": (1024, 1729.39), "resnet152": (1024, 1606.24), "vgg19": (1024, 1441.62),
    "resnext101_32x8d": (1024, 1193.92),
}  # fmt: skip
PREDICTION_4090 = {
    "resnet18": (512, 18247.43), "mnasnet1_0": (512, 14430.36), "mobilenet_v2": (512, 11768.03),
    "resnet34": (512, 11246.05), "efficientnet_b0": (512, 9831.68), "resnet50": (512, 5088.39),
    "vgg11": (512, 4978.9), "inception_v3": (512, 4356.9), "vgg11_bn": (512, 4269.7),
    "resnext50_32x4d": (512, 4219.51), "densenet121": (512, 3896.08), "vgg13": (512, 3498.85),
    "resnet101": (512, 3320.94), "wide_resnet50_2": (512, 3280.9), "densenet169": (512, 3257.61),
    "vgg16": (512, 2904.86), "densenet201": (512, 2499.62), "vgg19": (512, 2485.75), "resnet152": (512, 2347.77),
    "resnext101_32x8d": (512, 1792.69),
}  # fmt: skip
TRAINING_A100 = {"bf16": {"resnet50": (256, 2470.0), "resnext101_32x4d": (128, 7399 / 8),
                          "efficientnet_b0": (256, 14391 / 8)},
                 "tf32": {"resnet50": (256, 938.0), "resnext101_32x4d": (128, 3193 / 8),
                          "efficientnet_b0": (256, 8225 / 8)}}  # fmt: skip
TRAINING_V100 = {"bf16": {"resnet50": (256, 7608 / 8), "resnext101_32x4d": (64, 3742 / 8),
                          "efficientnet_b0": (128, 7664 / 8)},
                 "float32": {"resnet50": (128, 2851 / 8), "resnext101_32x4d": (64, 1117 / 8),
                             "efficientnet_b0": (128, 4571 / 8)}}  # fmt: skip

SETS = (
    ("rtx3090", "training", "bf16", TRAINING_3090),
    ("rtx3090", "prediction", "bf16", PREDICTION_3090),
    ("rtx4090", "prediction", "bf16", PREDICTION_4090),
    *(("a100_80gb", "training", precision, rows) for precision, rows in TRAINING_A100.items()),
    *(("v100", "training", precision, rows) for precision, rows in TRAINING_V100.items()),
)


def build(name: str) -> nn.Module:
    with without_memory():
        if name == "resnext101_32x4d":
            return lenext.build(name)
        network: nn.Module = getattr(torchvision.models, name)(**({"init_weights": False} if "incep" in name else {}))
        return network


if __name__ == "__main__":
    rows = []
    for device, what, precision, published in SETS:
        for name, (images, rate) in published.items():
            size = 299 if name == "inception_v3" else 224
            training = what == "training"
            found = operations(build(name), channels=3, size=size, training=training)
            seconds = accelerator_seconds(found, images, ACCELERATORS[device], precision=precision, training=training)
            foretold = images / seconds
            foretold = images / seconds
            rows.append(
                {
                    "device": device,
                    "what": what,
                    "precision": precision,
                    "network": name,
                    "published": rate,
                    "foretold": round(foretold, 1),
                    "ratio": round(foretold / rate, 3),
                }
            )
            print(*rows[-1].values(), flush=True)
    summary = {}
    for device, what, precision, _ in SETS:
        ratios = [
            float(row["ratio"])
            for row in rows
            if (row["device"], row["what"], row["precision"]) == (device, what, precision)
        ]
        summary[f"{device} {what} {precision}"] = round(statistics.median(ratios), 3)
    ratios = sorted(float(row["ratio"]) for row in rows)
    summary["all"] = round(statistics.median(ratios), 3)
    summary["within 25 %"] = round(sum(0.8 <= ratio <= 1.25 for ratio in ratios) / len(ratios), 3)
    print(summary)
    write("published_throughput", {"summary": summary, "rows": rows})
