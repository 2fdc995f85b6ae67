"""What networks are made of: shape arithmetic and initialisation."""

from lenext.nn.initialise import he, xavier
from lenext.nn.shapes import conv_output

__all__ = ["conv_output", "he", "xavier"]
