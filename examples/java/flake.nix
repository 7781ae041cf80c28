{
  description = "A jar behind the gateway of a mesh";

  # `nix registry add berth …` says where it is.
  inputs.berth.url = "flake:berth";

  outputs =
    { berth, ... }:
    berth.lib.mesh {
      plan = ./mesh.lock.json;
      artifacts =
        pkgs:
        pkgs.runCommand "hello" { nativeBuildInputs = [ pkgs.jdk_headless ]; } ''
          cp -r --no-preserve=mode ${./.} $out
          sh $out/build.sh
        '';
    };
}
