"""What is measured of speed is what it says; how fast this machine is decides nothing."""

import json
import statistics

import pytest

from lenext.bench import bench_data, bench_infer, bench_train
from lenext.cli import main

LENET_MACS = 416_520  # lecture, S7: 117,600 + 240,000 + 48,000 + 10,080 + 840
QUICK = {"repeats": 3, "seconds": 0.05}


@pytest.mark.parametrize(("measure", "passes"), [(bench_train, 3), (bench_infer, 1)])
def test_images_are_told_in_multiply_adds_and_as_a_share_of_a_matrix_product(measure, passes):
    measured = measure("lenet_relu", batch_size=16, **QUICK)
    assert measured.macs == passes * LENET_MACS
    assert len(measured.repeats) == 3
    assert measured.images_per_second == statistics.median(measured.repeats) > 0
    assert measured.macs_per_second == pytest.approx(measured.images_per_second * passes * LENET_MACS)
    assert measured.share_of_peak == pytest.approx(measured.macs_per_second / measured.peak_macs_per_second)
    assert 0 < measured.share_of_peak < 1
    assert (measured.size, measured.channels, measured.batch_size) == (28, 1, 16)


def test_settings_are_those_of_a_run():
    measured = bench_train("resnet20", size=32, channels=3, classes=5, settings={
        "model": {"width": 0.25}, "recipe": {"batch_size": 12, "at_once": 4}, "precision": "float32",
    }, **QUICK)  # fmt: skip
    assert (measured.size, measured.channels, measured.batch_size, measured.at_once) == (32, 3, 12, 4)
    assert measured.precision == "float32"
    assert measured.fused_batch_norm is False


def test_data_are_read_as_a_run_reads_them():
    measured = bench_data("digits", size=32, settings={"recipe": {"augment": {"shift": 2}}}, **QUICK)
    assert (measured.size, measured.channels) == (32, 1)
    assert measured.images_per_second > 0
    assert measured.share_of_peak is None


def test_the_command_prints_json_or_a_table(capsys):
    words = ["bench", "train", "lenet_relu", "--batch", "16", "--repeats", "1", "--seconds", "0.05"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["images_per_second"] > 0
    assert 0 < document["share_of_peak"] < 1
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr().out
    assert "images a second" in shown
    assert max(map(len, shown.splitlines())) <= 80
