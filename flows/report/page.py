"""One self-contained HTML page per run: what was made, beside what it was learned from.

`render(card, pictures)` is a function of `scores.json` (schema: flows/stages/verify/verify) and of
ready-made picture elements by name (flows/report/figures); it reads nothing and loads nothing from
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from statistics import median

from flows.report.certificate_section import certificate_section
from flows.report.figures import MANY, NAMES
from flows.report.score_tables import BESIDE, MATRIX, Card, imposed, period, ratios, scores_section
from flows.report.time_section import time_section
from pipeline.scores.score_card import FLOOR


def render(card: Card, pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        card: The content of scores.json.
        pictures: HTML elements: `overview`, `fields/<variable>`, `anomalies/<variable>`,
            `maps/<variable>`, `spectra`, `ranks`, `certificate`, `time`, `compatibility`; what is
            absent is left out.
    """
    titles = {
        "fields": "Generated beside real",
        "scores": "Scores",
        "certificate": "Beyond Gaussian",
        "time": "Day after day",
        "maps": "Climate maps",
        "spectra": "Spectra",
        "compatibility": "Data and noise",
        "ranks": "Calibration",
        "memory": "Memorisation",
        "care": "What to be careful about",
        "provenance": "Provenance",
    }
    bodies = {
        "fields": _fields(card, pictures),
        "scores": scores_section(card),
        "certificate": certificate_section(card, pictures),
        "time": time_section(card, pictures),
        "maps": _maps(card, pictures),
        "spectra": _spectra(card, pictures),
        "compatibility": _compatibility(pictures),
        "ranks": _ranks(card, pictures),
        "memory": _memory(card),
        "care": _care(card),
        "provenance": _provenance(card),
    }
    sections = "".join(
        f'<section id="{key}"><h2>{title}</h2>{bodies[key]}</section>'
        for key, title in titles.items()
        if bodies[key]
    )
    links = "".join(f'<a href="#{key}">{t}</a>' for key, t in titles.items() if bodies[key])
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(card['title'])}</title><style>{css}</style></head><body>"
        f"<header><div><h1>{escape(card['title'])}</h1><p>{_what(card)}</p>"
        f"<nav>{links}</nav></div></header>"
        f'<main><div class="tiles">{_tiles(card)}</div>{sections}</main></body></html>\n'
    )


def _what(card: Card) -> str:
    made, protocol = card["made"], card["protocol"]
    names = [escape(v["long_name"]) for v in card["variables"].values() if not v["derived"]]
    if len(names) > MANY:
        names = [*names[:3], f"{len(names) - 3} more variables"]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    elsewhere = made.get("grid", protocol["grid"]) != protocol["grid"]
    there = f", on a {escape(made['grid'])} grid," if elsewhere else ""
    learned = card["provenance"]["config"].get("train", {}).get("model", "network")
    kind = "score" if learned == "network" else "Gaussian"
    return (
        f"A {kind} model learned the joint law of {listed} from {made['training_fields']} real "
        f"fields ({period(protocol['train'])}) on a {escape(protocol['grid'])} grid, up to "
        f"spherical harmonic degree {protocol['lmax']}, and drew {made['realizations']} new "
        f"states of the whole globe{there} for each of {len(made['times'])} dates. This page puts "
        f"them beside real fields that the model has never seen ({period(protocol['test'])})."
    )


def _tiles(card: Card) -> str:
    tiles = []
    certificate = card["certificate"]["over"] if card.get("certificate") else {}
    for name in ("whole", *BESIDE):
        if name in certificate:
            part = certificate[name]
            tiles.append(
                (
                    f"{part['nats']:+.0f} nats",
                    f"closer to the truth than the {NAMES[name]}, at least "
                    f"(95 %: {part['low']:.0f} to {part['high']:.0f})",
                )
            )
    typical = {
        owner: median(values)
        for owner in ("model", "m-block", "channels")
        if (values := list(ratios(card, owner)))
    }
    if "model" in typical:
        others = ", ".join(f"{NAMES[o]} {r:.2f}" for o, r in typical.items() if o != "model")
        tiles.append(
            (
                f"{typical['model']:.2f} ×",
                f"the noise floor is the model's typical (median) score; 1 is another real year"
                f"{f' ({others})' if others else ''}",
            )
        )
    memory = card.get("memorisation")
    if memory:
        middle = memory["levels"].index(0.5)
        tiles.append(
            (
                f"{memory['generated'][middle] / memory['held_out'][middle]:.2f} ×",
                "as far from the nearest training field as a held-out real field is; far below 1 "
                "would be copying",
            )
        )
    return "".join(f'<div class="tile"><b>{b}</b><span>{text}</span></div>' for b, text in tiles)


def _fields(card: Card, pictures: Mapping[str, str]) -> str:
    parts = []
    for name, variable in card["variables"].items():
        picture = pictures.get(f"fields/{name}")
        if not picture:
            continue
        title = escape(variable["long_name"])
        if "overview" in pictures:
            parts.append(f"<details><summary>{title}</summary><figure>{picture}</figure></details>")
            continue
        parts.append(f"<h3>{title}</h3><figure>{picture}</figure>")
        if departure := pictures.get(f"anomalies/{name}"):
            parts.append(
                "<details><summary>as departure from the season's climatology</summary>"
                f"<figure>{departure}</figure></details>"
            )
    if not parts:
        return ""
    overview, where = "", "above, generated ones below"
    if "overview" in pictures:
        overview, where = f"<figure>{pictures['overview']}</figure>", "beside generated ones"
    return (
        f"<p>For {escape(card['made']['times'][0])}: real fields of that season {where}, on one "
        "colour scale, grey where there are no data. A generated field is a draw of the climate, "
        "not a forecast: it should look like one of the real ones without being any of them.</p>"
        + overview
        + (f'<div class="fold">{"".join(parts)}</div>' if overview else "".join(parts))
    )


def _maps(card: Card, pictures: Mapping[str, str]) -> str:
    parts = [
        f"<details{' open' if not index else ''}><summary>{escape(about['long_name'])}</summary>"
        f"<figure>{pictures[f'maps/{name}']}</figure></details>"
        for index, (name, about) in enumerate(card["variables"].items())
        if f"maps/{name}" in pictures
    ]
    if not parts:
        return ""
    return (
        "<p>Over the held-out dates: the real fields (one per date) on the left, the generated "
        "ones, averaged over realizations, in the middle. Much of what the right column shows is "
        "the chance of the held-out dates; the table above says how much.</p>"
        f'<div class="fold">{"".join(parts)}</div>'
    )


def _spectra(card: Card, pictures: Mapping[str, str]) -> str:
    if "spectra" not in pictures:
        return ""
    return (
        "<p>Power of the scaled anomalies per degree, over that of the held-out fields; bands are "
        "95 % intervals over dates. Low degrees have few coefficients and slow weather, so their "
        f"ratios scatter even for real years.{imposed(card)}</p>"
        f"<figure>{pictures['spectra']}</figure>"
    )


def _compatibility(pictures: Mapping[str, str]) -> str:
    if "compatibility" not in pictures:
        return ""
    return (
        "<p>The noise is a Gaussian field with a spectrum of its own. Left: variance of the data "
        "over that of the noise, 1 where they agree, shaded what sampling alone would show. Right: "
        "the divergence of their Gaussian parts, summed up to each degree, dotted what sampling "
        "alone would show. If it levels off, bounds that start from the noise mean the same on any "
        "finer grid; if it climbs along the dashed line, like the number of coefficients, they "
        f"have no limit.</p><figure>{pictures['compatibility']}</figure>"
    )


def _ranks(card: Card, pictures: Mapping[str, str]) -> str:
    if "ranks" not in pictures:
        return ""
    return (
        "<p>Where the held-out value falls among the realizations of its date. Flat: the two are "
        "exchangeable. A valley: too little spread; a hill: too much; a slope: a bias. The noise "
        "floor has one bin more than it has years.</p>"
        f"<figure>{pictures['ranks']}</figure>"
    )


def _memory(card: Card) -> str:
    memory = card.get("memorisation")
    if not memory:
        return ""
    heads = "".join(f'<th class="number">{_level(q)}</th>' for q in memory["levels"])
    rows = "".join(
        f"<tr><td>{title}</td>"
        + "".join(f'<td class="number">{value:.3f}</td>' for value in memory[name])
        + "</tr>"
        for name, title in (("generated", "generated fields"), ("held_out", "held-out real fields"))
    )
    return (
        "<p>Does the model replay its training fields? Distance to the nearest of them, in the "
        "whitened norm per coefficient: quantiles over generated fields, beside the same for real "
        "fields that were held out. Copies would show as small numbers in the first row.</p>"
        f'<div class="scroll"><table><tr><th></th>{heads}</tr>{rows}</table></div>'
    )


def _care(card: Card) -> str:
    protocol = card["protocol"]
    count = len(card["scores"]) * len(MATRIX)
    items = [
        *(f"<b>{escape(text[0].upper() + text[1:])}.</b>" for text in card.get("caveats", ())),
        "Each generated state stands for itself. Dates of one realization are independent draws "
        "for their season: there is no movement from one day to the next.",
        f"The held-out dates cover {period(protocol['dates'])}. What happens in other seasons or "
        "another climate is not tested here.",
        f"The law is learned up to degree {protocol['lmax']}. Whatever the generated fields have "
        "beyond it is noise of the right variance in each cell, without structure. The column "
        f"“{NAMES['band-limit']}” has real fields without anything beyond that degree: where it "
        "is far above 1, precipitation above all, the finest scales matter.",
        "The CRPS of climate draws is not forecast skill; the fair comparison is the noise floor.",
        f"{count} ratios are shown. Some would leave their 95 % interval by chance; intervals come "
        f"from a bootstrap of the dates in blocks of {protocol['block']} "
        f"(about {protocol['block_days']:.0f} days) and know nothing of slower variability.",
        "The noise floor is itself a sample: it has only "
        f"{protocol['realizations'].get(FLOOR, 0)} real years, and neighbouring days of a real "
        "year hang together where generated ones do not.",
        "J<sub>G</sub> is a difference to a Gaussian law, a lower bound on what was gained. It "
        "does not say how far the model still is from the truth, and each coefficient counts "
        "alike in it.",
        "A score model cannot go beyond its training years: extremes that they do not contain, "
        "trends and events of years to come are outside its law.",
    ]
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _provenance(card: Card) -> str:
    provenance = card["provenance"]
    digests = "".join(
        f"<tr><td>{escape(kind)}</td><td><code>{escape(digest[:16])}</code></td>"
        f'<td class="number">{_seconds(provenance["seconds"].get(kind))}</td></tr>'
        for kind, digest in provenance["digests"].items()
    )
    software = ", ".join(f"{escape(k)} {escape(v)}" for k, v in provenance["software"].items())
    config = escape(json.dumps(provenance["config"], indent=1, ensure_ascii=False))
    source = escape(str(provenance.get("source") or ""))
    return (
        f"<p>{source}</p>"
        '<div class="scroll"><table><tr><th>artifact</th><th>digest</th>'
        f'<th class="number">seconds</th></tr>{digests}</table></div>'
        f'<p class="note">Key of this page <code>{escape(card["key"][:16])}</code>. {software}.</p>'
        f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
    )


def _level(level: float) -> str:
    return "least" if level == 0 else f"{100 * level:g} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
