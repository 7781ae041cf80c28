# A machine without Perl: /etc is a read-only image laid under what the machine adds, and accounts are made by userborn. Import it beside
# the rest: `modules = [ berth.nixosModules.perlless ]`. The build fails should anything bring Perl back.
{ modulesPath, ... }:
{
  imports = [ "${modulesPath}/profiles/perlless.nix" ];
}
