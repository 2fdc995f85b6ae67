import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lenext.evaluate import distances, own_distances, share_below


@pytest.mark.parametrize(("n", "k"), [(1_000, 10), (37, 3), (5, 2)])
def test_distances_are_those_of_the_tenth_neighbour(n, k):
    rng = np.random.default_rng(0)
    reference, scores = ((rng.normal(size=(rows, k)) * 5 + 100).astype(np.float32) for rows in (n, 50))
    nearest = NearestNeighbors(n_neighbors=min(10, n)).fit(reference.astype(np.float64))
    expected = nearest.kneighbors(scores)[0][:, -1]
    np.testing.assert_allclose(distances(scores, reference), expected, rtol=1e-4)
    others = NearestNeighbors(n_neighbors=min(11, n)).fit(reference).kneighbors(reference)[0][:, -1]
    np.testing.assert_allclose(own_distances(reference), np.sort(others), rtol=1e-4)


def test_a_share_is_of_those_that_are_less():
    own = np.array([1, 2, 3, 4], np.float32)
    assert share_below(np.array([0.5, 2.5, 9], np.float32), own).tolist() == [0, 0.5, 1]
