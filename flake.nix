{
  description = "Berth: services, declared once, as sized NixOS machines, OCI images and supervised units";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }: import ./nix { inherit self nixpkgs; };
}
