"""What a model costs: counted from the network itself, layer by layer; what the machine can do, and many of them."""

from lenext.costing.amount import Amount
from lenext.costing.counting import Count, Layer, count
from lenext.costing.device import peak_macs
from lenext.costing.memory import step_bytes
from lenext.costing.operations import Operation, fused, operations
from lenext.costing.ring import Network, all_reduce_seconds, images_per_second
from lenext.costing.shapes import without_memory

__all__ = [
    "Amount",
    "Count",
    "Layer",
    "Network",
    "Operation",
    "all_reduce_seconds",
    "count",
    "fused",
    "images_per_second",
    "operations",
    "peak_macs",
    "step_bytes",
    "without_memory",
]
