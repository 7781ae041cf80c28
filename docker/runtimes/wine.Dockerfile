# A Windows executable, by Wine. Nobody publishes an image with Wine, so it is installed here, unless the base has it already.
#
#   docker build -f docker/runtimes/wine.Dockerfile --build-arg FILES=build/app.exe .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
ARG BASE=docker.io/library/debian:trixie-slim
FROM ${BASE}
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
RUN if ! command -v wine >/dev/null; then \
        apt-get update && apt-get install -y --no-install-recommends wine wine64 && rm -rf /var/lib/apt/lists/*; \
    fi
# Each copy keeps a Windows of its own in its home.
RUN echo 'berth:x:65532:65532::/var/lib/berth:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/berth
WORKDIR /app
ARG FILES=.
COPY --chown=65532:65532 ${FILES} ./${FILES}
ENV HOME=/var/lib/berth
USER 65532:65532
STOPSIGNAL SIGTERM
