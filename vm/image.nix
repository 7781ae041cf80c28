# The machine's disk as a file, made by systemd-repart: no virtual machine is needed to build it, and it comes out the same bit by bit.
{
  config,
  modulesPath,
  pkgs,
  ...
}:
let
  system = config.system.build.toplevel;

  bootPartition = pkgs.runCommand "esp" { } ''
    ${pkgs.lib.getExe config.berth.machine.bootEntries} $out ${system} 1=${system}
  '';

  # The first generation, and what Nix must be told of the store that came with the image.
  profile = pkgs.runCommand "profile" { } ''
    mkdir -p $out/nix/var/nix/profiles
    ln -s ${system} $out/nix/var/nix/profiles/system-1-link
    ln -s system-1-link $out/nix/var/nix/profiles/system
    cp ${pkgs.closureInfo { rootPaths = [ system ]; }}/registration $out/nix-path-registration
  '';
in
{
  imports = [ "${modulesPath}/image/repart.nix" ];

  image.repart = {
    name = config.networking.hostName;
    seed = "b1a7e0c4-5d0e-4f8a-9d3c-6b1f2f9b8e21";
    # Without a seed of its own mke2fs draws one, and no two images are alike.
    mkfsOptions.ext4 = [
      "-E hash_seed=5e0f1c52-8a1b-4c6e-9b57-3a1d0f4c7d10,nodiscard,lazy_itable_init=1"
    ];
    partitions = {
      "10-esp" = {
        contents."/".source = bootPartition;
        repartConfig = {
          Type = "esp";
          Format = "vfat";
          Label = "esp";
          SizeMinBytes = "512M";
          SizeMaxBytes = "512M";
        };
      };
      "20-root" = {
        storePaths = [ system ];
        contents."/".source = profile;
        repartConfig = {
          Type = "root";
          Format = "ext4";
          Label = "root";
          Minimize = "guess";
        };
      };
    };
  };
}
