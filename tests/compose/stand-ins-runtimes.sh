set -euo pipefail
root=/work/h-compose
eval "$(sed -n '/^say()/,/^has()/p; /^debian()/,/^}/p; /^import()/,/^}/p' /work/h-compose/tests/compose/stand-ins.sh)"
mirror=http://deb.debian.org/debian; label='LABEL berth.stand-in=true'
work=$(mktemp -d /tmp/h-rt-si.XXXX); trap 'rm -rf "$work"' EXIT
runtime() { # TAG LINK PACKAGE...
    local tag=$1 links=$2; shift 2
    docker image inspect "$tag" >/dev/null 2>&1 && return
    debian "$work/r" dash coreutils findutils "$@"
    ln -sf dash "$work/r/bin/sh"
    for l in $links; do p=$(cd "$work/r" && ls -d ${l#*=} | head -1); ln -sf "/$p" "$work/r/usr/bin/${l%%=*}"; done
    import "$tag" "$work/r"; rm -rf "$work/r"; echo "$tag"
}
runtime eclipse-temurin:21-jre "java=usr/lib/jvm/*/bin/java" openjdk-17-jre-headless
runtime python:3.13-slim "" python3
runtime php:8.4-cli "php=usr/bin/php8*" php-cli
runtime node:24-slim "" nodejs
runtime mono:6.12-slim "" mono-runtime libmono-system-core4.0-cil
docker tag gcr.io/distroless/cc-debian12:nonroot gcr.io/distroless/cc-debian13:nonroot
runtime debian:trixie-slim "wine=usr/bin/wine-stable" wine wine64
