# Server, worker and runs: one image. Nothing in it is written at run time but /data and /tmp, so the
# root may be read-only: docker run --read-only --tmpfs /tmp -v data:/data IMAGE spherescore run ...
FROM python:3.11.14-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_HOME=/data/prefect \
    SPHERESCORE_CACHE=/data/cache \
    HOME=/data \
    MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY spherescore ./spherescore
COPY pipeline ./pipeline
COPY storage ./storage
COPY flows ./flows
RUN python -m pip install --no-cache-dir --disable-pip-version-check \
      -c constraints.txt --extra-index-url "${TORCH_INDEX}" '.[grib,kubernetes,remote]' \
    && useradd --uid 10001 --create-home --home-dir /data spherescore

USER 10001:10001
VOLUME /data
# No ENTRYPOINT: Prefect's workers, the Dask operator and compose.yaml say whole commands.
CMD ["spherescore", "--help"]
