# Takes the credentials of this machine from standard input, as `berth secrets export NODE` writes them, and seals each with the machine's own key.
# What is not among them any more is removed; units whose credentials are others than before get them, one after the other.
if [ -t 0 ]; then
  echo 'berth-credentials: it reads what is exported elsewhere: berth secrets export NODE | ssh root@NODE berth-credentials' >&2
  exit 2
fi
umask 077
store=/etc/credstore.encrypted
mkdir -p "$store"
# In memory, where no trace of them stays.
work=$(mktemp -d /run/berth-credentials.XXXXXX)
trap 'rm -rf "$work"' EXIT
tar --extract --no-same-owner --directory "$work"

cd "$work"
names=(berth.*)
if [ ! -e "${names[0]}" ]; then
  echo 'berth-credentials: no credential came in, nothing was changed' >&2
  exit 1
fi

# `berth.gateway.tls-key.pem` is the file `tls-key.pem` of the owner `gateway`. What is sealed carries the file's name, by which the unit knows it.
owner_of() {
  local rest=${1#berth.}
  printf '%s' "${rest%%.*}"
}
file_of() {
  local rest=${1#berth.}
  printf '%s' "${rest#*.}"
}

# What is to be done for each owner: `reload` where that is enough for all that changed, else `restart`.
declare -A changed=()
note() {
  local owner file
  owner=$(owner_of "$1") file=$(file_of "$1")
  case " $RELOADED " in
    *" $file "*) changed[$owner]=${changed[$owner]:-reload} ;;
    *) changed[$owner]=restart ;;
  esac
}
for name in "${names[@]}"; do
  known=$store/$name file=$(file_of "$name")
  if [ -e "$known" ] && systemd-creds decrypt --name="$file" "$known" - 2>/dev/null | cmp --silent - "$name"; then
    continue
  fi
  systemd-creds encrypt --name="$file" "$name" "$known.next" 2>/dev/null
  mv "$known.next" "$known"
  note "$name"
done
for known in "$store"/berth.*; do
  name=${known##*/}
  if [ ! -e "$work/$name" ]; then
    rm "$known"
    note "$name"
  fi
done
sync --file-system "$store"

# What does not run yet was waiting for this.
systemctl --no-block start berth.target
for service in "${!changed[@]}"; do
  echo "new credentials for $service: ${changed[$service]}"
  systemctl list-units --plain --no-legend --state=active "$service@*.service" "$service.service" |
    while read -r unit _; do
      systemctl "${changed[$service]}" "$unit"
      if [ "${changed[$service]}" = restart ]; then sleep "$SETTLE"; fi
    done
done
