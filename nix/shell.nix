# `nix develop`: what building, testing and formatting this repository takes.
{
  mkShell,
  berthFormatter,
  cargo,
  cargo-deny,
  cargo-nextest,
  clippy,
  curl,
  nats-server,
  nodejs,
  postgresql,
  rustc,
  rustfmt,
}:
mkShell {
  packages = [
    berthFormatter
    cargo
    cargo-deny
    cargo-nextest
    clippy
    curl
    nats-server
    nodejs
    postgresql
    rustc
    rustfmt
  ];
}
