"""The certificate, the likelihood and the bounds of a report as HTML; schema:
flows/stages/verify/certificate."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from flows.report.figures import NAMES
from flows.report.score_tables import Card


def certificate_section(card: Card, pictures: Mapping[str, str]) -> str:
    certificate = card.get("certificate")
    if not certificate:
        return ""
    rows = "".join(
        f"<tr><td>over the {NAMES.get(name, escape(name))}</td>"
        f'<td class="number"><b>{part["nats"]:.1f}</b></td>'
        f'<td class="number">{part["low"]:.1f} to {part["high"]:.1f}</td>'
        f'<td class="number">{part["per_coefficient"]:.2g}</td></tr>'
        for name, part in certificate["over"].items()
    )
    return (
        f"<p>{escape(certificate['statement'])}</p>"
        "<p>KL(truth | generated) ≤ KL(truth | Gaussian) − J<sub>G</sub>, every error of the "
        "sampler included. Above 0, the model knows something about the fields that no Gaussian "
        "law of that kind can hold.</p>"
        '<div class="scroll"><table><tr><th></th><th class="number">J<sub>G</sub> [nats per field]'
        '</th><th class="number">95 % interval</th><th class="number">per coefficient</th></tr>'
        f"{rows}</table></div>{_best(certificate)}"
        f'<p class="note">From {certificate["fields"]} held-out fields, each noised to '
        f"{certificate['draws']} of {certificate['chain']['steps']} diffusion times; intervals "
        f"by Student's t from blocks of {certificate['block']} consecutive times, as many as these "
        "fields remember each other.</p>"
        f"{_splits(certificate, pictures)}{_likelihood(certificate)}"
    )


def _best(certificate: Mapping[str, Any]) -> str:
    """Which Gaussian laws these are, and what the best of them was."""
    best = certificate["best"]
    if "why" in best["choice"]:
        fitted = f"No better one was fitted: {escape(best['choice']['why'])}."
    else:
        choice = best["choice"]
        fitted = (
            f"The best one we know how to fit has {choice['own']:g} of the covariances of each "
            "order, averaged with their neighbours', and "
            f"{choice['sample']:g} of the covariance of all coefficients of the training fields, "
            f"both weighted by season (1 + {choice['seasonal']:g} cos); the validation split chose "
            "that. There may be better ones."
        )
    return (
        "<p>The m-block Gaussian is fitted alike in every version, so that numbers over it can be "
        f"compared from one report to another; it is not the best Gaussian law. {fitted}</p>"
    )


def _splits(certificate: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    own = NAMES.get(certificate["baseline"], escape(certificate["baseline"]))
    if not any(certificate["per_degree"]):
        return f'<p class="note">The model is the {own} itself: nothing was learned beyond it.</p>'
    return (
        f"<h3>Where it comes from</h3><figure>{pictures.get('certificate', '')}</figure>"
        f'<p class="note">J<sub>G</sub> over the {own}, with standard errors. By degree it is a '
        "spectrum of non-Gaussianity, and of what that law misses of the covariance: with a "
        "perfect score and fine steps its sum would be the divergence of the data from that law, "
        "and the sum found is a lower bound of that. Noise is little at the bottom of the right "
        "panel and all at the top. Parts may be below 0; only the sum is certified.</p>"
    )


def _likelihood(certificate: Mapping[str, Any]) -> str:
    likelihood, bounds = certificate["likelihood"], certificate["bounds"]
    rows = "".join(
        f"<tr><td>over the {NAMES.get(name, escape(name))}</td>"
        f'<td class="number">{part["nats"]:.1f} ± {part["error"]:.1f}</td></tr>'
        for name, part in likelihood["over"].items()
    )
    own = NAMES.get(certificate["baseline"], escape(certificate["baseline"]))
    return (
        "<h3>Likelihood and bounds</h3>"
        "<p>The same score also defines a law without noise in its steps, that of the probability "
        "flow, whose log-likelihood can be computed field by field. Its gain over a Gaussian law "
        "estimates a difference of divergences as J<sub>G</sub> bounds one.</p>"
        '<div class="scroll"><table><tr><th></th><th class="number">log-likelihood gain [nats per '
        f"field]</th></tr>{rows}</table></div>"
        f'<p class="note">Mean and standard error of {likelihood["fields"]} held-out fields; the '
        "random signs that take the trace of the derivative of the residual add "
        f"{likelihood['trace_error']:.1f}.</p>"
        "<p>Of the divergence that is left, two parts can be spoken of. Starting from the Gaussian "
        f"law costs at most {bounds['start']:.3g} nats: rigorous for data with these second "
        "moments, and loose, because it grows with the number of coefficients. Finite steps cost "
        f"about {bounds['step']:.3g} nats: model-based, with the model's residual over the {own} "
        "in the place of the truth's, so an indication and not a bound. The error of the score "
        "itself cannot be certified.</p>"
    )
