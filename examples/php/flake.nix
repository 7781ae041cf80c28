{
  description = "A PHP script behind the gateway of a mesh";

  # `nix registry add berth …` says where it is.
  inputs.berth.url = "flake:berth";

  outputs =
    { berth, ... }:
    berth.lib.mesh {
      plan = ./mesh.lock.json;
    };
}
