# `nix run .#sizes`: how large each machine's system and image are. The closure is what `nixos-rebuild` would copy to an empty machine;
# of the image, the root file system is what it holds, the file what is taken of a disk.
{
  lib,
  writeShellApplication,
  closureInfo,
  coreutils,
  jq,
}:
machines:
let
  row =
    name: machine:
    let
      inherit (machine.config.system) build;
      disk = build.images.disk;
    in
    lib.escapeShellArgs [
      name
      "${closureInfo { rootPaths = [ build.toplevel ]; }}/total-nar-size"
      "${disk}/repart-output.json"
      "${disk}/${disk.passthru.filePath}"
    ];
in
writeShellApplication {
  name = "sizes";
  runtimeInputs = [
    coreutils
    jq
  ];
  text = ''
    mebibytes() { echo $(($1 / 1048576)); }
    row() {
      local root
      root=$(jq '.[] | select(.label == "root") | .raw_size' "$3")
      printf '%-24s %12s %12s %12s\n' "$1" "$(mebibytes "$(cat "$2")")" "$(mebibytes "$root")" \
        "$(($(stat --format '%b * %B' "$4") / 1048576))"
    }
    printf '%-24s %12s %12s %12s\n' 'machine (MiB)' closure root 'file on disk'
  ''
  + lib.concatStrings (lib.mapAttrsToList (name: machine: "row ${row name machine}\n") machines);
  meta = {
    description = "Lists how large the machines of a mesh are";
    mainProgram = "sizes";
    platforms = lib.platforms.linux;
  };
}
