"""What a run's knobs are in the linear theory of :mod:`ssl_lab.theory`, and how far that can be believed.

How the two go together, derived for this optimiser. A step adds ``weight_decay`` times the weight to a gradient and
moves by the group's own rate, so the network has ``W <- W + lr (Wp^T E - weight_decay W)`` and the predictor
``Wp <- Wp + lr_predictor (E W^T - weight_decay_predictor Wp)``. Let a step last lr, or with momentum m lr / (1 - m).

* ``eta = weight_decay``, the network's;
* ``alpha_p = lr_predictor / lr``, on the predictor's gradient. On its decay the theory has the rate 1, and the run has
  ``alpha_p weight_decay_predictor``: one theory holds for both only where this equals ``weight_decay``;
* ``beta = (1 - ema) (1 - m) / lr``: the target comes nearer by the share 1 - ema a step. SimSiam (ema 0) has tau = 1;
* ``sigma2 = augmentation * 0.3``: exact for the Gaussian data, whose views are x plus noise of that variance, and
  no more than a convention for images, where 0.3 is the theory's worked example;
* F is measured on augmented views: E[f f^T] = W (X + X') W^T. For white data that is (1 + sigma2) W W^T, so that the
  theory's s_j is F's eigenvalue over 1 + sigma2.

No torch here: pages ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

from ssl_lab.config import SET_MODES, Knobs, RunConfig

USUAL_SIGMA2 = 0.3
"""sigma^2 that stands for the augmentation at strength 1: of the Gaussian data really, of images by convention."""

MANY = 1_000
"""Samples from which on their own covariance is as good as white."""


@dataclass(frozen=True, kw_only=True)
class TheoryKnobs:
    """A run's present knobs in the theory's own; all pure numbers, time in units of the flow."""

    eta: float
    """Weight decay of the flow."""
    sigma2: float
    """Variance of the augmentation over the data's."""
    alpha_p: float
    """The predictor's rate over the network's; 0 or infinite where one of the two stands."""
    tau: float
    """Where Wa = tau W tends to: 1."""
    beta: float | None
    """Rate of the EMA; None for SimSiam, whose tau is 1 always."""
    predictor: bool
    """Whether there is a predictor; without one p is 1."""
    stop_gradient: bool
    """Whether the target passes no gradient."""
    time_per_step: float
    """How much time of the flow a step is."""
    f_over_s: float
    """F's measured eigenvalue over the theory's s_j."""
    curves: bool
    """Whether parabola, fixed points and basin are those of this run's rules: Wp trained by SGD, stop-gradient on, and
    both rates above 0."""
    linear: bool
    """Whether it is the theory's model on the theory's data; else the theory is of another network."""
    exact: bool
    """Whether the run's mean step follows the theory's flow, up to the length of its steps; else only tendencies carry
    over."""
    words: str
    """The mapping and its limits, for a person."""


def theory_of(config: RunConfig, knobs: Knobs) -> TheoryKnobs:
    """The theory's parameters of a run of ``config`` whose present rules are ``knobs``."""
    time = knobs.lr / (1 - config.momentum)
    alpha_p = knobs.lr_predictor / knobs.lr if knobs.lr > 0 else (float("inf") if knobs.lr_predictor > 0 else 1.0)
    sigma2 = USUAL_SIGMA2 * knobs.augmentation
    beta = None if knobs.ema == 0 else ((1 - knobs.ema) / time if time > 0 else float("inf"))
    trained = knobs.predictor not in ("none", *SET_MODES) or (knobs.predictor in SET_MODES and knobs.freq > 1)
    why = _differences(config, knobs, alpha_p)
    linear = _is_linear(config)
    return TheoryKnobs(
        eta=knobs.weight_decay,
        sigma2=sigma2,
        alpha_p=alpha_p,
        tau=1.0,
        beta=beta,
        predictor=knobs.predictor != "none",
        stop_gradient=knobs.stop_gradient,
        time_per_step=time,
        f_over_s=1 + sigma2 if linear else 1.0,
        curves=trained and knobs.stop_gradient and knobs.lr > 0 and knobs.lr_predictor > 0,
        linear=linear,
        exact=not why,
        words=_words(config, knobs, sigma2, alpha_p, beta, time, why),
    )


def _is_linear(config: RunConfig) -> bool:
    """Whether the run is the theory's model on the theory's data."""
    model = config.encoder == "linear" and config.projector_layers == 0 and config.loss == "euclidean"
    return model and config.dataset == "gaussian" and config.image_size is None


def _differences(config: RunConfig, knobs: Knobs, alpha_p: float) -> list[str]:
    """In words, what is not as in the theory; empty where it holds exactly."""
    found = []
    if config.encoder != "linear" or config.projector_layers > 0:
        found.append("the network is not linear")
    if config.loss != "euclidean":
        found.append("the loss is a cosine, which forgets lengths")
    if config.dataset != "gaussian" or config.image_size is not None:
        found.append("the data are not white and the views' changes are no noise")
    if _is_linear(config) and config.train_limit is not None and config.train_limit < MANY:
        found.append(f"{config.train_limit} samples are no white data")
    if config.momentum > 0:
        found.append(f"momentum {config.momentum:g} makes about {1 / (1 - config.momentum):.3g} steps of one")
    if knobs.predictor == "mlp":
        found.append("the predictor has two layers with batch norm and ReLU")
    elif knobs.predictor in SET_MODES:
        found.append("Wp is set and not trained")
    if knobs.symmetry == "penalty" and knobs.predictor != "none":
        found.append("a penalty pulls at Wp")
    trained = knobs.predictor in ("mlp", "linear")
    if trained and not isclose(alpha_p * knobs.weight_decay_predictor, knobs.weight_decay, rel_tol=1e-6):
        found.append(
            f"the predictor's decay, αp × {knobs.weight_decay_predictor:g}, is not the network's {knobs.weight_decay:g}"
        )
    return found


def _words(
    config: RunConfig, knobs: Knobs, sigma2: float, alpha_p: float, beta: float | None, time: float, why: list[str]
) -> str:
    if time == 0:
        return "The learning rate is 0: the network stands, and in the theory no time passes."
    linear = _is_linear(config)
    parts = [
        f"η = {knobs.weight_decay:.3g}, the weight decay",
        f"σ² = {sigma2:.3g}, " + ("the noise of the views" if linear else "by convention 0.3 × augmentation"),
    ]
    if knobs.predictor != "none":
        parts.append(f"αp = {alpha_p:.3g}, the predictor's learning rate over the network's")
    if beta is None:
        parts.append("τ = 1, SimSiam")
    else:
        share = "(1 − EMA rate) / learning rate" if config.momentum == 0 else "(1 − EMA rate)(1 − momentum) / rate"
        parts.append(f"β = {beta:.3g}, {share}; the target lags, and τ tends to 1")
    parts.append(f"a step lasts {time:.3g}")
    mapping = "; ".join(parts) + "."
    if not why:
        return f"Exact but for the length of the steps and the chance of the batches: {mapping}"
    return f"A tendency, not a prediction ({'; '.join(why)}): {mapping}"
