# Starts every machine of the mesh on one network of their own, which needs no privilege, and waits until the gateway answers.
# `vm/mesh-runner.nix` puts before this what the machines are.

usage() {
    cat <<TEXT
Usage: $(basename "$0") [OPTIONS]

Starts the machines of the mesh: $MACHINES. Run it in the folder of mesh.toml; Ctrl-C switches them off, a second one cuts their
power, and what they keep stays below .berth/machines.

  --port PORT      the gateway's port here [default: $GATEWAY_PORT]
  --ssh PORT       ssh of the first machine; each further one takes the next [default: 22100]
  --key FILE       the public ssh key that gets in as root [default: ~/.ssh/id_ed25519.pub]
  --patience N     give up after so many seconds [default: 600]
  --demo-users     make the demo users as well
TEXT
}

port=$GATEWAY_PORT
ssh=22100
patience=600
key=()
demo=()
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=$2; shift 2 ;;
        --ssh) ssh=$2; shift 2 ;;
        --key) key=(--key "$2"); shift 2 ;;
        --patience) patience=$2; shift 2 ;;
        --demo-users) demo=(--demo-users); shift ;;
        --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
done
if [ ! -e mesh.toml ]; then
    echo 'mesh-vms: there is no mesh.toml here; run it in the folder of the declaration' >&2
    exit 2
fi
read -ra machines <<<"$MACHINES"

berth secrets init "${demo[@]}"

umask 077
work=$(mktemp --directory "${XDG_RUNTIME_DIR:-/tmp}/berth-mesh.XXXXXX")
state=$PWD/.berth/machines
mkdir -p "$state"
declare -A runs=()

switch_off() {
    for run in "${runs[@]}"; do kill -TERM "$run" 2>/dev/null || true; done
}

# shellcheck disable=SC2329 # called by the trap
finish() {
    trap - EXIT
    # Whoever asks again has the power cut.
    trap switch_off INT TERM
    echo 'switching off'
    switch_off
    # A signal ends the waiting, not the machine.
    for run in "${runs[@]}"; do while kill -0 "$run" 2>/dev/null; do wait "$run" 2>/dev/null || true; done; done
    kill "$switch"
    rm -rf "$work"
}

# The network: a switch in memory that only this user reaches.
vde_switch --daemon --pidfile "$work/switch.pid" --sock "$work/switch" --dirmode 0700 --mode 0600 --numports $((${#machines[@]} + 1))
# It writes that as soon as it has left the foreground.
for _ in {1..50}; do
    if [ -s "$work/switch.pid" ]; then break; fi
    sleep 0.1
done
switch=$(cat "$work/switch.pid")
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
declare -A began=() ready=()
index=0
for name in "${machines[@]}"; do
    forwards=(--forward "$((ssh + index)):22")
    if [ "$name" = "$GATEWAY" ]; then forwards+=(--forward "$port:$GATEWAY_PORT"); fi
    : >"$state/$name.log"
    # In a session of its own, so that Ctrl-C reaches this program alone, which switches the machines off in order.
    setsid "vm-$name" --state "$state/$name" --switch "$work/switch" --log "$state/$name.log" "${key[@]}" "${forwards[@]}" \
        >"$state/$name.errors" 2>&1 &
    runs[$name]=$!
    began[$name]=$SECONDS
    echo "$name: starting (console: .berth/machines/$name.log, ssh -p $((ssh + index)) root@127.0.0.1)"
    index=$((index + 1))
done

fail() {
    echo "mesh-vms: $1" >&2
    exit 1
}

while [ ${#ready[@]} -lt ${#machines[@]} ]; do
    for name in "${machines[@]}"; do
        if [ -n "${ready[$name]-}" ]; then continue; fi
        if ! kill -0 "${runs[$name]}" 2>/dev/null; then
            tail -n 20 "$state/$name.errors" "$state/$name.log" >&2
            fail "$name ended before it was up"
        fi
        if grep -q 'Reached target.*Multi-User' "$state/$name.log"; then
            ready[$name]=yes
            echo "$name: up after $((SECONDS - began[$name])) s"
        fi
    done
    if [ "$SECONDS" -gt "$patience" ]; then fail "not every machine was up after $patience s; see .berth/machines/*.log"; fi
    sleep 0.5
done

# Its names and tokens say the port it has there, whatever it is here.
url=https://$GATEWAY_HOST:$GATEWAY_PORT
here=$GATEWAY_HOST:$GATEWAY_PORT:127.0.0.1:$port
until curl --silent --output /dev/null --max-time 5 --cacert .berth/ca.pem --connect-to "$here" "$url/"; do
    if [ "$SECONDS" -gt "$patience" ]; then fail "the gateway did not answer after $patience s; see .berth/machines/$GATEWAY.log"; fi
    sleep 0.5
done

cat <<TEXT
The mesh is up after $SECONDS s. Its gateway is $url, from here through 127.0.0.1:$port:

  curl --cacert .berth/ca.pem --connect-to $here $url/

Ctrl-C switches the machines off.
TEXT
wait "${runs[@]}"
