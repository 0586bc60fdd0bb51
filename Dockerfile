# A CPU image of the server. Build: docker build -t infer .
# Run: docker run --read-only --tmpfs /tmp -p 8001:8001 -p 8002:8002 -v ./models:/models:ro infer
# deploy/prove_dockerfile.sh runs these steps where there is no container engine.

FROM python:3.12-slim AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev libnghttp2-dev pkg-config zlib1g-dev
WORKDIR /source
COPY pyproject.toml setup.py README.md ./
COPY protos protos
COPY src src
COPY examples/models examples/models
# The environment is made where it will stand: its programs name their interpreter by its path.
RUN python3 -m venv /opt/infer \
    && /opt/infer/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/infer/bin/pip install --no-cache-dir /wheels/*.whl \
    && /opt/infer/bin/pip uninstall -y pip

FROM python:3.12-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="infer" \
      org.opencontainers.image.description="High-throughput gRPC inference server for ONNX models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libnghttp2-14 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 infer \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin infer \
    && mkdir /models
COPY --from=build /opt/infer /opt/infer
# Byte code was written when the packages were installed; at run time nothing is, so the root may be read-only.
ENV PATH=/opt/infer/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
# By number, which is what runAsNonRoot can check.
USER 1000:1000
EXPOSE 8001 8002
# Unready also while it drains; start-period is for loading.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["infer", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["infer"]
CMD ["serve", "/models"]
