# The CLI with all that `berth up` starts on a developer's machine: the programs of the plan beside it, where it looks for them; runtimes,
# PostgreSQL and NATS on its PATH; curl for the tour it prints.
{
  lib,
  runCommand,
  makeWrapper,
  berthPrograms,
  postgresql,
  nats-server,
  curl,
  # The programs the plan names, as packages by their names.
  programs ? removeAttrs berthPrograms [ "berth" ],
  # What its runtimes need.
  runtimes ? [ ],
}:
runCommand "berth-${berthPrograms.berth.version}"
  {
    pname = "berth";
    inherit (berthPrograms.berth) version;
    nativeBuildInputs = [ makeWrapper ];
    meta = berthPrograms.berth.meta // {
      description = "Runs a declared mesh of services";
      mainProgram = "berth";
    };
  }
  ''
    install -Dm555 ${lib.getExe berthPrograms.berth} $out/libexec/berth
    ${lib.concatStrings (
      lib.mapAttrsToList (name: package: "ln -s ${lib.getExe' package name} $out/libexec/\n") programs
    )}
    # The commands it prints are to find the same.
    makeWrapper $out/libexec/berth $out/bin/berth --set-default BERTH_CALLED_AS $out/bin/berth --suffix PATH : ${
      lib.makeBinPath (
        [
          postgresql
          nats-server
          curl
        ]
        ++ runtimes
      )
    }
  ''
