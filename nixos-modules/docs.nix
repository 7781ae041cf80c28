# The options as a document: `docs/nixos-options.md` is committed, and a check fails when it is another.
{ pkgs }:
let
  inherit (pkgs) lib;
  root = toString ../.;
  evaluated = lib.evalModules {
    modules = lib.filesystem.listFilesRecursive ./options;
    specialArgs = { inherit pkgs; };
  };
  documented = pkgs.nixosOptionsDoc { options = removeAttrs evaluated.options [ "_module" ]; };

  # Names of options and files stand in roles of NixOS's own manual, which nobody reads elsewhere.
  prose =
    text:
    lib.concatStrings (
      map (part: if lib.isList part then "" else part) (builtins.split "[{](option|file)[}]" text)
    );
  value =
    shown:
    if shown._type or null == "literalMD" then
      " ${prose shown.text}"
    else
      fenced (shown.text or (toString shown));
  fenced = text: if lib.hasInfix "\n" text then "\n\n```nix\n${text}\n```\n" else " `${text}`";
  line =
    name: option: attribute:
    lib.optionalString (option ? ${attribute}) "- ${name}:${value option.${attribute}}\n";
  file = option: lib.removePrefix "${root}/" (toString (lib.head option.declarations));

  section = name: option: ''
    ## `${name}`

    ${lib.trim (prose (option.description.text or option.description))}

    - type: ${option.type}
    ${line "default" option "default"}${
      line "example" option "example"
    }${lib.optionalString option.readOnly "- read only\n"}- declared in [`${file option}`](../${file option})
  '';
in
pkgs.writeText "nixos-options.md" ''
  # The NixOS options

  Written from `nixos-modules/options/`; a check fails when it has drifted. How the machines are meant to be used: [operating a mesh](operations.md).

  ${lib.concatStringsSep "\n" (lib.mapAttrsToList section documented.optionsNix)}''
