import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import DepthKitError
from depthkit.paradigms import pareto_weights
from depthkit.paradigms.terms.pareto import carry_gradient, combine, flat_gradient, min_norm_combination


@pytest.mark.parametrize("seed", range(20))
def test_two_objectives_have_the_closed_form(seed: int) -> None:
    g = torch.randn(2, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    first = (((g[1] - g[0]) @ g[1]) / (g[0] - g[1]).square().sum()).clamp(0, 1)
    assert_close(pareto_weights(g @ g.T), torch.stack([first, 1 - first]))


@pytest.mark.parametrize("count", [1, 3, 5, 12])
@pytest.mark.parametrize("dimensions", [2, 40])
def test_the_combination_is_the_min_norm_point_of_the_hull(count: int, dimensions: int) -> None:
    g = torch.randn(count, dimensions, dtype=torch.float64) + 0.5
    weights = pareto_weights(g @ g.T)
    assert weights.min() >= 0
    assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    nearest = weights @ g
    # optimality: no point of the hull lies on the near side of the plane through the nearest one
    assert ((g @ nearest) >= nearest @ nearest - 1e-6 * g.square().sum(1).max()).all()


def test_it_agrees_with_an_independent_solver() -> None:
    mgda = pytest.importorskip("torchjd.aggregation").MGDAWeighting(epsilon=1e-9, max_iters=20_000)
    for _ in range(5):
        g = torch.randn(4, 30, dtype=torch.float64) + 0.2
        ours, theirs = pareto_weights(g @ g.T) @ g, mgda(g @ g.T) @ g
        assert ours.norm() <= theirs.norm() * (1 + 1e-6)
        assert_close(ours, theirs, rtol=0, atol=0.02)


def test_orthogonal_gradients_are_weighted_by_inverse_squared_norm() -> None:
    assert_close(
        pareto_weights(torch.diag(torch.tensor([1.0, 100.0]))), torch.tensor([100 / 101, 1 / 101], dtype=torch.float64)
    )


@pytest.mark.parametrize("count", [5, 12])
@pytest.mark.parametrize("seed", range(10))
def test_nearly_equal_gradients_in_float32_have_a_min_norm_point(seed: int, count: int) -> None:
    """Their inner products have eigenvalues a little below 0."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(1, 2000, generator=generator) + 1e-3 * torch.randn(count, 2000, generator=generator)
    for gram in (g @ g.T, g[[0] * count] @ g.T[:, [0] * count]):
        weights = pareto_weights(gram).float()
        assert_close((weights @ gram @ weights), gram.min(), rtol=1e-4, atol=0)


def test_equal_gradients_and_zero_gradients_keep_the_weights_on_the_simplex() -> None:
    for gram in (torch.ones(3, 3), torch.zeros(3, 3)):
        assert_close(pareto_weights(gram).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_scaling_every_gradient_changes_no_weight() -> None:
    g = torch.randn(3, 9, dtype=torch.float64)
    assert_close(pareto_weights(g @ g.T), pareto_weights(1e8 * (g @ g.T)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("gram", "message"),
    [(torch.full((2, 2), torch.nan), "finite"), (torch.ones(2, 3), r"shape \(K, K\)"), (torch.ones(0, 0), "K >= 1")],
)
def test_a_gram_matrix_that_is_none_is_refused(gram: torch.Tensor, message: str) -> None:
    with pytest.raises(DepthKitError, match=message):
        pareto_weights(gram)


def test_absent_and_non_finite_objectives_get_no_weight() -> None:
    gradients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.nan, 0.0], [5.0, 5.0]])
    weights, taking_part = min_norm_combination(gradients, torch.ones(4), torch.tensor([True, True, True, False]))
    assert_close(weights, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert taking_part.tolist() == [True, True, False, False]
    nothing, _ = min_norm_combination(gradients, torch.ones(4), torch.zeros(4, dtype=torch.bool))
    assert_close(nothing, torch.zeros(4))


def test_what_has_no_weight_takes_no_part_however_broken() -> None:
    rows = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf]])
    assert_close(combine(torch.tensor([1.0, 0.0]), rows), rows[0])
    assert_close(combine(torch.tensor([0.5, 0.0]), torch.tensor([4.0, torch.nan])), torch.tensor(2.0))


def test_half_precision_networks_leave_the_combination_in_full_precision() -> None:
    rows, losses = 20 * torch.randn(2, 1000), torch.tensor([1.2345678, 2.3456789])
    present = torch.ones(2, dtype=torch.bool)
    expected, _ = min_norm_combination(rows, losses, present)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights, _ = min_norm_combination(rows, losses, present)
        assert_close(combine(weights, rows), combine(expected, rows), rtol=0, atol=0)
    assert_close(weights, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [("none", [100 / 101, 1 / 101]), ("l2", [0.5, 0.5]), ("loss", [0.8, 0.2]), ("loss+", [1 / 26, 25 / 26])],
)
def test_normalisation_divides_each_gradient_first(normalisation: str, expected: list[float]) -> None:
    gradients, losses = torch.tensor([[1.0, 0.0], [0.0, 10.0]]), torch.tensor([1.0, 5.0])
    weights, _ = min_norm_combination(gradients, losses, torch.ones(2, dtype=torch.bool), normalisation)
    assert_close(weights, torch.tensor(expected))


def test_a_carried_gradient_arrives_as_if_computed_there() -> None:
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    parameters = list(net.parameters())
    loss = net(x).square().mean()
    carried = carry_gradient(loss, flat_gradient(loss, parameters), parameters)
    assert_close(carried.detach(), loss.detach())
    (0.25 * carried).backward()
    expected = torch.autograd.grad(net(x).square().mean(), parameters)
    for p, g in zip(parameters, expected, strict=True):
        assert_close(p.grad, 0.25 * g)


@pytest.mark.parametrize("seed", range(20))
def test_gradients_that_conflict_along_one_direction_have_a_min_norm_point(seed: int) -> None:
    """Frank-Wolfe zigzags here; every face of the simplex, solved one by one, says where the point is."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.zeros(50, dtype=torch.float64)
    direction[0] = 1
    noise = 0.01 * torch.randn(4, 50, dtype=torch.float64, generator=generator) / 50**0.5
    g = torch.tensor([2.0, -1, 1, -0.5], dtype=torch.float64)[:, None] * direction + noise
    best = min(
        float((a @ g).square().sum())
        for face in range(1, 16)
        if (a := _on_face(g, [k for k in range(4) if face >> k & 1])) is not None
    )
    weights = pareto_weights(g @ g.T)
    assert weights.min() >= 0
    assert_close(float((weights @ g).square().sum()), best, rtol=1e-6, atol=1e-12)


def _on_face(g: torch.Tensor, members: list[int]) -> torch.Tensor | None:
    rows = g[members]
    first, rest = rows[0], rows[1:] - rows[0]
    share = torch.linalg.lstsq(rest.T, -first).solution if len(rest) else torch.zeros(0, dtype=torch.float64)
    weights = torch.zeros(len(g), dtype=torch.float64)
    weights[members] = torch.cat([1 - share.sum()[None], share])
    return weights if (weights >= 0).all() else None


def test_more_objectives_than_faces_can_be_solved_for_end_no_run() -> None:
    g = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None] * torch.ones(1, 5, dtype=torch.float64)
    weights = pareto_weights(g @ g.T, max_iterations=3)
    assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_step_between_two_of_many_objectives_ends_where_the_norm_is_least() -> None:
    gram = torch.eye(12)
    gram[-1, -1] = 4.0
    weights = pareto_weights(gram, max_iterations=1)
    assert_close(weights[0], 4 * weights[-1])
    assert_close(weights[1:-1], torch.full((10,), 1 / 12, dtype=torch.float64))


def test_a_loss_of_zero_divides_by_one_and_a_loss_that_is_no_number_takes_no_part() -> None:
    gradients, present = torch.eye(2), torch.ones(2, dtype=torch.bool)
    weights, _ = min_norm_combination(gradients, torch.tensor([0.0, 2.0]), present, "loss")
    assert_close(weights, torch.tensor([0.2, 0.8]))
    weights, taking_part = min_norm_combination(gradients, torch.tensor([1.0, torch.nan]), present)
    assert_close(weights, torch.tensor([1.0, 0.0]))
    assert taking_part.tolist() == [True, False]
