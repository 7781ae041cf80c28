# The `berth.*` options: how a NixOS machine runs its part of a mesh. What can be set stands in `options/`, what comes of it in the file
# of the same name here, one concern a file. Disks, boot loaders and networks are not here but in `vm/`.
{
  imports = [
    ./options/plan.nix
    ./options/services.nix
    ./options/gateway.nix
    ./options/databases.nix
    ./options/events.nix
    ./options/credentials.nix
    ./options/network.nix
    ./options/observability.nix

    ./plan.nix
    ./services.nix
    ./gateway.nix
    ./databases.nix
    ./events.nix
    ./credentials.nix
    ./network.nix
    ./observability.nix
  ];
}
