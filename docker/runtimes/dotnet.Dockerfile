# A .NET assembly, with those beside it (`dotnet publish -o publish`).
#
#   docker build -f docker/runtimes/dotnet.Dockerfile --build-arg FILES=publish .
#
# The context is the folder of mesh.toml, for which /app stands. What is started in it, and when it is healthy, says docker-compose.yaml.
# Nothing here needs a shell, so that Microsoft's `chiseled` images will do for a base as well.
ARG BASE=mcr.microsoft.com/dotnet/aspnet:10.0
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
# Assemblies of an older .NET run on the one that is there.
ENV HOME=/var/lib/berth DOTNET_ROLL_FORWARD=Major
USER 65532:65532
STOPSIGNAL SIGTERM
