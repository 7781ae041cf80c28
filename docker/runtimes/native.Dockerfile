# An executable that starts by itself. The base has the usual libraries (C, C++, TLS) and certificates, and no shell.
#
#   docker build -f docker/runtimes/native.Dockerfile --build-arg FILES=build/app .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
# An executable linked against a newer C library than the base has needs another one: `base` in mesh.toml.
ARG BASE=gcr.io/distroless/cc-debian13:nonroot
FROM ${BASE} AS base

FROM base
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
# An empty folder, without a program to make one.
COPY --from=base --chown=65532:65532 /tmp /var/lib/berth
WORKDIR /app
ARG FILES=.
COPY --chown=65532:65532 ${FILES} ./${FILES}
ENV HOME=/var/lib/berth
USER 65532:65532
STOPSIGNAL SIGTERM
