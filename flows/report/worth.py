"""What an ensemble is worth, in three sentences for the end of a run; what is typical of it."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

MATRIX = ("mean", "sd", "skewness", "q999", "spectrum", "crps")  # errors beside their noise floor
LARGEST = 99.0  # ratio that is written out: a floor that is 0 by chance has any
CARE = (
    "its days are draws of the climate of their date, no forecasts; what the training years do not "
    "contain is not in it"
)


def worth(card: Mapping[str, Any]) -> dict[str, str]:
    """Sentences by a word: `in time`, `J_G`, `scores` and `careful`.

    Args:
        card: What scores.json holds (flows.stages.verify.verify).
    """
    said = {}
    if (followed := _followed(card.get("time"))) is not None:
        said["in time"] = followed
    if (best := _gained(card["certificate"])) is not None:
        said["J_G"] = f"single days: {best}" if "in time" in said else best
    if found := list(ratios(card, "model")):
        low, typical, high = (_written(one(found)) for one in (min, median, max))
        said["scores"] = (
            f"typically {typical} times the error that another sample of real years "
            f"would have ({low} to {high} in {len(found)} scores)"
        )
    first = next(iter(card.get("caveats", ())), CARE)
    return said | {"careful": first}


def _followed(time: Mapping[str, Any] | None) -> str | None:
    """By how much days that follow each other are better than what is simpler."""
    if time is None:
        return None
    past = time["past"]
    given = "the day before" if past == 1 else f"the {past} days before"
    if found := time.get("certificate"):
        return f"{_nats(found)} a day: given {given}, {_compared(found)} VAR({past})"
    if (found := time["ladder"].get(str(past))) is None:
        return None
    return f"{_nats(found)} a day: given {given}, {_compared(found)} days by themselves"


def _gained(certificate: Mapping[str, Any]) -> str | None:
    """By how much the model is better than the best Gaussian law, and whether that is sure."""
    name = (certificate.get("best") or {}).get("name", "m-block")
    part = certificate["over"].get(name) or {}
    if part.get("nats") is None:
        return None
    return f"{_nats(part)}: {_compared(part)} the best Gaussian law, {name}"


def _nats(found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    interval = "" if low is None or high is None else f" [{round(low)}, {round(high)}]"
    return f"{round(found['nats'])} nats{interval}"


def _compared(found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    if low is not None and low > 0:
        return "the model is closer to held-out days than"
    if high is not None and high < 0:
        return "the model is farther from held-out days than"
    return "the model is not surely closer than"


def ratios(card: Mapping[str, Any], owner: str) -> Iterator[float]:
    """Every ratio to the noise floor of one candidate's errors: those that the page shows first."""
    for scores in card["scores"].values():
        for name in MATRIX:
            entry = scores.get(name, {}).get(owner)
            if entry and entry["ratio"] and entry["ratio"]["value"] is not None:
                yield float(entry["ratio"]["value"])


def _written(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio <= LARGEST else f"more than {LARGEST:.0f}"
