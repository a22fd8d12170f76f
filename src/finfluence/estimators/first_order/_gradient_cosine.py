"""Cosines of gradients at the end of a run."""

from finfluence.estimators.first_order._gradient_dot import GradientDot


class GradientCosine(GradientDot):
    """Cosine of each row's gradient with the query's, at the final parameters.

    score(S) = σ Σ_{i∈S} ⟨∇q, ∇ℓ_i⟩ / (‖∇q‖ ‖∇ℓ_i‖), σ the query's sign: larger is more harmful; of one row between −1
    and 1, so that rows of large gradients do not drown the others. Zero where a gradient vanishes.

    Notes
    -----
    Cost: as `GradientDot`.

    References
    ----------
    Charpiat et al., "Input similarity from the neural network perspective" (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, mean_loss, train
    >>> y = np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=np.ones((4, 1)), y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> zero = mean_loss(np.ones((1, 1)), np.zeros(1), name="at zero")
    >>> GradientCosine().estimate(train(recipe), zero).data.score.values.ravel().round(6).tolist()
    [-1.0, -1.0, -1.0, 1.0]
    """

    name = "grad-cosine"
    paper = "arXiv 1906.00722"
    cosine = True
