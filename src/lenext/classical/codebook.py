"""The visual vocabulary: which few hundred patches stand for all that images are made of.

A text is classified well by how often which words occur in it. Images have no words, but their patches repeat: edges,
corners, textures. Sivic and Zisserman (Video Google, 2003) and Csurka et al. (Visual Categorization with Bags of
Keypoints, 2004) cluster the descriptors of many patches with k-means and call the centres visual words. Perronnin et
al. (2007, 2010) replace the centres by a mixture of Gaussians, each with its own spread and share: a softer vocabulary,
which also says in which direction a patch differs from its word.

Before, the descriptors may be reduced by principal component analysis, which takes the correlation out of their
numbers (a Gaussian with a diagonal covariance supposes none), and the place of a patch in the image may be appended,
so that words also know where they occur (Sánchez et al., Modeling the Spatial Layout of Images Beyond Spatial
Pyramids, 2012).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical.patches import Patches
from lenext.errors import DataError, UsageError
from lenext.nn import on_threads, share_out
from lenext.spec import Codebook, Encoding

Progress = Callable[[int, int], None]

# Places, from -1/2 to 1/2, times this / √d: the d numbers of a descriptor of length 1 have a mean square of 1/d. For
# the first 62 principal components of root-SIFT on Fashion-MNIST the standard deviations are 0.28 down to 0.03 (root
# mean square 0.09), and 0.10 for places on the grid.
_PLACE_SCALE = 4.0

_CHUNK = 2**20  # numbers in a temporary: 4 MB, which stay in a core's cache
_SEEDING_SAMPLE = 4096, 16  # patches that the first centres are drawn from: so many, or so many per word if more
_LLOYD_TOLERANCE = 3e-4  # stop where the squared distances shrink by less, as a share
_EM_TOLERANCE = 1e-3  # stop where the log-likelihood of a patch grows by less
_VARIANCE_FLOOR = 0.01  # the least variance of a Gaussian, as a share of the data's in the same dimension
_LEAST_VARIANCE = 1e-4  # the least variance of the data in a dimension, as a share of the mean over dimensions
_LEAST_MASS = 0.5  # patches; a Gaussian with fewer is dropped


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words, and how descriptors of length D become vectors of length d' that are compared with them.

    d' is d, or D where there is no PCA, plus 2 where the vocabulary was learnt with positions.
    """

    words: Tensor  # float32 [K, d']: centres, or the means of the Gaussians
    mean: Tensor | None = None  # float32 [D]; with the next: the PCA
    components: Tensor | None = None  # float32 [D, d], columns of length 1
    variances: Tensor | None = None  # float32 [K, d']; with the next: the mixture of Gaussians
    priors: Tensor | None = None  # float32 [K], positive, sum 1

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Vocabulary":
        """The vocabulary whose `arrays` method gave these. Raises DataError where they are missing or do not fit."""
        given = {name: (str(array.dtype), *array.shape) for name, array in arrays.items()}
        words, components = ((*np.shape(arrays.get(name, ())), 0, 0) for name in ("words", "components"))
        expected = {"words": words[:2]}
        if "mean" in arrays or "components" in arrays:
            expected |= {"mean": components[:1], "components": components[:2]}
        if "variances" in arrays or "priors" in arrays:
            expected |= {"variances": words[:2], "priors": words[:1]}
        length = words[1] - components[1] if "components" in arrays else 0
        if given != {name: ("float32", *shape) for name, shape in expected.items()} or length not in (0, 2):
            raise DataError(
                "expected a vocabulary's float32 arrays words [K, d], for a PCA mean [D] and components [D, d or d - 2]"
                f", for a mixture variances [K, d] and priors [K]; given {given}"
            )
        return cls(**{name: torch.tensor(array) for name, array in arrays.items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has to be stored, float32, by the names of the fields; those that are None are left out."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items() if tensor is not None}

    def to(self, device: torch.device | str) -> "Vocabulary":
        """The same on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})

    def describe(self, patches: Patches) -> Tensor:
        """The patches as they are compared with the words, float32 [N, P, d'].

        Raises DataError where their descriptors have another length than those that the words were learnt from.
        """
        length = patches.values.shape[-1] if self.components is None else self.components.shape[1]
        positions = self.words.shape[1] - length
        if positions not in (0, 2) or (self.mean is not None and len(self.mean) != patches.values.shape[-1]):
            learnt = f"{self.words.shape[1]} or {self.words.shape[1] - 2}" if self.mean is None else len(self.mean)
            raise DataError(
                f"expected descriptors of length {learnt}, as the vocabulary was learnt from; "
                f"given {patches.values.shape[-1]}"
            )
        return _described(patches.values, patches.places if positions else None, self.mean, self.components)

    def scores(self, described: Tensor) -> Tensor:
        """What speaks for each word, float32 [M, K], of patches as `describe` gives them, [M, d'].

        For centres x·c - |c|²/2, which is half of |x|² - |x - c|²; for Gaussians log p(x, k). The greatest is that of
        the nearest centre, or of the most probable Gaussian; the softmax over Gaussians is p(k | x).
        """
        if self.variances is None or self.priors is None:
            return _centre_scores(described, self.words)
        return _log_joint(_with_squares(described), self.words, self.variances, self.priors)


def learn(
    values: Tensor,
    places: Tensor,
    codebook: Codebook,
    encoding: Encoding,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Vocabulary:
    """The vocabulary of n patches: descriptors float32 [n, D], at `places` float32 [n, 3] as in `Patches`.

    All of them are looked at, whatever `codebook.sample` says. Where they have fewer different descriptors than
    `codebook.words`, there are as many words as descriptors. `progress` is told how many of at most how many
    iterations are done, and at the end that all are. The same arguments give the same vocabulary on the same machine.

    Raises DataError where there are no patches, and UsageError where `codebook.pca` exceeds D.
    """
    n, length = values.shape
    if n == 0:
        raise DataError(
            "found no patch with any contrast in the training images, so there is nothing to learn visual words from; "
            "accepted: images that are not of one flat colour, or a rung that looks at pixels, such as svm_linear"
        )
    if codebook.pca is not None and codebook.pca > length:
        raise UsageError(f"codebook.pca: given {codebook.pca}, accepted: 1 to {length}, the length of the descriptors")
    mixture = encoding.kind == "fisher"
    steps = codebook.iterations * (2 if mixture else 1)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, steps)

    mean, components = (None, None) if codebook.pca is None else principal_components(values, codebook.pca)
    described = _described(values, places if encoding.positions else None, mean, components)
    words = k_means(described, codebook.words, iterations=codebook.iterations, seed=seed, progress=tell)
    if not mixture:
        tell(steps)
        return Vocabulary(words, mean, components)
    means, variances, priors = gaussian_mixture(
        described,
        *_clusters(described, words),
        iterations=codebook.iterations,
        progress=lambda done: tell(codebook.iterations + done),
    )
    tell(steps)
    return Vocabulary(means, mean, components, variances, priors)


def principal_components(values: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The mean float32 [D] of `values` float32 [n, D], and the directions of greatest variance float32 [D, number].

    Columns of length 1, the greatest variance first; the largest number of each is positive, which fixes the sign.
    """
    mean = values.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=values.device)
    for part in torch.split(values, _rows(len(mean))):
        centred = part - mean.float()
        covariance += centred.T @ centred
    directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :number]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return mean.float(), (directions * largest.sign()).float().contiguous()


def k_means(
    points: Tensor, words: int, *, iterations: int, seed: int, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Centres float32 [K, d] of `points` float32 [n, d]; K is `words`, or the number of different points if fewer.

    Lloyd's iterations (Least Squares Quantization in PCM, 1982) from the seeds of k-means++ (Arthur and Vassilvitskii
    2007): every point goes to its nearest centre, every centre to the mean of its points, until neither moves much.
    A centre without points starts again at one that is drawn as k-means++ draws, the likelier the farther from its own.
    """
    generator = torch.Generator().manual_seed(seed)
    least, per_word = _SEEDING_SAMPLE
    drawn = torch.randperm(len(points), generator=generator)[: max(least, per_word * words)]
    sample = points[drawn.to(points.device)]
    with on_threads(1):
        centres = _seeds(sample, words, generator)
        if len(centres) < words and len(sample) < len(points):
            centres = _seeds(points, words, generator)
    before = math.inf
    for iteration in range(iterations):
        labels, distances = _nearest(points, centres)
        empty = (torch.bincount(labels, minlength=len(centres)) == 0).nonzero()[:, 0]
        if len(empty):  # drawn without replacement (Efraimidis & Spirakis 2006)
            lots = torch.empty(len(points)).exponential_(generator=generator)
            labels[(distances / lots.to(distances.device)).topk(len(empty)).indices] = empty
        centres = _means(points, labels, centres)
        inertia = float(distances.sum(dtype=torch.float64))
        if progress is not None:
            progress(iteration + 1)
        if len(empty) == 0 and before - inertia <= _LLOYD_TOLERANCE * inertia:
            break
        before = inertia
    return centres


def gaussian_mixture(
    points: Tensor,
    means: Tensor,
    variances: Tensor,
    priors: Tensor,
    *,
    iterations: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Means [K, d], variances [K, d] and priors [K] of Gaussians with diagonal covariance, fitted to points [n, d].

    Expectation maximisation (Dempster et al. 1977) from the Gaussians that are given: every point belongs to each
    Gaussian as far as that is likely to have made it; every Gaussian takes the mean, the variance and the share of
    what belongs to it. All float32. A variance is at least a hundredth of the points' own in that dimension, without
    which a Gaussian shrinks onto a few equal points and its likelihood grows without end. Gaussians that are left with
    less than half a point are dropped, so that there may be fewer than were given.
    """
    # In units of the data's spread, in which one floor holds for all dimensions and float32 suffices
    variance, shift = torch.var_mean(points.double(), dim=0, correction=0)
    scale = variance.clamp(min=_LEAST_VARIANCE * float(variance.mean())).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    shift32, scale32 = shift.float(), scale.float()
    means, variances = (means - shift32) / scale32, variances / scale32**2
    mass, before = priors.double() * len(points), -math.inf
    for iteration in range(iterations):
        variances = variances.clamp(min=_VARIANCE_FLOOR)
        expected = functools.partial(_expected, means=means, variances=variances, priors=(mass / len(points)).float())
        parts = torch.split(points, _rows(max(len(means), 2 * means.shape[1])))
        found = share_out(lambda part: expected((part - shift32) / scale32), parts)  # noqa: B023 (called at once)
        new_mass, sums = (
            torch.stack(of_all).sum(0, dtype=torch.float64) for of_all in list(zip(*found, strict=True))[:2]
        )
        likelihood = sum(one for _, _, one in found)
        squares, firsts = (sums / new_mass.clamp(min=_LEAST_MASS)[:, None]).chunk(2, dim=1)
        alive = (new_mass >= _LEAST_MASS)[:, None]
        means = torch.where(alive, firsts.float(), means)
        variances = torch.where(alive, (squares - firsts**2).float(), variances)
        mass = new_mass
        if progress is not None:
            progress(iteration + 1)
        if likelihood - before <= _EM_TOLERANCE * len(points):
            break
        before = likelihood
    alive = mass >= _LEAST_MASS
    means, variances = means[alive], variances[alive].clamp(min=_VARIANCE_FLOOR)
    return means * scale32 + shift32, variances * scale32**2, (mass[alive] / mass[alive].sum()).float()


def _described(values: Tensor, places: Tensor | None, mean: Tensor | None, components: Tensor | None) -> Tensor:
    """Values [..., D] after PCA, where it is given, with x and y of `places` [..., 3], where they are given."""
    if mean is not None and components is not None:
        values = values @ components - mean @ components
    if places is not None:
        centred = (places[..., :2] - 0.5) * (_PLACE_SCALE / values.shape[-1] ** 0.5)
        values = torch.cat([values, centred.expand(*values.shape[:-1], 2)], dim=-1)
    return values


def _expected(points: Tensor, means: Tensor, variances: Tensor, priors: Tensor) -> tuple[Tensor, Tensor, float]:
    """How much of the points [n, d] belongs to each Gaussian [K], its sums of x² and x [K, 2 d], the log-likelihood."""
    features = _with_squares(points)
    scores = _log_joint(features, means, variances, priors)
    shares = scores.softmax(1)
    # log Σ exp(score), by way of the greatest share: torch's own logsumexp takes ten times as long
    likelihood = float((scores.amax(1) - shares.amax(1).log()).sum(dtype=torch.float64))
    return shares.sum(0), shares.T @ features, likelihood


def _with_squares(points: Tensor) -> Tensor:
    """Points [..., d] as [..., 2 d]: their squares, then themselves."""
    return torch.cat([points.square(), points], dim=-1)


def _log_joint(features: Tensor, means: Tensor, variances: Tensor, priors: Tensor) -> Tensor:
    """Log p(x, k) [M, K] of points `_with_squares` [M, 2 d]: one matrix product, as the exponent is linear in these."""
    weights = torch.cat([-0.5 / variances, means / variances], dim=1)
    bias = priors.log() - 0.5 * (means.square() / variances + variances.log() + math.log(2 * math.pi)).sum(1)
    return torch.addmm(bias, features, weights.T)


def _centre_scores(points: Tensor, centres: Tensor) -> Tensor:
    """x·c - |c|²/2, [M, K], of points [M, d] and centres [K, d]."""
    return torch.addmm(-0.5 * centres.square().sum(1), points, centres.T)


def _rows(width: int) -> int:
    """How many rows of so many numbers to work on at a time."""
    return max(64, _CHUNK // max(1, width))


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point, int64 [n], and the squared distance from it, float32 [n]."""
    parts = torch.split(points, _rows(len(centres)))
    found = share_out(lambda part: _centre_scores(part, centres).max(1), parts)
    labels, scores = torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])
    return labels, (points.square().sum(1) - 2 * scores).clamp(min=0)


def _means(points: Tensor, labels: Tensor, otherwise: Tensor) -> Tensor:
    """The mean of the points of each label, float32 [K, d]; `otherwise` [K, d] where it has none."""
    counts = torch.bincount(labels, minlength=len(otherwise))[:, None]
    rows = _rows(points.shape[1])

    def add(part: tuple[Tensor, Tensor]) -> Tensor:
        return torch.zeros_like(otherwise, dtype=torch.float64).index_add_(0, part[1], part[0].double())

    sums = sum(share_out(add, zip(torch.split(points, rows), torch.split(labels, rows), strict=True)))
    return torch.where(counts > 0, (sums / counts.clamp(min=1)).float(), otherwise)


def _clusters(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The clusters around `centres` as Gaussians: their means, variances and priors."""
    labels, _ = _nearest(points, centres)
    means = _means(points, labels, centres)
    variances = _means((points - means[labels]).square(), labels, torch.zeros_like(centres))
    return means, variances, torch.bincount(labels, minlength=len(centres)) / len(points)


def _seeds(points: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The first centres: `number` of the points, or all that are different.

    k-means++: each is drawn with a probability proportional to the squared distance from those that are chosen, here
    as the best of a few draws (the greedy variant that the authors mention in their section 5).
    """
    draws = 2 + int(math.log(number))
    norms = points.square().sum(1)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    closest = _exact_distances(points, chosen[0])
    while len(chosen) < number:
        cumulative = closest.cumsum(0, dtype=torch.float64)
        if cumulative[-1] == 0:
            break
        at = torch.rand(draws, generator=generator, dtype=torch.float64).to(points.device) * cumulative[-1]
        candidates = torch.searchsorted(cumulative, at, right=True).clamp(max=len(points) - 1)
        distances = norms[:, None] - 2 * (points @ points[candidates].T) + norms[candidates]
        left = torch.minimum(distances, closest[:, None]).sum(0)
        chosen.append(int(candidates[left.argmin()]))
        closest = torch.minimum(closest, _exact_distances(points, chosen[-1]))
    return points[chosen]


def _exact_distances(points: Tensor, number: int) -> Tensor:
    """Squared distances from one of the points, [n]: exactly 0 for those that equal it, unlike by a product."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, points[number : number + 1], compute_mode=exact)[:, 0].square()
