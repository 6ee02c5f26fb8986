"""Stages in order: the only package that knows Prefect and the Dask cluster."""
