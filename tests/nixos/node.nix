# A node of a plan, without the machine around it: what evaluation tests and test machines have in common.
{ self }:
{
  plan ? ../../mesh.lock.json,
  name,
  addresses ? { },
}:
{ pkgs, ... }:
{
  imports = [ self.nixosModules.default ];
  berth = {
    inherit plan addresses;
    node = name;
    packages = pkgs.berthPrograms;
    artifacts = dirOf plan;
  };
  system.stateVersion = "26.05";
}
