# A PHP front controller, with all that lies beside mesh.toml: the packages of Composer are in vendor/ already.
#
#   docker build -f docker/runtimes/php.Dockerfile .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
ARG BASE=docker.io/library/php:8.4-cli
FROM ${BASE}
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
RUN echo 'berth:x:65532:65532::/var/lib/berth:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/berth
WORKDIR /app
ARG FILES=.
COPY --chown=65532:65532 ${FILES} ./${FILES}
RUN if [ -f composer.lock ] && [ ! -d vendor ]; then \
        echo 'there is composer.lock and no vendor/: run `composer install --no-dev`, then build again' >&2; exit 1; \
    fi
ENV HOME=/var/lib/berth
USER 65532:65532
STOPSIGNAL SIGTERM
