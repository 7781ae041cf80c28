# One build of the workspace: the CLI and every service beside it, where `berth up` looks for them. The probe is another, `probe.nix`.
{
  lib,
  rustPlatform,
}:
let
  root = ../.;
  manifest = lib.importTOML (root + "/Cargo.toml");
in
rustPlatform.buildRustPackage {
  pname = "berth-workspace";
  inherit (manifest.workspace.package) version;

  # Only what the compiler reads: a change of a document or a NixOS module builds nothing anew.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/crates")
      (root + "/services")
      # The CLI writes these beside a declaration.
      (root + "/docker/runtimes")
      (lib.fileset.fileFilter (file: file.hasExt "rs" || file.name == "Cargo.toml") (root + "/tests"))
    ];
  };
  # Every crate by the checksum in the lock file: no hash to keep up to date beside it.
  cargoLock.lockFile = root + "/Cargo.lock";

  buildType = "dist";
  cargoBuildFlags = [
    "--workspace"
    "--exclude"
    "probe"
    "--bins"
  ];
  # The tests start PostgreSQL and NATS on loopback addresses and take longer than the build: `./berth test` runs them.
  doCheck = false;

  meta = {
    description = "The programs of Berth";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
  };
}
