"""What a model costs: counted from the network itself, layer by layer; and what the machine can do."""

from lenext.costing.counting import Count, Layer, count
from lenext.costing.device import peak_macs
from lenext.costing.shapes import without_memory

__all__ = ["Count", "Layer", "count", "peak_macs", "without_memory"]
