"""What a person sees of a run in the Prefect UI. Showing never stops what is computed."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.config.schema import RunConfig
from flows.deployments.wanted import mark_of
from flows.progress import Progress, at_intervals
from flows.stages.base import Receipt
from storage.places.places import BucketPath, Place

LOGGER = logging.getLogger("spherescore")
SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_OF_SILENCE = 60.0


class _Silence:
    """When Prefect last did not answer."""

    since = -float("inf")


def key_of(config: RunConfig, name: str) -> str:
    """The key of an artifact in Prefect, which all roots share: a version of this root's alone."""
    root = config.layout.path
    return (
        f"{name}-{mark_of(str(root) if isinstance(root, BucketPath) else os.path.realpath(root))}"
    )


def shown_progress(config: RunConfig, name: str) -> Progress:
    """Progress of a stage as a Prefect artifact."""
    key = key_of(config, f"{name}-progress")
    artifact: UUID | None = None

    def show(done: int, total: int, text: str) -> None:
        nonlocal artifact
        percent, words = 100.0 * done / max(total, 1), f"{name}: {done} of {total}, {text}"
        if artifact is None:
            made = create_progress_artifact(percent, key=key, description=words)
            artifact = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(artifact, percent, description=words)

    return at_intervals(SECONDS_BETWEEN_UPDATES, harmless(show))


def show_receipt(config: RunConfig, receipt: Receipt) -> None:
    """What a stage has made, as a table and a picture; nothing of a stage that was skipped.

    Only on a server that others look at: drawing takes a second or two.
    """
    if receipt.skipped or "PREFECT_API_URL" not in os.environ:
        return
    layout = config.layout
    words = f"What {receipt.stage} made: {receipt.path}, sha256 {receipt.digest[:16]}"
    try:
        from flows.deployments.ui.pages import picture_of, rows_of

        rows, page = rows_of(receipt, layout), picture_of(receipt, layout)
    except Exception as error:
        LOGGER.warning("%s is not shown: %s: %s", receipt.stage, type(error).__name__, error)
        return
    table, picture = (key_of(config, f"{receipt.stage}-{name}") for name in ("table", "picture"))
    harmless(create_table_artifact)(rows, key=table, description=words)
    if page:
        harmless(create_markdown_artifact)(page, key=picture, description=words)


def show_run(config: RunConfig, receipts: Sequence[Mapping[str, Any]]) -> None:
    """One page about the whole run, with the way to the report and the store."""
    layout = config.layout
    page = summary([Receipt(**receipt) for receipt in receipts])
    page += f"\n\nThe store: `{_whole(layout.path)}`"
    if layout.report.exists():
        report = _whole(layout.report)
        page += f"\n\nThe report: `{report}`"
        link = report if isinstance(layout.report, BucketPath) else f"file://{report}"
        harmless(create_link_artifact)(
            link=link, link_text="report.html", key=key_of(config, "report"),
            description="Opens where the run's disk is; else copy the path.",
        )  # fmt: skip
    harmless(create_markdown_artifact)(page, key=key_of(config, "run"))


def _whole(place: Place) -> str:
    return str(place if isinstance(place, BucketPath) else place.absolute())


def summary(receipts: list[Receipt]) -> str:
    """A Markdown table of what each stage made."""
    rows = ["| stage | artifact | digest | seconds | figures |", "|---|---|---|---|---|"]
    for receipt in receipts:
        figures = ", ".join(f"{name} {value}" for name, value in receipt.figures.items())
        seconds = "skipped" if receipt.skipped else f"{receipt.seconds:.1f}"
        rows.append(
            f"| {receipt.stage} | {receipt.path} | {receipt.digest[:16]} | {seconds} | {figures} |"
        )
    return "\n".join(rows)


def harmless(tell: Callable[..., Any]) -> Callable[..., None]:
    """The same, but without consequence if Prefect cannot be told.

    A server that does not answer is left alone for a minute: each further question would take as
    long as its retries.
    """

    def told(*arguments: Any, **keywords: Any) -> None:
        again = _Silence.since > -float("inf")
        if time.monotonic() - _Silence.since < SECONDS_OF_SILENCE:
            return
        try:
            tell(*arguments, **keywords)
        except Exception as error:
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            LOGGER.log(
                logging.DEBUG if again else logging.WARNING,
                "Prefect is not shown the progress for a while (%s)",
                words,
            )
            _Silence.since = time.monotonic()

    return told
