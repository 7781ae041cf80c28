# One small package for each program of the workspace: the CLI, the probe, and each folder of `services/`.
{
  lib,
  callPackage,
  runCommand,
  berthWorkspace,
}:
let
  folders = lib.filterAttrs (_: type: type == "directory") (builtins.readDir ../services);
  program =
    name:
    runCommand "${name}-${berthWorkspace.version}"
      {
        pname = name;
        inherit (berthWorkspace) version;
        meta = berthWorkspace.meta // {
          description = "${name}, of Berth";
          mainProgram = name;
        };
      }
      ''
        install -Dm555 ${berthWorkspace}/bin/${name} $out/bin/${name}
      '';
in
lib.genAttrs ([ "berth" ] ++ lib.attrNames folders) program
// {
  probe = callPackage ./probe.nix { };
}
