#!/bin/sh
# build/hello: one static file that needs nothing of the system it runs on.
set -eu
cd "$(dirname "$0")"
mkdir -p build
cc -std=c11 -O2 -Wall -Wextra -Werror -static -o build/hello hello.c
