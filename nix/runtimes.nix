# What each runtime of a plan needs on the PATH of its services: the programs that `crates/mesh/src/runtimes` puts first on a command line.
pkgs: {
  native = [ ];
  java = [ pkgs.jre_headless ];
  python = [ pkgs.python3 ];
  php = [ pkgs.php ];
  dotnet = [ pkgs.dotnet-aspnetcore ];
  node = [ pkgs.nodejs-slim ];
  wine = [
    pkgs.bash
    pkgs.coreutils
    pkgs.wineWow64Packages.minimal
  ];
}
