# `nix flake init -t`: the examples, each a mesh of its own with a flake beside its mesh.toml.
let
  template = runtime: description: {
    path = ../examples + "/${runtime}";
    inherit description;
    welcomeText = ''
      Say once where Berth is, then start the mesh:

          nix registry add berth <its repository>
          nix run . -- up            on this machine
          nix run .#mesh-vms         as virtual machines
    '';
  };
in
rec {
  default = native;
  native = template "native" "An executable behind the gateway of a mesh";
  java = template "java" "A jar behind the gateway of a mesh";
  python = template "python" "A Python program behind the gateway of a mesh";
  php = template "php" "A PHP script behind the gateway of a mesh";
  dotnet = template "dotnet" "A .NET assembly behind the gateway of a mesh";
  node = template "node" "A Node.js program behind the gateway of a mesh";
}
