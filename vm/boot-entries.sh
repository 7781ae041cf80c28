# boot-entries ESP DEFAULT NUMBER=SYSTEM...
#
# Makes the EFI system partition mounted at ESP agree with the generations: systemd-boot, one kernel image for each of the newest five
# and for DEFAULT, the system that is started when nobody chooses. What was written already is left alone.

esp=$1
default=$2
shift 2
kept=5

images=$esp/EFI/Linux
mkdir -p "$images" "$esp/EFI/BOOT" "$esp/loader"

# put FROM TO: as a whole or not at all, whenever the power goes.
put() {
    if cmp -s "$1" "$2"; then return; fi
    cp --no-preserve=all "$1" "$2.next"
    sync "$2.next"
    mv "$2.next" "$2"
}

# Newest first. A generation of before the machine was one of ours has no kernel image.
declare -A wanted=()
chosen=
count=0
while IFS='=' read -r number system; do
    if [ ! -e "$system/uki.efi" ]; then continue; fi
    count=$((count + 1))
    if [ "$system" = "$default" ] && [ -z "$chosen" ]; then
        chosen=nixos-generation-$number.efi
    elif [ "$count" -gt "$kept" ]; then
        continue
    fi
    wanted[nixos-generation-$number.efi]=$system/uki.efi
done < <(printf '%s\n' "$@" | sort -t = -k 1,1 -n -r)

if [ -z "$chosen" ]; then
    echo "boot-entries: $default is none of the generations: $*" >&2
    exit 1
fi

# Room first, for what is to come.
for file in "$images"/nixos-generation-*; do
    if [ -e "$file" ] && [ -z "${wanted[$(basename "$file")]-}" ]; then rm "$file"; fi
done
for name in "${!wanted[@]}"; do
    put "${wanted[$name]}" "$images/$name"
done

put "$LOADER" "$esp/EFI/BOOT/$LOADER_NAME"
settings=$(mktemp)
printf 'default %s\ntimeout %s\neditor no\n' "$chosen" "$TIMEOUT" >"$settings"
put "$settings" "$esp/loader/loader.conf"
rm "$settings"
