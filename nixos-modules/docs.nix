# The options as a document: `docs/nixos-options.md` is committed, and a check fails when it is another.
{ pkgs }:
let
  inherit (pkgs) lib;
  options = lib.filesystem.listFilesRecursive ./options;
  evaluated = lib.evalModules {
    modules = options;
    specialArgs = { inherit pkgs; };
  };
  root = toString ../.;
  documented = pkgs.nixosOptionsDoc {
    options = removeAttrs evaluated.options [ "_module" ];
    warningsAreErrors = true;
    transformOptions =
      option:
      option
      // {
        # Relative to the repository, so that the document is the same wherever it is made.
        declarations = map (
          file:
          let
            path = lib.removePrefix "/" (lib.removePrefix root (toString file));
          in
          {
            name = path;
            url = "../${path}";
          }
        ) option.declarations;
      };
  };
in
documented.optionsCommonMark
