# An artifact of the plan in the Nix store: `path` is what is started, `files` what goes along with it, both relative to mesh.toml. It
# keeps the path it has there.
{ lib, runCommand }:
{
  name,
  # The folder of mesh.toml.
  root,
  # The plan's `executable.artifact`.
  artifact,
}:
let
  inherit (artifact) files;
  # A folder of the flake comes without what running it left there; what was built is taken as it is.
  source =
    if lib.isDerivation root then
      "${root}/${files}"
    else
      builtins.path {
        name = "${name}-files";
        path = root + "/${files}";
        filter =
          path: _:
          !lib.elem (baseNameOf path) [
            ".berth"
            ".git"
          ];
      };
in
if files == "." then
  source
else
  runCommand "${name}-artifact" { } ''
    mkdir -p "$(dirname $out/${lib.escapeShellArg files})"
    cp -r ${source} $out/${lib.escapeShellArg files}
  ''
