"""What the page of the theory says: what goes on, why, and what a switch does as it stands."""

from __future__ import annotations

from lab.theory.flow import Flow, Settings, hessian


def going_on(flow: Flow) -> str:
    """The flow in a line or two."""
    at, many = flow.settings, len(flow.learns)
    learn = int(flow.learns.sum())
    rest = at.rest()
    if not at.protected:
        missing = " and ".join(
            word for word, there in (("predictor", at.predictor), ("stop-gradient", at.stop_gradient)) if not there
        )
        if learn == 0:
            fate = f"W goes to 0: all {many} modes die"
        elif learn == many:
            fate = "nothing pulls at W, which stands where it is"
        else:
            fate = f"{many - learn} of {many} modes die; nothing pulls at the others"
        words = f"Without {missing} {fate}."
    elif rest is None:
        words = (
            f"All {many} modes die: weight decay {at.eta:.3f} is beyond the critical {at.critical:.3f}: no p₊ is left."
        )
    else:
        low, high = rest
        fate = "all modes learn" if learn == many else f"{learn} of {many} modes learn, {many - learn} die"
        edge = (
            f"below p₋ = {low:.3f} a mode on the parabola dies" if at.eta > 0 else "without weight decay no mode dies"
        )
        words = f"{fate[0].upper()}{fate[1:]}. p₊ = {high:.3f}; {edge}. Critical weight decay: {at.critical:.3f}."
    return f"{words} At rest." if flow.resting else words


def reasons(at: Settings) -> dict[str, tuple[str, str]]:
    """For each switch a sentence and an equation: what it does as it stands."""
    return {
        "stop_gradient": _stop_gradient(at),
        "predictor": _predictor(at),
        "ema": _ema(at),
    }


def _stop_gradient(at: Settings) -> tuple[str, str]:
    if at.stop_gradient:
        return "The target is taken as given, so that W is pulled up towards it (P theorem 2).", "dW/dt = Wpᵀ E − η W"
    import numpy as np

    least = float(hessian(np.linspace(0.0, 1.2, 121), at).min())
    sure = "so W → 0" if least > 0 else "with σ² = η = 0 only p = 1 stops it"
    gain = "(Wp−I)ᵀ(Wp−I)"
    return (
        f"Gone: both sides are pulled together, and W only shrinks, {sure} (P theorem 2).",
        f"d vec(W)/dt = −H vec(W),  H = X′⊗(WpᵀWp+I) + X⊗{gain} + η I ≥ {least:.3g} I",
    )


def _predictor(at: Settings) -> tuple[str, str]:
    if at.predictor:
        return (
            "Wp learns along with W and comes into balance with it (P theorem 1).",
            "W Wᵀ = WpᵀWp/α_p + e^(−2ηt) C",
        )
    if not at.stop_gradient:
        return "Gone: Wp = I, p = 1 in every mode.", "dw/dt = −(2σ² + η) w"
    if at.follows:
        return (
            "Gone: Wp = I. The slow target delays the collapse, no more.",
            "dw/dt = a − (1+σ²+η) w,  da/dt = β (w − a)",
        )
    return "Gone: Wp = I, and W only shrinks (P theorem 2).", "dW/dt = −W (X′ + η I):  dw/dt = −(σ² + η) w"


def _ema(at: Settings) -> tuple[str, str]:
    if not at.stop_gradient:
        return "No effect now: without stop-gradient W is its own target.", ""
    if at.ema:
        return (
            "The target follows slowly; τ falls while a mode grows, and comes back.",
            "dτ/dt = β (1−τ) − τ (ds/dt)/(2s)",
        )
    return "Off, as in SimSiam: the target is the network itself.", "Wa = W,  τ = 1"


def idle(at: Settings) -> dict[str, str]:
    """For each slider that has no effect now, why."""
    why: dict[str, str] = {}
    if not at.predictor:
        why["alpha_p"] = "there is no predictor"
        why["gain"] = "without a predictor p is 1"
    if not at.follows:
        missing = "without stop-gradient there is no target" if not at.stop_gradient else "EMA is off"
        why["beta"] = why["tau"] = missing
    return why
