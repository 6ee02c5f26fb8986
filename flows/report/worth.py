"""What an ensemble is worth, in three sentences: for the end of a run, not for its page."""

from collections.abc import Mapping
from statistics import median
from typing import Any

CARE = (
    "its days are draws of the climate of their date, no forecasts; what the training years do not "
    "contain is not in it"
)


def worth(card: Mapping[str, Any]) -> dict[str, str]:
    """Sentences by a word: `J_G`, `scores` and `careful`.

    Args:
        card: What scores.json holds (flows.stages.verify.verify).
    """
    said = {}
    if (best := _gained(card["certificate"])) is not None:
        said["J_G"] = best
    if ratios := _ratios(card):
        said["scores"] = (
            f"typically {median(ratios):.2f} times the error that another sample of real years "
            f"would have ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} scores)"
        )
    first = next(iter(card.get("caveats", ())), CARE)
    return said | {"careful": first}


def _gained(certificate: Mapping[str, Any]) -> str | None:
    """By how much the model is better than the best Gaussian law, and whether that is sure."""
    name = (certificate.get("best") or {}).get("name", "m-block")
    part = certificate["over"].get(name) or {}
    if part.get("nats") is None:
        return None
    low, high = part["low"], part["high"]
    known = low is not None and high is not None
    words = f"{round(part['nats'])} nats" + (f" [{round(low)}, {round(high)}]" if known else "")
    sure = "is closer to held-out days than" if known and low > 0 else "is not surely closer than"
    if known and high < 0:
        sure = "is farther from held-out days than"
    return f"{words}: the model {sure} the best Gaussian law, {name}"


def _ratios(card: Mapping[str, Any]) -> list[float]:
    found = []
    for variables in card["scores"].values():
        for entries in variables.values():
            ratio = (entries.get("model") or {}).get("ratio") or {}
            if ratio.get("value") is not None:
                found.append(float(ratio["value"]))
    return found
