# `nixosModules`: `default` is everything a machine needs to run its part of a mesh; each concern of it can be had alone, with the options of all.
# `machine` is what it runs on, `perlless` makes that smaller, `host` runs such machines.
{ lib }:
let
  folder = ../nixos-modules;
  options = map (name: folder + "/options/${name}") (
    lib.attrNames (builtins.readDir (folder + "/options"))
  );
  concern = name: { imports = options ++ [ (folder + "/${name}.nix") ]; };
in
{
  default = folder;
  machine = ../vm/node.nix;
  perlless = ../vm/perlless.nix;
  host = ../vm/host.nix;
}
// lib.genAttrs [
  "services"
  "gateway"
  "databases"
  "events"
  "credentials"
  "network"
  "observability"
] concern
