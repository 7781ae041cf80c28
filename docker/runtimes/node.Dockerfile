# A program for Node.js, with all that lies beside mesh.toml. What package-lock.json asks for is installed anew; without one, node_modules
# goes along as it is.
#
#   docker build -f docker/runtimes/node.Dockerfile .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
ARG BASE=docker.io/library/node:24-slim

# --- what is asked for alone, so that packages are installed anew when that changes and not when the program does ---
FROM ${BASE} AS asked
COPY . /project
RUN mkdir /asked \
    && if [ -f /project/package-lock.json ]; then cp /project/package.json /project/package-lock.json /asked/; fi

FROM ${BASE} AS packages
COPY --from=asked /asked /packages
WORKDIR /packages
RUN if [ -f package-lock.json ]; then npm ci --omit=dev --no-audit --no-fund; fi

FROM ${BASE} AS program
WORKDIR /app
ARG FILES=.
COPY ${FILES} ./${FILES}
COPY --from=packages /packages /packages
RUN if [ -d /packages/node_modules ]; then rm -rf node_modules && mv /packages/node_modules .; fi

FROM ${BASE}
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
RUN echo 'berth:x:65532:65532::/var/lib/berth:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/berth
WORKDIR /app
COPY --from=program --chown=65532:65532 /app .
ENV HOME=/var/lib/berth
USER 65532:65532
STOPSIGNAL SIGTERM
