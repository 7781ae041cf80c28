# A Python program, with all that lies beside mesh.toml, and what requirements.txt asks for.
#
#   docker build -f docker/runtimes/python.Dockerfile .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
ARG BASE=docker.io/library/python:3.13-slim

# --- the requirements alone, so that packages are installed anew when those change and not when the program does ---
FROM ${BASE} AS requirements
COPY . /project
RUN mkdir /requirements && find /project -maxdepth 1 -name '*.txt' -exec cp {} /requirements/ \;

FROM ${BASE} AS packages
COPY --from=requirements /requirements /requirements
RUN mkdir /packages \
    && if [ -f /requirements/requirements.txt ]; then \
        cd /requirements && python3 -m pip install --no-cache-dir --target /packages -r requirements.txt; \
    fi

FROM ${BASE}
ARG NAME=app
ARG BASE
LABEL org.opencontainers.image.title="${NAME}" \
      org.opencontainers.image.base.name="${BASE}"
RUN echo 'berth:x:65532:65532::/var/lib/berth:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/berth
COPY --from=packages /packages /packages
WORKDIR /app
ARG FILES=.
COPY --chown=65532:65532 ${FILES} ./${FILES}
ENV HOME=/var/lib/berth PYTHONPATH=/packages PATH=/packages/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 65532:65532
STOPSIGNAL SIGTERM
