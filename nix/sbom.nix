# `sbom-<service>`: what a service is made of, as CycloneDX 1.6. Which store paths it needs to run says Nix; which crates are compiled into it
# says cargo, from Cargo.lock, for this platform and without what only tests need.
{
  lib,
  stdenv,
  jq,
  cargo,
  rustc,
  rustPlatform,
  writeText,
  berthWorkspace,
}:
{
  name,
  # What the document is about.
  package,
  # The crate of the workspace it is compiled from, if it is one.
  crate ? null,
}:
let
  lock = lib.importTOML ../Cargo.lock;
  checksums = lib.listToAttrs (
    map (locked: lib.nameValuePair "${locked.name}@${locked.version}" locked.checksum) (
      lib.filter (locked: locked ? checksum) lock.package
    )
  );
in
stdenv.mkDerivation {
  name = "sbom-${name}.cdx.json";
  __structuredAttrs = true;
  exportReferencesGraph.closure = [ package ];
  nativeBuildInputs = [
    jq
  ]
  ++ lib.optionals (crate != null) [
    cargo
    rustc
    rustPlatform.cargoSetupHook
  ];
  src = if crate == null then null else berthWorkspace.src;
  dontUnpack = crate == null;
  ${if crate == null then null else "cargoDeps"} = berthWorkspace.cargoDeps;
  buildPhase = ''
    touch crates.txt
  ''
  + lib.optionalString (crate != null) ''
    cargo tree --locked --offline --package ${crate} --edges normal --target ${stdenv.hostPlatform.rust.rustcTarget} \
      --prefix none --format '{p}|{l}' | sed 's/ (\*)//' | sort -u >crates.txt
  '';
  installPhase = ''
    jq --raw-input --slurp --sort-keys \
      --arg name ${name} --arg version ${lib.getVersion package} --arg package ${package} \
      --slurpfile attributes "$NIX_ATTRS_JSON_FILE" \
      --slurpfile checksums ${writeText "checksums.json" (builtins.toJSON checksums)} \
      --from-file ${./sbom.jq} crates.txt >$out
  '';
}
