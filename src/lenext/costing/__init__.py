"""What a model costs: counted from the network itself, layer by layer; what the machine can do, and many of them."""

from lenext.costing.counting import Count, Layer, count
from lenext.costing.device import peak_macs
from lenext.costing.ring import Network, all_reduce_seconds, images_per_second
from lenext.costing.shapes import without_memory

__all__ = [
    "Count",
    "Layer",
    "Network",
    "all_reduce_seconds",
    "count",
    "images_per_second",
    "peak_macs",
    "without_memory",
]
