# The probe, a build of its own because it is static: it runs in images that may have no library at all.
{
  lib,
  stdenv,
  rustPlatform,
  berthWorkspace,
}:
rustPlatform.buildRustPackage {
  pname = "probe";
  inherit (berthWorkspace) version src;
  cargoLock.lockFile = ../Cargo.lock;

  buildType = "dist";
  cargoBuildFlags = [
    "--package"
    "probe"
  ];
  env.RUSTFLAGS = "-C target-feature=+crt-static";
  buildInputs = [ (lib.getStatic stdenv.cc.libc) ];
  doCheck = false;

  meta = berthWorkspace.meta // {
    description = "Asks a program of a mesh whether it serves";
    mainProgram = "probe";
  };
}
