import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from hcqsfl.adversarial.detection import DETECTORS, QUANTUM, make, reference_state
from hcqsfl.adversarial.detection.feature_map import angles, median_bandwidth
from hcqsfl.adversarial.detection.quantum_ocsvm import Detector as QuantumMachine
from hcqsfl.adversarial.detection.rates import threshold, wilson
from hcqsfl.adversarial.detection.reduction import Reduction
from hcqsfl.quantum.circuits import make as make_circuit
from hcqsfl.quantum.kernel import QuantumKernel
from hcqsfl.quantum.states import states

QUICK = {"quantum_autoencoder": {"steps": 40, "n_layers": 2}, "autoencoder": {"steps": 150}}


def rows(n: int, seed: int, n_features: int = 4) -> np.ndarray:
    """Normal rows on a curve: the second feature is about the square of the first."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, n_features)) * 0.5
    x[:, 1] = x[:, 0] ** 2 * 2 + generator.normal(size=n) * 0.1
    return x


def strange(n: int, seed: int) -> np.ndarray:
    return rows(n, seed) + np.array([0.0, -2.5, 2.0, 0.0])


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_detector_ranks_strange_rows_above_normal_ones(name: str) -> None:
    torch.set_num_threads(1)
    detector = make(name, **QUICK.get(name, {})).fit(rows(150, 0))
    inside, outside = detector.scores(rows(100, 1)), detector.scores(strange(100, 2))
    assert inside.shape == (100,)
    assert roc_auc_score([0] * 100 + [1] * 100, np.concatenate([inside, outside])) > 0.9
    assert detector.scores(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_seed_decides_every_detector(name: str) -> None:
    x, test = rows(60, 0), rows(20, 1)
    options = QUICK.get(name, {})
    first = make(name, seed=3, **options).fit(x).scores(test)
    assert np.array_equal(first, make(name, seed=3, **options).fit(x).scores(test))


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_detector_refuses_rows_it_cannot_learn_from(name: str) -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        make(name).fit(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="2 of 8 features are NaN"):
        make(name).fit(np.array([[0, 1, 2, np.nan], [0, 1, np.inf, 3]]))


def test_unknown_detectors_and_options_are_refused() -> None:
    assert set(QUANTUM) < set(DETECTORS)
    with pytest.raises(ValueError, match="did you mean 'mahalanobis'"):
        make("mahalonobis")
    with pytest.raises(ValueError, match=r"option of detector rbf_ocsvm is called 'nue'; did you mean 'nu'"):
        make("rbf_ocsvm", nue=0.1)
    with pytest.raises(ValueError, match=r"\(0, 1\], not 0"):
        make("quantum_ocsvm", nu=0)
    with pytest.raises(ValueError, match="did you mean 'trace'"):
        make("reference_state", distance="traces")
    with pytest.raises(ValueError, match="empties 1 to 3 of them, not 4"):
        make("quantum_autoencoder", n_trash=4).fit(rows(5, 0))
    with pytest.raises(ValueError, match="reads 3 inputs, but there are 4 features"):
        make("quantum_ocsvm", circuit=make_circuit("iqp", 3, 0)).fit(rows(5, 0))


@pytest.mark.parametrize("kind", ["fidelity", "projected"])
def test_the_quantum_machine_is_scikit_learns_on_the_precomputed_kernel(kind: str) -> None:
    x, test = rows(80, 0), rows(30, 1)
    detector = make("quantum_ocsvm", kind=kind, bandwidth=0.6)
    found = detector.fit(x).scores(test)
    kernel = QuantumKernel(make_circuit("iqp", 4, 0), kind)
    machine = OneClassSVM(kernel="precomputed", nu=0.5).fit(kernel.gram(angles(x, 0.6)))
    np.testing.assert_allclose(
        found, -machine.decision_function(kernel.gram(angles(test, 0.6), angles(x, 0.6))), atol=1e-5
    )


def test_nystroem_stands_in_for_many_rows_and_ranks_alike() -> None:
    x, test = rows(200, 0), np.concatenate([rows(100, 1), strange(100, 2)])
    exact = make("quantum_ocsvm").fit(x).scores(test)
    approximate = QuantumMachine(nystroem_above=100, n_landmarks=80).fit(x)
    assert approximate._nystroem is not None
    assert np.corrcoef(exact, approximate.scores(test))[0, 1] > 0.95


def test_the_bandwidth_puts_the_median_kernel_value_at_one_half() -> None:
    x = rows(200, 0)
    for circuit in (make_circuit("iqp", 4, 0), make_circuit("data_reuploading", 4, 2)):
        kernel = QuantumKernel(circuit)
        bandwidth = median_bandwidth(kernel, x, seed=0)
        gram = kernel.gram(angles(x, bandwidth))
        assert abs(np.median(gram[np.triu_indices(200, 1)]) - 0.5) < 0.02
    assert np.abs(angles(np.array([[1e9, -1e9]]), 1.0)).max() <= np.pi / 2


def test_reference_distances_are_those_of_the_density_matrices() -> None:
    x, test = rows(40, 0, 3), rows(10, 1, 3)
    circuit = make_circuit("iqp", 3, 0)
    weights = torch.zeros(0, dtype=torch.float64)

    def states_of(rows: np.ndarray) -> np.ndarray:
        return states(circuit, torch.as_tensor(angles(rows, 0.7)), weights).numpy()

    mixture = np.einsum("bi,bj->ij", states_of(x), states_of(x).conj()) / len(x)
    fidelity, trace = (
        make("reference_state", distance=name, bandwidth=0.7).fit(x).scores(test) for name in ("fidelity", "trace")
    )
    for row, psi in enumerate(states_of(test)):
        assert abs(fidelity[row] - (1 - (psi.conj() @ mixture @ psi).real)) < 1e-5
        expected = np.abs(np.linalg.eigvalsh(np.outer(psi, psi.conj()) - mixture)).sum() / 2
        assert abs(trace[row] - expected) < 1e-5


def test_trace_distances_of_equal_and_orthogonal_states() -> None:
    found = reference_state.trace_distances(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_a_product_state_is_compressed_without_loss() -> None:
    """Rows that vary in one feature only live on one qubit: the others can be emptied."""
    x = np.zeros((60, 3))
    x[:, 0] = np.linspace(-1, 1, 60)
    detector = make("quantum_autoencoder", n_trash=1, steps=120, learning_rate=0.1, bandwidth=1.0).fit(x)
    assert detector.losses[-1] < 0.02 < detector.losses[0]
    assert detector.scores(x).max() < 0.1


def test_mahalanobis_is_scipys_with_many_rows() -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 2]])
    found = make("mahalanobis").fit(x).scores(x[:5])
    inverse = np.linalg.inv(np.cov(x.T))
    expected = [mahalanobis(row, x.mean(0), inverse) ** 2 for row in x[:5]]
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_the_reduction_is_scikit_learns_components_and_sees_what_they_leave() -> None:
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 6)) * np.array([5, 4, 3, 0.1, 0.1, 0.0])
    reduction = Reduction.fit(x, 4)
    theirs = PCA(3, whiten=True).fit_transform(x)
    ours = reduction(x)
    assert ours.shape == (300, 4)
    np.testing.assert_allclose(np.abs(np.corrcoef(ours[:, :3].T, theirs.T)[:3, 3:]), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(ours.std(0), 1, atol=1e-9)
    odd = x[:1] + np.array([0, 0, 0, 0, 0, 3.0])  # a column that never moves in normal rows
    assert reduction(odd)[0, 3] > ours[:, 3].max() + 1
    with pytest.raises(ValueError, match="at least 2 and at most 7"):
        Reduction.fit(x, 8)


def test_the_threshold_lets_at_most_its_share_of_held_out_rows_through() -> None:
    scores = np.arange(1000.0)
    assert threshold(scores, 0.01) == pytest.approx(989, abs=0.01)
    assert (scores > threshold(scores, 0.01)).sum() == 10
    assert threshold(scores, 0) == pytest.approx(999, abs=0.01)
    assert threshold(np.arange(50.0), 0.01) == pytest.approx(49, abs=0.001)
    equal = 1 + np.random.default_rng(0).normal(size=100) * 1e-12
    assert (equal > threshold(equal[:50], 0.05)).sum() == 0
    with pytest.raises(ValueError, match="there are 0"):
        threshold(np.array([]))
    with pytest.raises(ValueError, match=r"\[0, 1\), not 1"):
        threshold(scores, 1)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_intervals_are_the_published_ones(count: int, total: int, low: float, high: float) -> None:
    found = wilson(count, total)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == count / total


def test_a_share_of_nothing_says_so() -> None:
    assert wilson(0, 0).value is None
    assert str(wilson(0, 0)) == "- (0/0)"
    assert str(wilson(20, 20)).startswith("1.000 [0.839, 1.000] (20/20)")
    with pytest.raises(ValueError, match="5 of 3"):
        wilson(5, 3)
