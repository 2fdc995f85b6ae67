"""From labelled files to uint8 images: finding, checking, splitting, preprocessing, augmenting."""

from lenext.data.augment import augment, balanced_order, mix, order, uniform
from lenext.data.check import CheckReport, check
from lenext.data.dataset import Dataset, Evaluation, Subset, prepare, prepare_with
from lenext.data.lazy import LazyImages
from lenext.data.loader import Batch, Loader, loader_rate
from lenext.data.preprocess import Facts, ImageError, Preprocess, decode, encode_png, examine, fit, preprocess
from lenext.data.sources import NAMED, Source, find_pictures, natural_key, open_source, read_file
from lenext.data.split import folds, split

__all__ = [
    "NAMED",
    "Batch",
    "CheckReport",
    "Dataset",
    "Evaluation",
    "Facts",
    "ImageError",
    "LazyImages",
    "Loader",
    "Preprocess",
    "Source",
    "Subset",
    "augment",
    "balanced_order",
    "check",
    "decode",
    "encode_png",
    "examine",
    "find_pictures",
    "fit",
    "folds",
    "loader_rate",
    "mix",
    "natural_key",
    "open_source",
    "order",
    "prepare",
    "prepare_with",
    "preprocess",
    "read_file",
    "split",
    "uniform",
]
