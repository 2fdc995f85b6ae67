"""From the patches of an image, however many, to one vector: what a linear machine can tell apart.

- **hard**: how often each word occurs (Sivic and Zisserman 2003; Csurka et al. 2004). Every patch counts for its
  nearest word alone, however far that is.
- **soft**: a patch between words counts for several, the nearer the more (van Gemert et al., Kernel Codebooks for Scene
  Categorization, 2008: their codeword uncertainty).
- **VLAD**: not how often a word occurs, but where its patches lie around it: the mean of their differences (Jégou et
  al., Aggregating Local Descriptors into a Compact Image Representation, 2010), at length 1 for every word, so that a
  texture that fills the image does not drown the rest (Arandjelović and Zisserman, All about VLAD, 2013).
- **Fisher vector**: how each Gaussian's mean and standard deviation would have to change to make the image's patches
  more likely: the gradient of the log-likelihood, which holds counts, differences and spreads at once (Perronnin and
  Dance 2007; Perronnin, Sánchez and Mensink, Improving the Fisher Kernel for Large-Scale Image Classification, 2010).

All of them forget where the patches were. A spatial pyramid (Lazebnik, Schmid and Ponce, Beyond Bags of Features, 2006)
gives some of that back: the image is cut into 1×1, 2×2, 4×4 cells, each is encoded apart. Then signed powers (a square
root by default: the second of five equal patches says less than the first), then length 1 (Perronnin et al. 2010).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lenext.classical.codebook import Vocabulary
from lenext.classical.patches import Patches
from lenext.spec import Encoding

_CHUNK = 2**20  # numbers that the patches of the images are spread over at a time: temporaries of a few MB
_ROUNDING = 1e-4  # a mean difference from a word that is shorter is no direction; descriptors have length 1


@dataclass(frozen=True, eq=False)
class Cells:
    """Which patches are in which of the C cells of a pyramid."""

    inside: Tensor  # bool [N or 1, C, P]
    # Of each cell the numbers int64 [p] of its patches, where all images have the same ones there: those of the others
    # need not be multiplied by zero. None: all patches are looked at
    patches: list[Tensor | None]


def encode(patches: Patches, vocabulary: Vocabulary, encoding: Encoding) -> Tensor:
    """One vector of length 1 per image, float32 [N, E], with E as `encoded_size` says.

    The parts of the pyramid's cells one after the other: level by level in the order given, each row by row from the
    top left. A patch belongs to the cell that its centre is in. A cell's part is the mean over its own patches, so
    that all cells weigh about the same, and fine levels more than coarse ones, as in Lazebnik et al. Within it, word by
    word: hard and soft a number; VLAD d' numbers; Fisher d' for the mean and d' for the standard deviation.

    Patches that are not valid count for nothing; a cell without any others is zero, an image without any all zero.
    Raises DataError where the descriptors are not those that the vocabulary was learnt from.
    """
    vectors = patches.values.new_empty((len(patches.values), encoded_size(vocabulary, encoding)))
    same = cells_of(patches.places, encoding.pyramid) if len(patches.places) == 1 else None
    for images, part in _chunks(patches, vocabulary):
        cells = same or cells_of(part.places, encoding.pyramid)
        vectors[images] = encode_in(cells, part, vocabulary, encoding)
    return vectors


def encode_in(cells: Cells, patches: Patches, vocabulary: Vocabulary, encoding: Encoding) -> Tensor:
    """What `encode` gives, of all images at once and in `cells` that are known: a function of tensors alone."""
    counts, found = _pooled(cells, patches, vocabulary, encoding)
    if encoding.kind == "vlad":
        found = _of_length_1(found, counts)
    found = found.flatten(1)
    if encoding.power != 1:
        found = found.abs().pow_(encoding.power).mul_(found.sign())
    return F.normalize(found, dim=1)


def votes(patches: Patches, vocabulary: Vocabulary, encoding: Encoding, direction: Tensor) -> Tensor:
    """What each patch adds to the product of its image's vector with `direction` float32 [E]: float32 [N, P].

    Before powers and lengths are taken a number of the vector is a sum over the patches; its share of the product is
    shared out among them as they share in that sum (Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier
    Decisions by Layer-Wise Relevance Propagation, 2015, for bags of words). So the votes of an image add up to the
    product, and patches that point the other way than their sum vote against it.
    """
    vectors = encode(patches, vocabulary, encoding)
    voices = patches.valid.float().requires_grad_()
    with torch.enable_grad():
        cells = cells_of(patches.places, encoding.pyramid)
        sums = _pooled(cells, patches, vocabulary, encoding, voices)[1].flatten(1)
        shares = torch.where(sums == 0, 0, vectors * direction / sums).detach()
        # The sums are linear in the voices: the gradient is what each of them adds
        (found,) = torch.autograd.grad((shares * sums).sum(), voices)
    return found


def nearest_words(patches: Patches, vocabulary: Vocabulary) -> Tensor:
    """The word of every patch, int64 [N, P]: the nearest, or the most probable Gaussian; -1 where it is not valid."""
    words = torch.full_like(patches.valid, -1, dtype=torch.int64)
    for images, part in _chunks(patches, vocabulary):
        scores = vocabulary.scores(vocabulary.describe(part).flatten(0, 1))
        words[images] = torch.where(part.valid, scores.argmax(1).view_as(part.valid), -1)
    return words


def encoded_size(vocabulary: Vocabulary | tuple[int, int], encoding: Encoding) -> int:
    """How many numbers an image becomes; of a vocabulary, its number of words and their length d' suffice."""
    words, length = vocabulary if isinstance(vocabulary, tuple) else vocabulary.words.shape
    numbers = {"hard": 1, "soft": 1, "vlad": length, "fisher": 2 * length}[encoding.kind]
    return words * numbers * sum(cells**2 for cells in encoding.pyramid)


def encoding_macs(words: int, patches: int, descriptor: int, pca: int | None, encoding: Encoding) -> int:
    """Multiply-adds per image of `patches` descriptors of length `descriptor`, reduced to `pca` numbers where given.

    PCA, what speaks for each word, and the sums over patches, which every level of the pyramid goes through once;
    counting a patch for its word is one addition. Not counted: exponentials, and what is done once per image.
    """
    reduction = 0 if pca is None else descriptor * pca
    length = (descriptor if pca is None else pca) + 2 * encoding.positions
    features = 2 * length if encoding.kind == "fisher" else length
    per_level = {
        "hard": 1,
        "soft": words,
        "vlad": length,
        "fisher": words * (1 + features),
    }[encoding.kind]
    return patches * (reduction + words * features + per_level * len(encoding.pyramid))


def _chunks(patches: Patches, vocabulary: Vocabulary) -> Iterator[tuple[slice, Patches]]:
    """The images a few at a time, and which they are."""
    n, number, _ = patches.values.shape
    words, length = vocabulary.words.shape
    rows = max(1, _CHUNK // max(1, number * (words + 2 * length)))
    for start in range(0, n, rows):
        images = slice(start, start + rows)
        places = patches.places if len(patches.places) == 1 else patches.places[images]
        yield images, Patches(patches.values[images], places, patches.valid[images])


def _pooled(
    cells: Cells, patches: Patches, vocabulary: Vocabulary, encoding: Encoding, voices: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums over patches, cell by cell: how much of them each word has, [N, C, K], and what the encoding is made of.

    That is the same again; the differences from the words, [N, C, K, d']; or the gradients, [N, C, K, 2 d']. With
    `voices` [N, P] a patch counts so many times, in a cell that is as full as without.
    """
    described = vocabulary.describe(patches)
    shares = _assign(vocabulary.scores(described.flatten(0, 1)), encoding)
    shares = shares.view(*described.shape[:2], len(vocabulary.words))
    # What each patch weighs in each cell, [N, C, P]: 1 / patches in the cell
    weights = (cells.inside & patches.valid[:, None]).float()
    weights /= weights.sum(2, keepdim=True).clamp(min=1)
    if voices is not None:
        weights = weights * voices[:, None]
    counts = torch.bmm(weights, shares)
    if encoding.kind == "vlad":
        return counts, _sums(shares, described, weights, cells) - counts[..., None] * vocabulary.words
    if encoding.kind == "fisher":
        features = torch.cat([described, described.square()], dim=2)
        return counts, _fisher(counts, _sums(shares, features, weights, cells), vocabulary)
    return counts, counts


def _assign(scores: Tensor, encoding: Encoding) -> Tensor:
    """How much of each patch belongs to each word, [M, K], of scores [M, K]: rows of sum 1."""
    if encoding.kind == "fisher":
        return scores.softmax(1)
    if encoding.kind == "soft":
        # The scores of one patch differ by half of its squared distances from the words
        return (encoding.softness * scores).softmax(1)
    return torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1.0)


def cells_of(places: Tensor, pyramid: tuple[int, ...]) -> Cells:
    """The cells of patches at places [N or 1, P, 3]."""
    levels = []
    for side in pyramid:
        column, row = (places[..., :2] * side).long().clamp(0, side - 1).unbind(2)
        numbers = torch.arange(side * side, device=places.device)[:, None]
        levels.append((row * side + column)[:, None] == numbers)
    inside = torch.cat(levels, dim=1)
    if len(inside) > 1:
        return Cells(inside, [None] * inside.shape[1])
    return Cells(inside, [None if cell.all() else cell.nonzero()[:, 0] for cell in inside[0]])


def _sums(shares: Tensor, features: Tensor, weights: Tensor, cells: Cells) -> Tensor:
    """Sums [N, C, K, F] of the patches' features [N, P, F], by the shares [N, P, K] and weights [N, C, P] they have."""
    sums = []
    for number, patches in enumerate(cells.patches):
        some, what, weight = shares, features, weights[:, number]
        if patches is not None:
            some, what, weight = (part.index_select(1, patches) for part in (some, what, weight))
        sums.append(torch.bmm((some * weight[:, :, None]).transpose(1, 2), what))
    return torch.stack(sums, dim=1)


def _of_length_1(differences: Tensor, counts: Tensor) -> Tensor:
    """Differences from the words [N, C, K, d'], each at length 1, of words that have `counts` [N, C, K] of patches."""
    counts = counts[..., None]
    lengths = torch.maximum(torch.linalg.vector_norm(differences, dim=3, keepdim=True), _ROUNDING * counts)
    return differences / torch.where(counts > 0, lengths, 1)


def _fisher(shares: Tensor, sums: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The gradients [N, C, K, 2 d'], of shares [N, C, K] and the sums of x and x² [N, C, K, 2 d'].

    Sums over the patches x of an image, with γ the share of a patch that is the Gaussian's:
    mean: γ (x - μ) / σ / √prior; standard deviation: γ ((x - μ)² / σ² - 1) / √(2 prior), expanded.
    """
    means, variances, priors = vocabulary.words, vocabulary.variances, vocabulary.priors
    assert variances is not None
    assert priors is not None
    shares, scale = shares[..., None], priors.sqrt()[:, None]
    firsts, seconds = sums.chunk(2, dim=3)
    towards_means = (firsts - means * shares) / (scale * variances.sqrt())
    spreads = (seconds - 2 * means * firsts + (means.square() - variances) * shares) / (scale * variances * 2**0.5)
    return torch.cat([towards_means, spreads], dim=3)
