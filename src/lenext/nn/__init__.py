"""What networks are made of: layers, shape arithmetic, initialisation."""

from lenext.nn.fused import (
    Units,
    convolve_pool_and_activate,
    missing_kernels,
    normalise_and_activate,
    pool_and_activate,
)
from lenext.nn.initialise import HEAD_STD, he, xavier
from lenext.nn.layers import VECTOR, AlignedConv2d, AuxiliaryHead, Dropout, Layers, without_auxiliary
from lenext.nn.shapes import conv_output
from lenext.nn.sync import SyncBatchNorm2d, synchronise
from lenext.nn.threads import SMALL_MACS, on_threads, share_out, threads_for

__all__ = [
    "HEAD_STD",
    "SMALL_MACS",
    "VECTOR",
    "AlignedConv2d",
    "AuxiliaryHead",
    "Dropout",
    "Layers",
    "SyncBatchNorm2d",
    "Units",
    "conv_output",
    "convolve_pool_and_activate",
    "he",
    "missing_kernels",
    "normalise_and_activate",
    "on_threads",
    "pool_and_activate",
    "share_out",
    "synchronise",
    "threads_for",
    "without_auxiliary",
    "xavier",
]
