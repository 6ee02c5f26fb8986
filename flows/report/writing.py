"""Texts of the report by their templates (Jinja2). In pages, what is not markup of ours is escaped.

A line break in a template of a page is a blank, so that its sentences wrap where they are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from flows.config.sections.periods import spoken_periods

# All of them by name: a report follows from its templates as from its program.
TEMPLATES = (
    "templates/care.html",
    "templates/certificate.html",
    "templates/compatibility.html",
    "templates/fields.html",
    "templates/maps.html",
    "templates/memory.html",
    "templates/model-card.md",
    "templates/page.html",
    "templates/provenance.html",
    "templates/ranks.html",
    "templates/response.html",
    "templates/scores.html",
    "templates/spectra.html",
    "templates/time.html",
)


def written(template: str, **values: Any) -> Markup:
    """The text of a template, named without its folder, with these values in it.

    Raises:
        jinja2.UndefinedError: If the template asks for a value that is not there.
    """
    return Markup(_environment().get_template(f"templates/{template}").render(values).strip())


def period(days: Iterable[str]) -> str:
    """First and last day, in words."""
    listed = [str(day)[:10] for day in days]
    return f"{listed[0]} to {listed[-1]}"


def times(value: float) -> str:
    """A ratio, as it stands after ×."""
    if value > 99:
        return "> 99"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def short(value: float, digits: int = 3) -> str:
    """A number with so many digits that count, and none of those before the point left out."""
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


def _number(value: float | None, form: str) -> str:
    """What could not be estimated is a dash."""
    return "–" if value is None or math.isnan(value) else format(value, form)


@cache
def _environment() -> Environment:
    texts = {}
    for name in TEMPLATES:
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        texts[name] = text if name.endswith(".md") else re.sub(r"\n\s*", " ", text)
    made = Environment(
        loader=DictLoader(texts),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "period": period,
        "periods": spoken_periods,
        "times": times,
        "short": short,
        "fixed": lambda value, digits: _number(value, f".{digits}f"),
        "signed": lambda value, digits: _number(value, f"+.{digits}f"),
        "digits": lambda value, digits: _number(value, f".{digits}g"),
        "begun": lambda text: text[0].upper() + text[1:],  # as a sentence
    }
    return made
