"""Support vector machines on features: linear or with a kernel, exact or approximated, fitted within a budget."""

from lenext.classical.machines.fitting import Fitted, fit
from lenext.classical.machines.kernels import MAP_WIDTH, NAMES, OF_HISTOGRAMS, WITH_GAMMA
from lenext.classical.machines.machine import KernelMachine, LinearMachine, Machine, from_arrays
from lenext.classical.machines.selection import stratified_order

__all__ = [
    "MAP_WIDTH",
    "NAMES",
    "OF_HISTOGRAMS",
    "WITH_GAMMA",
    "Fitted",
    "KernelMachine",
    "LinearMachine",
    "Machine",
    "fit",
    "from_arrays",
    "stratified_order",
]
