"""A flow that does nothing, to see that what is scheduled happens."""

from prefect import flow

from flows.deployments.prefect_settings import PROBE


@flow(name=PROBE, persist_result=False, description="Does nothing; `spherescore deploy` waits.")
def probe() -> str:
    return "ran"
