"""What it costs that many workers train one network: the time of a ring all-reduce, and the images per second left."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A connection between workers. `bandwidth`: bytes per second of one direction; `latency`: seconds per message."""

    bandwidth: float
    latency: float


def all_reduce_seconds(size: int, workers: int, network: Network) -> float:
    """Seconds in which `workers` sum `size` bytes around a ring: 2 (n - 1) messages of size / n bytes each.

    Half of them add up, half pass the sums on. No algorithm sends fewer bytes per worker (Patarasuk & Yuan, Bandwidth
    Optimal All-reduce Algorithms for Clusters of Workstations, 2009, section 3).
    """
    messages = 2 * (workers - 1)
    return messages * (size / workers / network.bandwidth + network.latency)


def images_per_second(
    images: int,
    step_seconds: float,
    size: int,
    workers: int,
    network: Network,
    *,
    backward: float = 2 / 3,
    buckets: int = 1,
) -> float:
    """Images per second of `workers`, each with a batch of `images` and `size` bytes of gradients.

    `step_seconds` is a step of one worker alone, `backward` the share of it that is the backward pass. The gradients go
    in `buckets`, each as soon as it is computed, so that all but the last are exchanged during the backward pass as far
    as its time reaches (Li et al., PyTorch Distributed, 2020, section 3.2). Workers are assumed equally fast.
    """
    exchange = buckets * all_reduce_seconds(-(-size // buckets), workers, network)
    hidden = min(exchange * (1 - 1 / buckets), step_seconds * backward * (1 - 1 / buckets))
    return workers * images / (step_seconds + exchange - hidden)
