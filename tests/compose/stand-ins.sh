#!/usr/bin/env bash
# Stand-ins for the public images that docker/Dockerfile and docker/runtimes build upon, under the same tags, so that the same Dockerfiles
# and the same compose file run where no image registry can be reached.
#
#   tests/compose/stand-ins.sh [NAME...]   pulls what is missing, and makes a stand-in of what cannot be pulled
#   tests/compose/stand-ins.sh --tests     the same for the tests: where the builder cannot be pulled, it is one that compiles nothing;
#                                          prints the builder's tag, and nothing else
#   tests/compose/stand-ins.sh --missing   only names which of the first four below are missing and cannot be pulled
#   tests/compose/stand-ins.sh --remove    removes the stand-ins: the next build pulls the real images
#
# An image that the engine has under such a tag is left alone. A stand-in has the label berth.stand-in; each is made of
#
#   BUILDER    Debian bookworm with gcc, this machine's Rust and its cache of crates
#   BASE       the C library and a nonroot account, of Debian bookworm
#   POSTGRES   Debian bookworm with its PostgreSQL, which is 15 and not 17
#   NATS       this machine's nats-server, which must be linked statically
#   COMPILED   in the place of BUILDER: Debian bookworm with the programs that were built here for the tests
#   runtimes   Debian bookworm with its interpreter; those whose programs this machine has too, and no others
#
# It needs root on Debian (or a system with mmdebstrap), and a Debian mirror.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
programs=${CARGO_TARGET_DIR:-$root/target}/debug

say() { printf '\033[1mstand-ins:\033[0m %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# A program: functions below are called as some are.
has() { type -P "$1" >/dev/null; }

# tag NAME: the image that this argument of the Dockerfile names, or that the Dockerfile of this runtime begins with.
tag() {
    case $1 in
        COMPILED) echo localhost/berth-stand-in/compiled ;;
        [A-Z]*) sed -n "s/^ARG $1=//p" "$root/docker/Dockerfile" ;;
        mono) sed -n 's/^base = "\(.*\)"/\1/p' "$root/tests/compose/tests/containers/runtimes.toml" ;;
        *) sed -n 's/^ARG BASE=//p' "$root/docker/runtimes/$1.Dockerfile" ;;
    esac
}

runtimes() {
    local runtime
    echo native
    # The one that takes longest comes first.
    for runtime in wine java php node mono; do if has "$runtime"; then echo "$runtime"; fi; done
    if has python3; then echo python; fi
}

# mark NAME: what a stand-in's label says: which crates, which Rust, which programs are in it.
mark() {
    case $1 in
        BUILDER) { rustc --version && cat "$root/Cargo.lock"; } | sha256sum | cut -c 1-16 ;;
        COMPILED) built | sort | xargs -d '\n' cat | sha256sum | cut -c 1-16 ;;
        *) echo yes ;;
    esac
}

# marked NAME: that label of the image that is there; nothing for a real one.
marked() { docker image inspect --format '{{with .Config.Labels}}{{index . "berth.stand-in"}}{{end}}' "$(tag "$1")" 2>/dev/null; }

# COMPILED is nobody's but ours.
pull() { [ "$1" != COMPILED ] && timeout 600 docker pull --quiet "$(tag "$1")" >/dev/null 2>&1; }

# missing NAME...: those that the engine does not have, or of which it has a stand-in for something older, and that it cannot get.
missing() {
    local image label
    for image in "$@"; do
        if label=$(marked "$image"); then
            if [ -z "$label" ] || [ "$label" = "$(mark "$image")" ]; then continue; fi
        fi
        pull "$image" || echo "$image"
    done
}

# The builder for the tests: the real one, if it can be had. What was built here runs upon a C library that is not older.
builder() {
    local label have
    if { label=$(marked BUILDER) && [ -z "$label" ]; } || pull BUILDER; then
        echo BUILDER
        return
    fi
    have=$(getconf GNU_LIBC_VERSION)
    if [ "$(printf '%s\n' "$have" 'glibc 2.36' | sort -V | tail -n 1)" = 'glibc 2.36' ]; then echo COMPILED; else echo BUILDER; fi
}

# debian FOLDER PACKAGE...: the packages and what they need, unpacked and not set up.
debian() {
    local folder=$1
    shift
    has mmdebstrap || die "mmdebstrap is missing: apt-get install mmdebstrap"
    mmdebstrap --quiet --variant=extract --include="$(IFS=,; echo "$*")" bookworm "$folder" "$mirror"
    rm -rf "$folder"/usr/share/{doc,info,locale,man} "$folder"/var/{cache,lib}/*
    mkdir -p "$folder"/{etc,home/nonroot,tmp,root,usr/local}
    chmod 1777 "$folder/tmp"
    printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$folder/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$folder/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$folder/etc/nsswitch.conf"
    chown 65532:65532 "$folder/home/nonroot"
}

# import TAG FOLDER [CHANGE...]: the folder as an image.
import() {
    local image=$1 folder=$2 changes=() change
    shift 2
    for change in "$label" 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$@"; do changes+=(--change "$change"); done
    tar -C "$folder" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

BASE() {
    [ -d "$work/base" ] || debian "$work/base" libc6 libgcc-s1 libstdc++6
    import "$1" "$work/base" 'USER 65532'
}

# What a Dockerfile's RUN needs, too.
system() {
    [ -d "$work/system" ] && return
    debian "$work/system" postgresql gcc libc6-dev dash coreutils findutils sed grep
    # Links that the packages would make when set up.
    ln -sf dash "$work/system/bin/sh"
    ln -sf gcc "$work/system/usr/bin/cc"
    mkdir -p "$work/system/root/.cargo"
}

POSTGRES() {
    system
    import "$1" "$work/system"
}

NATS() {
    local program
    program=$(command -v nats-server) || die "nats-server is not on PATH"
    tar -C "$(dirname "$program")" -c nats-server | docker import --change "$label" --change 'ENTRYPOINT ["/nats-server"]' - "$1" >/dev/null
}

# Cargo compiles in the image as everywhere.
BUILDER() {
    local container cargo=${CARGO_HOME:-$HOME/.cargo}
    cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml" --target "$(host)"
    system
    import berth-stand-in "$work/system"
    container=$(docker create berth-stand-in true)
    tar -C "$(rustc --print sysroot)" -c bin/cargo bin/rustc lib | docker cp - "$container:/usr/local"
    tar -C "$cargo" -c registry | docker cp - "$container:/root/.cargo"
    docker commit --change "$label" --change 'ENV CARGO_HOME=/root/.cargo CARGO_NET_OFFLINE=true' "$container" "$1" >/dev/null
    docker rm "$container" >/dev/null
    docker rmi berth-stand-in >/dev/null
}

host() { rustc --version --verbose | sed -n 's/^host: //p'; }

# The programs that the tests run; the static probe apart.
built() { find "$programs" -maxdepth 1 -type f -executable; }

# Its `cargo build` hands out what was built outside. It takes all other words for granted, but for --target.
COMPILED() {
    local program
    [ -n "$(built)" ] || die "nothing is built yet: ./berth test builds what the tests run"
    debian "$work/compiled" dash coreutils findutils sed
    ln -sf dash "$work/compiled/bin/sh"
    mkdir -p "$work"/compiled/{programs,static,usr/local/bin}
    built | while IFS= read -r program; do strip -o "$work/compiled/programs/$(basename "$program")" "$program"; done
    RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p probe --target "$(host)" --target-dir "$work/static"
    cp "$work/static/$(host)/debug/probe" "$work/compiled/static"
    cat >"$work/compiled/usr/local/bin/cargo" <<'SCRIPT'
#!/bin/sh
case " $* " in
    *' --target '*) mkdir -p target/static/debug && cp /static/* target/static/debug ;;
    *) mkdir -p target/debug && cp /programs/* target/debug ;;
esac
SCRIPT
    printf '#!/bin/sh\necho host: static\n' >"$work/compiled/usr/local/bin/rustc"
    chmod +x "$work"/compiled/usr/local/bin/*
    import "$1" "$work/compiled"
}

native() { BASE "$1"; }

# runtime TAG PACKAGE...: the packages and a shell.
runtime() {
    local image=$1
    shift
    rm -rf "$work/runtime"
    debian "$work/runtime" dash coreutils findutils "$@"
    ln -sf dash "$work/runtime/bin/sh"
    # Links that the packages would make when set up.
    local program
    for program in usr/lib/jvm/*/bin/java usr/bin/php?.?; do
        program=$(cd "$work/runtime" && compgen -G "$program" | head -n 1) || continue
        ln -sf "/$program" "$work/runtime/usr/bin/$(basename "$program" | sed 's/[-0-9].*//')"
    done
    import "$image" "$work/runtime"
}

java() { runtime "$1" openjdk-17-jre-headless; }
python() { runtime "$1" python3; }
php() { runtime "$1" php-cli; }
node() { runtime "$1" nodejs; }
mono() { runtime "$1" mono-runtime libmono-system-core4.0-cil; }
# Set up by its packages' own scripts, which make libraries that Wine needs.
wine() {
    mmdebstrap --quiet --variant=minbase --include=wine,wine64 bookworm "$work/wine" "$mirror"
    import "$1" "$work/wine"
}

make() {
    local image label
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for image in $(missing "$@"); do
        say "making $(tag "$image"), which cannot be pulled"
        label="LABEL berth.stand-in=$(mark "$image")"
        "$image" "$(tag "$image")"
    done
}

remove() {
    local image
    for image in BUILDER COMPILED BASE POSTGRES NATS $(runtimes); do
        if [ -n "$(marked "$image")" ]; then docker rmi "$(tag "$image")"; fi
    done
}

# all BUILDER: everything, with this builder.
all() {
    make "$1" BASE POSTGRES NATS
    # Without the image of a runtime, its examples are left out.
    # shellcheck disable=SC2016 # the variables are the inner shell's
    runtimes | xargs --max-args 1 --max-procs 2 sh -c '"$0" "$1" || echo "there will be no image for $1" >&2' "$0"
}

case ${1-} in
    --missing) missing BUILDER BASE POSTGRES NATS ;;
    --remove) remove ;;
    --tests)
        builder=$(builder)
        all "$builder" >&2
        tag "$builder"
        ;;
    BUILDER | COMPILED | BASE | POSTGRES | NATS | native | java | python | php | node | mono | wine) make "$@" ;;
    '') all BUILDER ;;
    *) die "usage: $0 [NAME... | --tests | --missing | --remove]" ;;
esac
