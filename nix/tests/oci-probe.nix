# The image `berth` has the probe beside its program, where that looks for it, and the probe needs no library.
{ self, pkgs }:
let
  image = self.packages.${pkgs.stdenv.hostPlatform.system}.oci-berth;
in
pkgs.runCommand "oci-probe" { nativeBuildInputs = [ pkgs.file ]; } ''
  mkdir image root
  tar -xf ${image} -C image
  for layer in image/*/layer.tar; do tar -xf $layer -C root; done
  program=root/usr/bin/service
  while [ -L $program ]; do program=root$(readlink $program); done
  [ -x $program ]
  file $(dirname $program)/probe | tee $out
  grep -E 'static(ally|-pie) linked' $out
''
