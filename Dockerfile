# docker build -t active-query .
# docker run --rm -v active-query:/data -e AQ_API_KEYS_FILE=/data/keys.json active-query keys new --name me --role admin --project '*'
# docker run --read-only --tmpfs /tmp --cap-drop ALL -v active-query:/data -p 127.0.0.1:8000:8000 -e AQ_API_KEYS_FILE=/data/keys.json active-query
#
# In a container the service listens on every address, so it needs API keys, or AQ_ALLOW_ANONYMOUS=1 if only a proxy or a
# private network can reach the port.

ARG PYTHON=3.13.15-slim-trixie

FROM python:${PYTHON} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/active-query
# Installs exactly the locked versions and verifies their hashes. To renew the lock, with the oldest Python that
# pyproject.toml allows, so that it is valid for all:
#   pip-compile --upgrade --extra arrow --extra compiled --extra plots --generate-hashes --strip-extras --no-annotate --no-header --no-emit-options -o requirements.lock
COPY requirements.lock /build/
RUN pip --python /opt/active-query/bin/python install --require-hashes --only-binary :all: -r /build/requirements.lock \
    # The libraries' tests are a third of their size and not needed.
    && find /opt/active-query/lib -type d \( -name tests -o -name test \) -prune -exec rm -r {} +
COPY LICENSE README.md openapi.yaml pyproject.toml /build/
COPY service /build/service
RUN pip install hatchling==1.33.0 \
    && pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheels /build \
    && pip --python /opt/active-query/bin/python install --no-deps --no-index /build/wheels/*.whl \
    && pip --python /opt/active-query/bin/python check

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="active-query" \
      org.opencontainers.image.description="Which samples should be labelled next? Active learning as an HTTP service." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/active-query /opt/active-query
# All data. Another user (--user) needs a volume of its own.
RUN install -d -m 0700 -o 10001 -g 10001 /data
VOLUME /data
ENV PATH=/opt/active-query/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AQ_HOST=0.0.0.0 \
    AQ_PORT=8000 \
    AQ_DATA_DIR=/data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['AQ_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# SIGTERM lets requests in progress finish for up to 30 seconds: use `docker stop -t 35`.
ENTRYPOINT ["active-query"]
CMD ["serve"]
