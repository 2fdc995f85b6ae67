"""What a model costs: parameters and multiply-adds counted from the network itself, and what the machine can do."""

from lenext.costing.counting import Count, count
from lenext.costing.device import peak_macs

__all__ = ["Count", "count", "peak_macs"]
