# `nix develop`: what building, testing and formatting this repository takes.
{
  mkShell,
  cargo,
  cargo-deny,
  cargo-nextest,
  clippy,
  curl,
  nats-server,
  nixfmt,
  nodejs,
  postgresql,
  rustc,
  rustfmt,
}:
mkShell {
  packages = [
    cargo
    cargo-deny
    cargo-nextest
    clippy
    curl
    nats-server
    nixfmt
    nodejs
    postgresql
    rustc
    rustfmt
  ];
}
