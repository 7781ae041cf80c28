#!/bin/sh
# Makes `.venv`, with what the requirements pin; kept in the cache, so that it is made once.
set -eu
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth/python-consumer-$(cat requirements*.txt | sha256sum | cut -c1-16)
if [ ! -e "$cache/complete" ]; then
    rm -rf "$cache"
    mkdir -p "$(dirname "$cache")"
    python3 -m venv "$cache"
    install() { "$cache/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes "$@"; }
    install --only-binary=:all: --requirement requirements.txt
    # Built with the setuptools that is pinned, and nothing else from anywhere.
    install --no-build-isolation --requirement requirements-source.txt
    touch "$cache/complete"
fi
ln -sfn "$cache" .venv
