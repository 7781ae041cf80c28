# The EFI system partition follows the generations: newest five, the chosen one always, nothing half-written, nothing else touched.
{ self, pkgs }:
let
  node = pkgs.lib.head (pkgs.lib.attrValues self.nixosConfigurations);
  program = pkgs.lib.getExe node.config.berth.machine.bootEntries;
in
pkgs.runCommand "boot-entries" { } ''
  generation() { mkdir -p "system-$1" && echo "$1" >"system-$1/uki.efi"; }
  for number in 1 2 3 4 5 6 7 8 9 10; do generation $number; done
  all=$(for number in 1 2 3 4 5 6 7 8 9 10; do echo $number=system-$number; done)
  entries() { ls esp/EFI/Linux | sort -V | tr '\n' ' '; }

  ${program} esp system-1 1=system-1
  [ "$(entries)" = "nixos-generation-1.efi " ]
  grep -x 'default nixos-generation-1.efi' esp/loader/loader.conf
  [ -s esp/EFI/BOOT/BOOT*.EFI ]

  # Done again nothing is written.
  find esp -exec touch -d @0 {} +
  ${program} esp system-1 1=system-1
  [ -z "$(find esp -type f -newermt @1)" ]

  # The newest five, and what is not ours stays.
  touch esp/EFI/Linux/memtest.efi
  ${program} esp system-10 $all
  [ "$(entries)" = "memtest.efi nixos-generation-6.efi nixos-generation-7.efi nixos-generation-8.efi nixos-generation-9.efi nixos-generation-10.efi " ]
  grep -x 'default nixos-generation-10.efi' esp/loader/loader.conf

  # Back to an old one: it is kept, and chosen.
  ${program} esp system-2 $all
  [ -e esp/EFI/Linux/nixos-generation-2.efi ]
  grep -x 'default nixos-generation-2.efi' esp/loader/loader.conf
  cmp system-2/uki.efi esp/EFI/Linux/nixos-generation-2.efi

  # A generation of before has no kernel image, and a system that is none of the generations is refused.
  mkdir -p foreign
  ${program} esp system-9 11=foreign $all
  [ ! -e esp/EFI/Linux/nixos-generation-11.efi ]
  if ${program} esp nowhere $all; then exit 1; fi
  touch $out
''
