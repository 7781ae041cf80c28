#!/bin/sh
# build/hello.exe, with the compiler for Windows that Debian calls gcc-mingw-w64-x86-64.
set -eu
cd "$(dirname "$0")"
mkdir -p build
x86_64-w64-mingw32-gcc -std=c11 -O2 -Wall -Wextra -Werror -static -o build/hello.exe hello.c -lws2_32 -lbcrypt
