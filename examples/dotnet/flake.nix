{
  description = "A .NET assembly behind the gateway of a mesh";

  # `nix registry add berth …` says where it is.
  inputs.berth.url = "flake:berth";

  outputs =
    { berth, ... }:
    berth.lib.mesh {
      plan = ./mesh.lock.json;
      artifacts =
        pkgs:
        let
          hello = pkgs.buildDotnetModule {
            pname = "hello";
            version = "0";
            src = ./.;
            projectFile = "hello.csproj";
          };
        in
        pkgs.runCommand "hello" { } "mkdir $out && cp -r ${hello}/lib/hello $out/build";
    };
}
