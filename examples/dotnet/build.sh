#!/bin/sh
# build/hello.dll, with the .NET SDK (8 or newer); `./build.sh mono`: with Mono's compiler, for `mono build/hello.dll`.
set -eu
cd "$(dirname "$0")"
case ${1-dotnet} in
    dotnet) dotnet build --nologo --verbosity quiet --output build hello.csproj ;;
    mono) mkdir -p build && mcs -langversion:7 -optimize -warnaserror -target:exe -out:build/hello.dll Hello.cs ;;
esac
