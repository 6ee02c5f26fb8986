"""The card of a model, in Markdown: what it learned, from what, how well, and what to beware of.

`model_card(card, checkpoint)` is a function of `scores.json` (schema: flows/stages/verify/verify)
and of the attributes of the published checkpoint; it lies beside the report. The words are in
templates/model-card.md.
"""

import json
from collections.abc import Mapping
from typing import Any

from flows.report.score_tables import imposed
from flows.report.writing import written

Card = Mapping[str, Any]


def model_card(card: Card, checkpoint: Mapping[str, Any]) -> str:
    """The page.

    Args:
        card: The content of scores.json.
        checkpoint: Attributes of the published checkpoint.
    """
    provenance = card["provenance"]
    found = (
        (variable, score, ((entries.get("model") or {}).get("ratio") or {}).get("value"))
        for variable, scores in card["scores"].items()
        for score, entries in scores.items()
    )
    text = written(
        "model-card.md",
        card=card,
        checkpoint=checkpoint,
        software=", ".join(f"{k} {v}" for k, v in provenance["software"].items()),
        digests={kind: f"`{digest}`" for kind, digest in provenance["digests"].items()},
        ratios=[entry for entry in found if entry[2] is not None],
        imposed=imposed(card),
        listing=json.dumps(provenance["config"], indent=1, ensure_ascii=False),
    )
    return f"{text}\n"
