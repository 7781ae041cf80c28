#!/bin/sh
# Makes `.venv`, with what `requirements.txt` pins; kept in the cache, so that it is made once.
set -eu
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth/python-consumer-$(sha256sum requirements.txt | cut -c1-16)
if [ ! -e "$cache/complete" ]; then
    rm -rf "$cache"
    mkdir -p "$(dirname "$cache")"
    python3 -m venv "$cache"
    "$cache/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --requirement requirements.txt
    touch "$cache/complete"
fi
ln -sfn "$cache" .venv
