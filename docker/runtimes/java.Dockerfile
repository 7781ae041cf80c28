# A Java archive that brings what it needs; for libraries beside it, `files` in mesh.toml names their folder.
#
#   docker build -f docker/runtimes/java.Dockerfile --build-arg FILES=build/app.jar .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
ARG BASE=docker.io/library/eclipse-temurin:21-jre
FROM ${BASE}
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
# Without an account, `user.home` is a question mark.
RUN echo 'berth:x:65532:65532::/var/lib/berth:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/berth
WORKDIR /app
ARG FILES=.
COPY --chown=65532:65532 ${FILES} ./${FILES}
ENV HOME=/var/lib/berth
USER 65532:65532
STOPSIGNAL SIGTERM
