"""The ring all-reduce, against what one works out by hand."""

import pytest

from lenext.costing import Network, all_reduce_seconds, images_per_second

TEN_GIGABIT = Network(bandwidth=1.25e9, latency=25e-6)


def test_time_is_the_papers():
    # Two workers: each sends one half and gets the other's sum back. 1.25 GB at 1.25 GB/s, and two messages' latency
    assert all_reduce_seconds(1_250_000_000, 2, TEN_GIGABIT) == pytest.approx(1.0 + 50e-6)
    # ResNet-50: 25,557,032 float32 parameters on 8 workers, 14 messages of 12,778,516 bytes: 14 (10.2228 ms + 25 µs)
    assert all_reduce_seconds(4 * 25_557_032, 8, TEN_GIGABIT) == pytest.approx(0.14346939, rel=1e-6)
    assert all_reduce_seconds(1_000, 1, TEN_GIGABIT) == 0.0


def test_many_workers_wait_for_twice_the_bytes_and_every_message():
    bytes_only = Network(bandwidth=1.25e9, latency=0.0)
    assert all_reduce_seconds(1_250_000_000, 1024, bytes_only) == pytest.approx(2.0 * 1023 / 1024)
    messages_only = Network(bandwidth=float("inf"), latency=25e-6)
    assert all_reduce_seconds(1, 1024, messages_only) == pytest.approx(0.05115)


def test_images_per_second_of_one_and_of_many():
    assert images_per_second(32, 0.5, 10**9, 1, TEN_GIGABIT) == 64.0
    # In one bucket nothing overlaps: 4 workers, 1.5 x 1 GB at 1.25 GB/s = 1.2 s after each step of 0.5 s
    apart = Network(bandwidth=1.25e9, latency=0.0)
    assert images_per_second(32, 0.5, 10**9, 4, apart) == pytest.approx(4 * 32 / 1.7)
    # In 4 buckets of 0.3 s at most three quarters of the backward pass, 0.25 s, hide what is sent
    assert images_per_second(32, 0.5, 10**9, 4, apart, buckets=4) == pytest.approx(4 * 32 / (0.5 + 1.2 - 0.25))
    # 40 MB take 48 ms, of which the last of four buckets remains
    assert images_per_second(32, 0.5, 4 * 10**7, 4, apart, buckets=4) == pytest.approx(4 * 32 / 0.512)
