"""The card of a model, in Markdown: what it learned, from what, how well, and what to beware of.

`model_card(card, checkpoint)` is a function of `scores.json` (schema: flows/stages/verify/verify)
and of the attributes of the published checkpoint; it lies beside the report.
"""

import json
from collections.abc import Mapping
from typing import Any

from flows.report.score_tables import imposed, period

Card = Mapping[str, Any]


def model_card(card: Card, checkpoint: Mapping[str, Any]) -> str:
    """The page.

    Args:
        card: The content of scores.json.
        checkpoint: Attributes of the published checkpoint.
    """
    provenance = card["provenance"]
    config, digests = provenance["config"], provenance["digests"]
    parts = [
        f"# {card['title']}: model card",
        "A generative model of the law of global fields (spherescore). It draws fields of a "
        "calendar day; it does not forecast.",
        _table(
            ("checkpoint", f"`{digests['checkpoints']}`"),
            ("trained", checkpoint.get("date_created", "")),
            ("model", config["train"]["model"]),
            ("parameters", checkpoint.get("figures", {}).get("parameters", "")),
            ("went on from", _from(checkpoint)),
            ("software", ", ".join(f"{k} {v}" for k, v in provenance["software"].items())),
        ),
        "## Data",
        _data(card),
        "## Training",
        _training(config, checkpoint),
        "## How good it is",
        _certificate(card),
        _scores(card),
        "## What to be careful about",
        _care(card),
        "## Provenance",
        _table(*((kind, f"`{digest}`") for kind, digest in digests.items()), head="sha256"),
        "<details><summary>Configuration</summary>\n\n```json\n"
        + json.dumps(config, indent=1, ensure_ascii=False)
        + "\n```\n\n</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(card: Card) -> str:
    protocol, source = card["protocol"], str(card["provenance"].get("source") or "")
    rows = [
        (name, about["long_name"] + (" (derived)" if about["derived"] else ""), about["units"])
        for name, about in card["variables"].items()
    ]
    variables = "\n".join(f"| {name} | {title} | {units} |" for name, title, units in rows)
    return (
        (f"{source}\n\n" if source else "")
        + f"| variable | | unit |\n|---|---|---|\n{variables}\n\n"
        + f"Learned from {protocol['train'][0]} to {protocol['train'][1]} "
        f"({card['made']['training_fields']} fields); scored on {period(protocol['dates'])}. "
        f"Grid {protocol['grid']}, degrees up to {protocol['lmax']}."
    )


def _training(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    history = checkpoint.get("history") or []
    if not history:
        return "Nothing was trained: the model is the Gaussian law of the data."
    seconds = checkpoint.get("seconds")
    steps = f"{history[-1]['step']} steps of {config['train']['batch']} fields"
    took = f", {seconds:.0f} s" if seconds else ""
    rows = "\n".join(
        f"| {entry['step']} | {entry['loss']:.4f} | {entry['nats']:.1f} ± {entry['error']:.1f} |"
        for entry in history
    )
    head = "| step | loss | J_G on validation days [nats] |\n|---|---|---|"
    return f"{steps}{took}. The weights of the highest J_G are kept.\n\n{head}\n{rows}"


def _certificate(card: Card) -> str:
    rows = "\n".join(
        f"| {name} | {part['nats']:.1f} | [{part['low']:.1f}, {part['high']:.1f}] |"
        for name, part in card["certificate"]["over"].items()
    )
    return (
        "J_G: by how many nats the model is closer to held-out fields than Gaussian laws fitted to "
        "the same training fields. `whole` is the best Gaussian law we know how to fit, `m-block` "
        "the one that is fitted alike in every version.\n\n"
        f"| over | J_G | 95 % |\n|---|---|---|\n{rows}"
    )


def _scores(card: Card) -> str:
    rows = []
    for score, variables in card["scores"].items():
        for variable, entries in variables.items():
            model = entries.get("model") or {}
            ratio = (model.get("ratio") or {}).get("value")
            if ratio is not None:
                rows.append(f"| {score} | {variable} | {ratio:.2f} |")
    if not rows:
        return ""
    head = "| score | variable | error over noise floor |\n|---|---|---|"
    words = f"1 is what another sample of real years would have.{imposed(card)}"
    return words + "\n\n" + "\n".join([head, *rows])


def _care(card: Card) -> str:
    protocol = card["protocol"]
    items = [
        *(f"**{text[0].upper() + text[1:]}.**" for text in card.get("caveats", ())),
        "Days of one realization are independent draws; there is no movement from day to day.",
        f"Held-out days cover {period(protocol['dates'])}; other seasons or climates are untested.",
        f"Beyond degree {protocol['lmax']} there is noise of the right variance, no structure.",
        "Extremes, trends and events that the training years do not contain are outside its law.",
        "J_G is a lower bound on what was gained over a Gaussian law, not a distance to the truth.",
    ]
    return "\n".join(f"- {item}" for item in items)


def _from(checkpoint: Mapping[str, Any]) -> str:
    start = str(checkpoint.get("started_from") or "")
    return f"`{start}`" if start else "scratch"


def _table(*rows: tuple[str, Any], head: str = "") -> str:
    return "\n".join(
        [f"| | {head} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    )
