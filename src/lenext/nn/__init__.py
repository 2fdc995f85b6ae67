"""What networks are made of: layers, shape arithmetic, initialisation."""

from lenext.nn.initialise import he, xavier
from lenext.nn.layers import AlignedConv2d
from lenext.nn.shapes import conv_output
from lenext.nn.threads import SMALL_MACS, threads_for

__all__ = ["SMALL_MACS", "AlignedConv2d", "conv_output", "he", "threads_for", "xavier"]
