# The CLI with all that `berth up` starts: the services beside it, PostgreSQL and NATS on its PATH, curl for the tour it prints.
{
  lib,
  runCommand,
  makeWrapper,
  berthWorkspace,
  postgresql,
  nats-server,
  curl,
  # What else it starts: runtimes, and programs of a mesh that are not of this workspace.
  programs ? [ ],
}:
runCommand "berth-${berthWorkspace.version}"
  {
    pname = "berth";
    inherit (berthWorkspace) version;
    nativeBuildInputs = [ makeWrapper ];
    meta = berthWorkspace.meta // {
      description = "Runs a declared mesh of services";
      mainProgram = "berth";
    };
  }
  ''
    makeWrapper ${berthWorkspace}/bin/berth $out/bin/berth --suffix PATH : ${
      lib.makeBinPath (
        [
          postgresql
          nats-server
          curl
        ]
        ++ programs
      )
    }
  ''
