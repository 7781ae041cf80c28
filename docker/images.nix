# `oci-<service>`: the image of each service, and of the three that docker-compose.yaml needs besides: `berth`, `database`, `events`.
#
# They are called as the Dockerfile's are in docker-compose.yaml and have their programs in the same places, so that either kind runs there:
# `docker load` them, then `docker-compose up --no-build`. What is in them is the program's closure, each package a layer of its own as
# far as there are layers; built twice they are the same bit by bit.
{
  lib,
  dockerTools,
  runCommand,
  callPackage,
  cacert,
  postgresql,
  nats-server,
  runtimeShell,
  berthPrograms,
  runtimes,
}:
{
  # The resolved plan.
  plan,
  # The packages it names.
  packages,
  # The folder of mesh.toml.
  artifacts,
}:
let
  # Numbers, as the Dockerfile's images have them: "nonroot" of the distroless images.
  account = "65532:65532";
  program = "/usr/bin/service";
  credentials = "/run/credentials";
  state = "/var/lib/berth";
  artifactIn = callPackage ../nix/artifact.nix { };

  # A word of a command line with each `${NAME}` replaced.
  expand =
    variables: word:
    lib.concatMapStrings (
      piece:
      if lib.isString piece then
        piece
      else if lib.head piece == null then
        "$"
      else
        variables.${lib.head piece}
        or (throw "nothing sets \${${lib.head piece}} in a command line of the plan")
    ) (builtins.split "\\$\\{([A-Za-z0-9_]+)}|\\$\\$" word);

  # Links at the paths that docker-compose.yaml names.
  tree =
    name: links:
    runCommand "${name}-root" { } (
      lib.concatStrings (
        lib.mapAttrsToList (path: target: ''
          mkdir -p "$(dirname $out${path})"
          ln -s ${target} $out${path}
        '') links
      )
    );

  image =
    {
      name,
      # As docker-compose.yaml has it: a package's is the same in every mesh, an artifact's is the mesh's own.
      repository ? "berth/${name}",
      tag ? berthPrograms.berth.version,
      description,
      version,
      licenses ? null,
      links,
      path ? [ ],
      environment ? { },
      config,
    }:
    dockerTools.buildLayeredImage {
      name = repository;
      inherit tag;
      contents = [
        (tree name links)
        # Some programs ask what their account is called.
        (dockerTools.fakeNss.override {
          extraPasswdLines = [ "berth:x:65532:65532:Berth:${state}:/sbin/nologin" ];
          extraGroupLines = [ "berth:x:65532:" ];
        })
      ];
      fakeRootCommands = ''
        # It comes from the store.
        chmod u+w var
        mkdir -p .${state} tmp
        chown ${account} .${state}
        chmod 0700 .${state}
        chmod 1777 tmp
      '';
      config = {
        User = account;
        StopSignal = "SIGTERM";
        Env = lib.mapAttrsToList (variable: value: "${variable}=${value}") (
          {
            PATH = lib.makeBinPath path;
            HOME = state;
            STATE_DIRECTORY = state;
            CREDENTIALS_DIRECTORY = credentials;
            SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
          }
          // environment
        );
        Labels = {
          "org.opencontainers.image.title" = name;
          "org.opencontainers.image.description" = description;
          "org.opencontainers.image.version" = version;
        }
        // lib.optionalAttrs (licenses != null) { "org.opencontainers.image.licenses" = licenses; };
      }
      // config;
    };

  spdx =
    package:
    let
      known = lib.filter (license: license ? spdxId) (lib.toList (package.meta.license or [ ]));
    in
    if known == [ ] then null else lib.concatMapStringsSep " AND " (license: license.spdxId) known;

  healthcheck = command: {
    Test = [ "CMD" ] ++ command;
    Interval = 5000000000;
    Timeout = 6000000000;
    StartPeriod = 60000000000;
  };

  ofService =
    service:
    let
      inherit (service) executable;
      first = lib.head service.instances;
      # Names and addresses of the mesh come from whoever runs it.
      environment = lib.filterAttrs (variable: _: !lib.hasPrefix "BERTH_" variable) first.environment;
      package = packages.${executable.package};
      files = artifactIn {
        inherit (service) name;
        inherit (executable) artifact;
        root = artifacts;
      };
      started =
        if executable ? package then
          {
            repository = "berth/${executable.package}";
            tag = berthPrograms.berth.version;
            artifact = program;
            links.${program} = lib.getExe' package executable.package;
            version = lib.getVersion package;
            licenses = spdx package;
          }
        else
          {
            repository = "${plan.name}/${service.name}";
            tag = "latest";
            artifact = "/app/${executable.artifact.path}";
            links."/app" = files;
            version = "0";
            licenses = null;
          };
      variables = first.environment // {
        ARTIFACT = started.artifact;
        CREDENTIALS_DIRECTORY = credentials;
        STATE_DIRECTORY = state;
      };
    in
    image {
      inherit (service) name;
      inherit (started)
        repository
        tag
        links
        version
        licenses
        ;
      inherit environment;
      description = "${service.name} of the mesh ${plan.name}";
      path = runtimes.${service.runtime};
      config = {
        Entrypoint = map (expand variables) service.command;
        WorkingDir = if executable ? package then "/" else "/app";
        ExposedPorts."${toString first.port}/tcp" = { };
      }
      // lib.optionalAttrs (service.protocol == "mesh") {
        Healthcheck = healthcheck [
          program
          "healthcheck"
        ];
      };
    };

  # The CLI and the probe that it hands to containers of foreign programs: beside each other as files, because it looks for it where it is itself.
  cli = runCommand "berth-and-probe" { } ''
    install -Dm555 -t $out/bin ${lib.getExe berthPrograms.berth} ${lib.getExe berthPrograms.probe}
  '';

  # Berth's own program, which prepares a server and becomes it.
  ofServer =
    name:
    {
      description,
      servers,
      berth ? lib.getExe berthPrograms.berth,
      links ? { },
      config ? { },
    }:
    image {
      inherit name description;
      inherit (berthPrograms.berth) version;
      licenses = "Apache-2.0";
      links = {
        ${program} = berth;
      }
      // links;
      path = servers;
      config = {
        Entrypoint = [ program ];
      }
      // config;
    };
in
lib.listToAttrs (map (service: lib.nameValuePair service.name (ofService service)) plan.services)
// lib.mapAttrs ofServer {
  berth = {
    description = "Makes the secrets of the mesh ${plan.name}";
    berth = "${cli}/bin/berth";
    servers = [ ];
  };
  database = {
    description = "PostgreSQL for a database of the mesh ${plan.name}";
    servers = [ postgresql ];
    # PostgreSQL's initdb starts its own programs through a shell.
    links."/bin/sh" = runtimeShell;
    config.StopSignal = "SIGINT";
  };
  events = {
    description = "The event bus of the mesh ${plan.name}";
    servers = [ nats-server ];
  };
}
