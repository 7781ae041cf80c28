#!/bin/sh
# build/hello.jar, with the compiler and the archiver of a JDK.
set -eu
cd "$(dirname "$0")"
mkdir -p build/classes
javac --release 17 -d build/classes Hello.java
jar --create --file build/hello.jar --main-class Hello -C build/classes .
