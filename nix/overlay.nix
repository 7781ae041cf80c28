# What this repository adds to nixpkgs.
final: _: {
  # Every program of the workspace, from one build.
  berthWorkspace = final.callPackage ./workspace.nix { };

  # The same, a small package each: what machines and images are made of.
  berthPrograms = import ./programs.nix {
    inherit (final)
      lib
      callPackage
      runCommand
      removeReferencesTo
      berthWorkspace
      ;
  };

  # The CLI with all it starts on a developer's machine.
  berth = final.callPackage ./cli.nix { };

  # The formatter of this repository: where nixpkgs has it, the one in Rust. It writes the same, and needs no Haskell compiler where there is no cache.
  berthFormatter = final.nixfmt-rs or final.nixfmt;
}
