# Starts one machine under QEMU; `vm/runner.nix` puts before this what the machine is.

usage() {
    cat <<TEXT
Usage: $(basename "$0") [OPTIONS] [-- QEMU ARGUMENTS]

Starts the machine $NAME: $CPUS cores, $MEMORY MiB of memory, a disk of $DISK bytes. Ctrl-A X ends it.

  --state DIR         where its disk is kept [default: .berth/machines/$NAME]
  --credentials DIR   its secrets, as \`berth secrets export $NAME --to DIR --smbios\` writes them
                      [default: exported from the mesh in this folder, if there is one]
  --key FILE          the public ssh key that gets in as root [default: ~/.ssh/id_ed25519.pub]
  --switch DIR        the VDE switch that is the mesh's network [default: none]
  --tap NAME          the tap device that is its interface on the mesh's network [default: none]
  --forward [ADDRESS:]PORT:PORT
                      a port here, and the machine's port it leads to; may be repeated [default: none; of 127.0.0.1]
  --log FILE          write the serial console there, instead of being one; - is standard output
TEXT
}

forward() {
    local from=${1%:*}
    case $from in *:*) ;; *) from=127.0.0.1:$from ;; esac
    forwards+=",hostfwd=tcp:$from-:${1##*:}"
}

state=.berth/machines/$NAME
credentials=
key=${HOME:-/nowhere}/.ssh/id_ed25519.pub
mesh_network=()
forwards=
console=(-nographic)
while [ $# -gt 0 ]; do
    case $1 in
        --state) state=$2; shift 2 ;;
        --credentials) credentials=$2; shift 2 ;;
        --key) key=$2; shift 2 ;;
        --switch) mesh_network=(-netdev "vde,id=mesh,sock=$2"); shift 2 ;;
        --tap) mesh_network=(-netdev "tap,id=mesh,ifname=$2,script=no,downscript=no"); shift 2 ;;
        --forward) forward "$2"; shift 2 ;;
        --log) if [ "$2" = - ]; then console=(-display none -monitor none -serial stdio); else console=(-display none -monitor none -serial "file:$2"); fi; shift 2 ;;
        --help) usage; exit ;;
        --) shift; break ;;
        *) usage >&2; exit 2 ;;
    esac
done

umask 077
mkdir -p "$state"

# One copy of the machine at a time: two would destroy the disk.
exec {lock}>"$state/lock"
if ! flock --nonblock "$lock"; then
    echo "$NAME runs already, from $state" >&2
    exit 1
fi

# In memory where there is a place for it, and gone when the machine is.
work=$(mktemp --directory "${XDG_RUNTIME_DIR:-/tmp}/berth-$NAME.XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ -z "$credentials" ] && [ -e mesh.toml ]; then
    credentials=$work/credentials
    berth secrets export "$NAME" --to "$credentials" --smbios
fi
secrets=()
if [ -n "$credentials" ]; then
    for file in "$credentials"/*; do
        if [ -f "$file" ]; then secrets+=(-smbios "type=11,path=$file"); fi
    done
    if [ ${#secrets[@]} = 0 ]; then
        echo "$NAME: there is no credential in $credentials" >&2
        exit 1
    fi
fi
if [ -e "$key" ]; then
    printf 'io.systemd.credential.binary:ssh.authorized_keys.root=%s' "$(base64 --wrap=0 "$key")" >"$work/key"
    secrets+=(-smbios "type=11,path=$work/key")
fi

# The image stays as it is; what the machine changes is kept beside.
if [ ! -e "$state/disk.qcow2" ]; then
    qemu-img create -q -f qcow2 -F raw -b "$IMAGE" "$state/disk.qcow2.next" "$DISK"
    mv "$state/disk.qcow2.next" "$state/disk.qcow2"
fi
if [ ! -e "$state/firmware" ]; then
    install -m 0600 "$FIRMWARE_VARIABLES" "$state/firmware"
fi
if [ ${#mesh_network[@]} -gt 0 ]; then
    mesh_network+=(-device "virtio-net-pci,netdev=mesh,mac=$MAC")
fi

# Asked to end, the machine is switched off as by its button; asked twice, its power is cut.
# shellcheck disable=SC2329 # called by the trap
power_down() {
    if [ -n "$asked" ]; then
        kill "$machine"
        return
    fi
    asked=yes
    printf 'system_powerdown\n' | socat - "UNIX-CONNECT:$work/monitor" >/dev/null 2>&1 || kill "$machine"
}

"$QEMU" \
    -name "$NAME" -machine "$MACHINE,accel=kvm:tcg" -cpu max -smp "$CPUS" -m "$MEMORY" \
    -drive "if=pflash,format=raw,unit=0,readonly=on,file=$FIRMWARE" \
    -drive "if=pflash,format=raw,unit=1,file=$state/firmware" \
    -drive "if=none,id=disk,format=qcow2,cache=writeback,discard=unmap,file=$state/disk.qcow2" \
    -device virtio-blk-pci,drive=disk,bootindex=1 \
    -device virtio-rng-pci \
    "${mesh_network[@]}" \
    -netdev "user,id=uplink$forwards" -device virtio-net-pci,netdev=uplink \
    "${secrets[@]}" \
    -chardev "socket,id=monitor,path=$work/monitor,server=on,wait=off" -mon chardev=monitor \
    "${console[@]}" "$@" <&0 {lock}>&- &
machine=$!
asked=
trap power_down TERM INT
until wait "$machine"; do
    # A signal ends the waiting, not the machine.
    if ! kill -0 "$machine" 2>/dev/null; then exit 1; fi
done
