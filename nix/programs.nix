# One small package for each program of the workspace: the CLI, the probe, and each folder of `services/`.
{
  lib,
  callPackage,
  runCommand,
  removeReferencesTo,
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
        nativeBuildInputs = [ removeReferencesTo ];
        # Else each had all the others in its closure.
        disallowedReferences = [ berthWorkspace ];
        meta = berthWorkspace.meta // {
          description = "${name}, of Berth";
          mainProgram = name;
        };
      }
      ''
        install -D ${berthWorkspace}/bin/${name} $out/bin/${name}
        remove-references-to -t ${berthWorkspace} $out/bin/${name}
      '';
in
lib.genAttrs ([ "berth" ] ++ lib.attrNames folders) program
// {
  probe = callPackage ./probe.nix { };
}
