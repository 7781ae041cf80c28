# Types that several options share.
{ lib }:
let
  inherit (lib) mkOption types;

  factors = {
    B = 1;
    KiB = 1024;
    MiB = 1048576;
    GiB = 1073741824;
    TiB = 1099511627776;
  };
  amount = "([0-9]+([.][0-9]+)?) *(B|KiB|MiB|GiB|TiB)";
  # `1.5` is read as JSON, since Nix has no other way to read a fraction.
  parse =
    text:
    let
      parts = builtins.match amount text;
    in
    builtins.floor (builtins.fromJSON (lib.head parts) * factors.${lib.last parts});

  credential = types.submodule {
    options = {
      name = mkOption {
        type = types.strMatching "[^/:]+";
        example = "smtp-password";
        description = "The file's name.";
      };
      optional = mkOption {
        type = types.bool;
        default = false;
        description = "Whether the service runs without it.";
      };
    };
  };
in
{
  # An amount of memory as `mesh.toml` writes it, or bytes as the plan does; always bytes when read.
  bytes = types.coercedTo (types.strMatching amount) parse types.ints.positive;

  # Files of a credentials folder; a name alone is one that must be there.
  credentials = types.listOf (types.coercedTo types.str (name: { inherit name; }) credential);
}
