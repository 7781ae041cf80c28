# What units, limits, credentials and openings a plan gives: asked of the evaluated configuration, so that nothing is built or started.
{ pkgs, self }:
let
  inherit (pkgs) lib;
  inherit (self.inputs.nixpkgs.lib) nixosSystem;
  node = import ./node.nix { inherit self; };
  plan = lib.importJSON ../../mesh.lock.json;

  base = {
    nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
    nixpkgs.overlays = [ self.overlays.default ];
    fileSystems."/" = {
      device = "none";
      fsType = "tmpfs";
    };
    boot.loader.grub.enable = false;
    system.stateVersion = "26.05";
  };
  system = modules: (nixosSystem { modules = [ base ] ++ modules; }).config;
  addresses = lib.listToAttrs (
    lib.imap1 (index: node: lib.nameValuePair node.name "10.0.0.${toString index}") plan.nodes
  );
  machine = name: modules: system ([ (node { inherit name addresses; }) ] ++ modules);
  machines = lib.genAttrs (map (node: node.name) plan.nodes) (name: machine name [ ]);
  # Without a plan, as somebody who has one program on one machine.
  alone =
    services:
    system [
      self.nixosModules.default
      {
        berth = {
          inherit services;
          credentials.source = "files";
        };
      }
    ];

  # The whole shop on one machine.
  one =
    let
      together = thing: thing // { node = "one"; };
      joined = plan // {
        nodes = [ (lib.head plan.nodes // { name = "one"; }) ];
        databases = map together plan.databases;
        events = together plan.events;
        services = map (service: service // { instances = map together service.instances; }) plan.services;
      };
    in
    system [
      (node {
        name = "one";
        plan = builtins.toFile "plan.json" (builtins.toJSON joined);
      })
    ];

  unit = config: name: config.systemd.services.${name};
  settings = config: name: (unit config name).serviceConfig;
  broken =
    config:
    map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);
  ofMesh =
    config:
    lib.filterAttrs (
      _: unit: unit.serviceConfig.Slice or null == "berth.slice"
    ) config.systemd.services;
  everywhere = test: lib.concatLists (lib.mapAttrsToList test machines);

  # Everything in the plan that becomes a unit, with the machine it is on and the name of the unit.
  sized =
    lib.concatMap (
      service:
      map (instance: {
        inherit (instance) node;
        unit = "${service.name}@";
        of = service;
      }) service.instances
    ) plan.services
    ++ map (database: {
      inherit (database) node;
      unit = database.name;
      of = database;
    }) plan.databases
    ++ [
      {
        inherit (plan.events) node;
        unit = plan.events.server;
        of = plan.events;
      }
    ];

  check =
    name: tests:
    let
      failures = lib.debug.runTests tests;
    in
    pkgs.runCommand "eval-${name}" { } (
      if failures == [ ] then
        "touch $out"
      else
        throw "eval-${name}: ${
          lib.concatMapStringsSep "\n" (
            failure:
            "${failure.name}: expected ${lib.generators.toPretty { } failure.expected}, got ${
              lib.generators.toPretty { } failure.result
            }"
          ) failures
        }"
    );
in
{
  eval-units = check "units" {
    testEachNodeRunsItsPartAlone = {
      expr = lib.mapAttrs (_: config: lib.attrNames (ofMesh config)) machines;
      expected = {
        edge = [
          "gateway@"
          "identity@"
        ];
        items-1 = [ "item-management@" ];
        items-2 = [ "item-management@" ];
        documents-1 = [ "eshop-documents@" ];
        documents-2 = [ "eshop-documents@" ];
        office = [
          "audit@"
          "notifier@"
        ];
        data = [
          "audit-db"
          "eshop-documents-db"
          "identity-db"
          "item-management-db"
          "nats"
          "notifier-db"
        ];
      };
    };
    testTargetsWantWhatIsStarted = {
      expr = machines.items-2.systemd.targets.item-management.wants;
      expected = [ "item-management@2.service" ];
    };
    testCopiesUpToTheMaximumNeedNoNewConfiguration = {
      expr = (unit machines.items-2 "item-management@4").environment.BERTH_LISTEN;
      expected = "0.0.0.0:8201";
    };
    testOursSayWhenTheyAreReadyAndAreWatched = {
      expr = {
        inherit (settings machines.edge "identity@")
          Type
          WatchdogSec
          TimeoutStopSec
          KillMode
          ;
      };
      expected = {
        Type = "notify-reload";
        WatchdogSec = "10000ms";
        TimeoutStopSec = "30000ms";
        KillMode = "mixed";
      };
    };
    testNothingGivesUpForGood = {
      expr = everywhere (
        _: config:
        lib.mapAttrsToList (_: unit: [
          unit.startLimitIntervalSec
          unit.serviceConfig.RestartSteps
          unit.serviceConfig.RestartMaxDelaySec
        ]) (ofMesh config)
      );
      expected = lib.genList (_: [
        0
        8
        "10s"
      ]) 14;
    };
    testThePublicSocketOutlivesTheGateway = {
      expr = {
        inherit (machines.edge.systemd.sockets.gateway) listenStreams;
        inherit (unit machines.edge "gateway@") notSocketActivated;
        inherit (settings machines.edge "gateway@") Sockets;
      };
      expected = {
        listenStreams = [ "0.0.0.0:8443" ];
        notSocketActivated = true;
        Sockets = "gateway.socket";
      };
    };
    testAPlanThatChangesReloadsTheGatewayAndRestartsNothing = {
      expr = [
        (unit machines.edge "gateway@").reloadTriggers
        (unit machines.edge "gateway@").restartTriggers
        (unit machines.edge "gateway@").restartIfChanged
      ];
      expected = [
        [ ../../mesh.lock.json ]
        [ ]
        false
      ];
    };
    testAChangeOfOnePartConcernsThatPart = {
      # Another replica of item-management is no reason to restart a database.
      expr =
        let
          changed = builtins.toFile "plan.json" (
            builtins.toJSON (
              plan
              // {
                services = map (service: service // { memory_bytes = service.memory_bytes * 2; }) plan.services;
              }
            )
          );
          after = system [
            (node {
              name = "data";
              plan = changed;
              inherit addresses;
            })
          ];
        in
        map (name: (unit after name).restartTriggers == (unit machines.data name).restartTriggers) [
          "nats"
          "item-management-db"
        ];
      expected = [
        true
        true
      ];
    };
    testWhatIsSetOfAnInstanceLeavesTheRest = {
      expr =
        let
          config = machine "items-2" [
            {
              berth.services.item-management.instances = {
                "2".start = false;
                "4".start = true;
              };
            }
          ];
          environmentOf = config: (unit config "item-management@4").environment;
        in
        [
          config.systemd.targets.item-management.wants
          (environmentOf config == environmentOf machines.items-2)
        ];
      expected = [
        [ "item-management@4.service" ]
        true
      ];
    };
    testAMachineIsUpWhenItsServicesAre = {
      expr = machines.items-2.systemd.targets.item-management.before;
      expected = [ "berth.target" ];
    };
    testServersAreOrderedByReadiness = {
      expr = (unit one "eshop-documents@").after;
      expected = [
        "network.target"
        "eshop-documents-db.service"
        "nats.service"
        "item-management@1.service"
        "item-management@2.service"
      ];
    };
  };

  eval-limits = check "limits" {
    testSizesAreThoseOfThePlan = {
      expr = map (
        { node, unit, ... }:
        lib.getAttrs [ "MemoryMax" "MemorySwapMax" "CPUQuota" ] (settings machines.${node} unit)
      ) sized;
      expected = map (
        { of, ... }:
        {
          MemoryMax = of.memory_bytes;
          MemorySwapMax = 0;
          CPUQuota = "${toString (of.cpu_millis / 10)}%";
        }
      ) sized;
    };
    testThereIsRoomBetweenSlowedAndKilled = {
      expr = lib.all (
        {
          node,
          unit,
          of,
        }:
        (settings machines.${node} unit).MemoryHigh < of.memory_bytes
      ) sized;
      expected = true;
    };
    testAmountsAreReadAsTheDeclarationWritesThem = {
      expr =
        map
          (
            memory:
            (settings (alone {
              a = {
                package = pkgs.hello;
                inherit memory;
              };
            }) "a@").MemoryMax
          )
          [
            "1.5GiB"
            "7.5GiB"
            "128MiB"
            4096
          ];
      expected = [
        1610612736
        8053063680
        134217728
        4096
      ];
    };
    testASmallShareOfACoreIsNotNothing = {
      expr =
        (settings (alone {
          a = {
            package = pkgs.hello;
            cpu = 0.005;
          };
        }) "a@").CPUQuota;
      expected = "1%";
    };
    testADatabaseOutlivesABackendThatIsKilled = {
      expr = lib.getAttrs [ "OOMPolicy" "OOMScoreAdjust" ] (settings machines.data "identity-db");
      expected = {
        OOMPolicy = "continue";
        OOMScoreAdjust = -900;
      };
    };
  };

  # As somebody writes it whose packages know nothing of this repository.
  eval-host = check "host" {
    testItRunsAMachineInItsSizeAndHandsItItsSecrets = {
      expr =
        let
          config =
            (nixosSystem {
              modules = [
                (removeAttrs base [ "nixpkgs" ])
                self.nixosModules.host
                {
                  nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
                  berth.host.machines = { inherit (self.nixosConfigurations) edge; };
                }
              ];
            }).config;
          unit = settings config "berth-machine-edge";
        in
        [
          (broken config)
          unit.MemoryMax
          unit.CPUQuota
          unit.LoadCredential
          (lib.hasInfix "--credentials %d" (toString unit.ExecStart))
        ];
      expected =
        let
          edge = lib.findFirst (node: node.name == "edge") null plan.nodes;
        in
        [
          [ ]
          (edge.memory_bytes + 256 * 1024 * 1024)
          "${toString (edge.cpu_millis / 10)}%"
          "machine:/var/lib/berth-credentials/edge"
          true
        ];
    };
  };

  eval-credentials = check "credentials" {
    testEachUnitGetsItsOwnAndNoOthers = {
      expr = map ({ node, unit, ... }: (settings machines.${node} unit).LoadCredentialEncrypted) sized;
      expected = map (
        { unit, of, ... }:
        map ({ name, ... }: "${name}:berth.${lib.removeSuffix "@" unit}.${name}") of.credentials
      ) sized;
    };
    testWhoeverKeepsThemOtherwiseHasNothingEncrypted = {
      expr =
        map
          (
            source:
            let
              config = machine "items-1" [ { berth.credentials = { inherit source; }; } ];
            in
            [
              (lib.head (settings config "item-management@").LoadCredential)
              ((settings config "item-management@") ? LoadCredentialEncrypted)
              (lib.any (package: package.name == "berth-credentials") config.environment.systemPackages)
            ]
          )
          [
            "files"
            "host"
          ];
      expected = lib.genList (_: [
        "tls-cert.pem:berth.item-management.tls-cert.pem"
        false
        false
      ]) 2;
    };
    testNothingSecretIsInAnEnvironment = {
      # Only names and addresses: an environment that grows shows up here.
      expr = lib.unique (
        lib.sort lib.lessThan (
          everywhere (
            _: config:
            lib.concatMap (unit: lib.attrNames unit.environment) (
              lib.attrValues (
                lib.filterAttrs (
                  name: _: lib.any (of: lib.hasPrefix of name) (lib.attrNames (ofMesh config))
                ) config.systemd.services
              )
            )
          )
        )
      );
      expected = [
        "BERTH_AUDIENCE"
        "BERTH_CONSUMES"
        "BERTH_DATABASE_SERVER"
        "BERTH_DATABASE_URL"
        "BERTH_DOMAIN"
        "BERTH_EVENTS_URL"
        "BERTH_INSTANCE"
        "BERTH_LISTEN"
        "BERTH_PEER_AUDIT"
        "BERTH_PEER_ITEM_MANAGEMENT"
        "BERTH_PLAN"
        "BERTH_PUBLIC_LISTEN"
        "BERTH_PUBLIC_URL"
        "BERTH_SERVICE"
        "GOMEMLIMIT"
        "PATH"
        "PG_OOM_ADJUST_FILE"
        "PG_OOM_ADJUST_VALUE"
      ];
    };
  };

  eval-firewall = check "firewall" {
    testOnlyThosePortsAreOpenToEverybody = {
      expr = lib.mapAttrs (_: config: config.networking.firewall.allowedTCPPorts) machines;
      expected = lib.mapAttrs (name: _: lib.optional (name == "edge") 8443) machines;
    };
    testEachPortIsOpenToWhoMustReachIt = {
      expr = lib.mapAttrs (
        _: config:
        lib.listToAttrs (
          map (
            opening: lib.nameValuePair (toString opening.port) opening.nodes
          ) config.berth.firewall.openings
        )
      ) machines;
      expected =
        let
          items = [
            "edge"
            "documents-1"
            "documents-2"
          ];
        in
        {
          edge = {
            "8443" = null;
            "8080" = [ ];
            "8100" = [ ];
          };
          items-1 = {
            "8200" = items;
            "8201" = items;
          };
          items-2 = {
            "8200" = items;
            "8201" = items;
          };
          documents-1 = {
            "8300" = [ "edge" ];
            "8301" = [ "edge" ];
          };
          documents-2 = {
            "8300" = [ "edge" ];
            "8301" = [ "edge" ];
          };
          office = {
            "8400" = [ "edge" ];
            "8401" = [ "edge" ];
            "8500" = [ "edge" ];
            "8501" = [ "edge" ];
          };
          data = {
            "5432" = [ "edge" ];
            "5433" = [
              "items-1"
              "items-2"
            ];
            "5434" = [
              "documents-1"
              "documents-2"
            ];
            "5435" = [ "office" ];
            "5436" = [ "office" ];
            "4222" = [
              "items-1"
              "items-2"
              "documents-1"
              "documents-2"
              "office"
            ];
          };
        };
    };
    testTheRulesNameTheirAddresses = {
      expr = lib.all (line: lib.hasInfix line machines.data.networking.firewall.extraCommands) [
        "iptables -A nixos-fw -p tcp -s 10.0.0.1 --dport 5432 -j nixos-fw-accept"
        "iptables -A nixos-fw -p tcp -s 10.0.0.3 --dport 4222 -j nixos-fw-accept"
      ];
      expected = true;
    };
    testTheSameWithNftables = {
      expr = lib.hasInfix "ip saddr 10.0.0.1 tcp dport 5432 accept" (
        (machine "data" [ { networking.nftables.enable = true; } ]).networking.firewall.extraInputRules
      );
      expected = true;
    };
    testMonitorsReachMetricsAndNothingElse = {
      expr =
        let
          commands =
            (machine "data" [ monitored ]).networking.firewall.extraCommands
            + (machine "edge" [ monitored ]).networking.firewall.extraCommands;
          monitored.berth = {
            firewall.monitors = [ "10.0.0.99" ];
            observability.metrics.enable = true;
          };
          ports = lib.concatMap (line: builtins.match ".*-s 10[.]0[.]0[.]99 --dport ([0-9]+) .*" line) (
            lib.filter (lib.hasInfix "10.0.0.99") (lib.splitString "\n" commands)
          );
        in
        lib.sort lib.lessThan ports;
      expected = [
        "8080"
        "8100"
        "9100"
        "9100"
      ];
    };
    testAnAddressThatIsMissingIsTold = {
      expr =
        let
          config = system [
            (node {
              name = "data";
              addresses = removeAttrs addresses [ "items-2" ];
            })
          ];
        in
        [
          config.networking.firewall.allowedTCPPorts
          (lib.length (lib.filter (lib.hasInfix "where items-2 is") config.warnings))
        ];
      expected = [
        [
          4222
          5433
        ]
        2
      ];
    };
    testNodesKnowEachOtherByName = {
      expr = lib.getAttrs [ "10.0.0.1" "10.0.0.2" ] machines.data.networking.hosts;
      expected = {
        "10.0.0.1" = [
          "edge.eshop.internal"
          "eshop.internal"
        ];
        "10.0.0.2" = [ "items-1.eshop.internal" ];
      };
    };
  };

  eval-mends = check "mends" {
    testAnUnknownNode = {
      expr = lib.filter (lib.hasPrefix "berth.node") (
        broken (system [
          self.nixosModules.default
          {
            berth = {
              plan = ../../mesh.lock.json;
              node = "item";
            };
          }
        ])
      );
      expected = [
        "berth.node is \"item\", which is no node of berth.plan: set it to one of edge, items-1, items-2, documents-1, documents-2, office, data."
      ];
    };
    testNothingToStart = {
      expr = broken (alone {
        a = { };
      });
      expected = [
        "berth.services.a needs one of berth.services.a.package and berth.services.a.artifact, and not both: set what is to be started."
      ];
    };
    testMoreThanTheMost = {
      expr = broken (alone {
        a = {
          package = pkgs.hello;
          replicas = {
            start = 3;
            max = 2;
          };
        };
      });
      expected = [
        "berth.services.a.replicas.start is more than berth.services.a.replicas.max: raise `max` or lower `start`."
      ];
    };
    testAWatchdogThatNobodyAnswers = {
      expr = broken (alone {
        a = {
          package = pkgs.hello;
          watchdog = 1000;
        };
      });
      expected = [
        "berth.services.a.watchdog is set, and a plain service never answers it: unset it, or set berth.services.a.protocol to \"mesh\"."
      ];
    };
    testADatabaseThatIsNowhereDeclared = {
      expr = broken (
        machine "data" [
          {
            berth.databases.spare = {
              owner = "a";
              port = 1;
              memory = 1;
              cpu = 1;
            };
          }
        ]
      );
      expected = [
        "berth.databases.spare is no database of berth.plan: declare it in mesh.toml, and write the plan anew with `berth lock`."
      ];
    };
    testAGatewayThatRunsElsewhere = {
      expr = lib.head (broken (machine "data" [ { berth.gateway.enable = true; } ]));
      expected = "berth.gateway.service is gateway, which does not run here: add berth.services.gateway, or set berth.gateway.enable to false.";
    };
    testNothingIsWrongWithTheShop = {
      expr = everywhere (_: broken);
      expected = [ ];
    };
  };

  eval-runtimes = check "runtimes" {
    testWhatMakesMachineCodeMay = {
      expr =
        lib.genAttrs
          [
            "native"
            "java"
            "python"
            "php"
            "dotnet"
            "node"
            "wine"
          ]
          (
            runtime:
            (settings (alone {
              a = {
                artifact = ./default.nix;
                inherit runtime;
                path = [ ];
              };
            }) "a@").MemoryDenyWriteExecute
          );
      expected = {
        native = true;
        java = false;
        python = true;
        php = true;
        dotnet = false;
        node = false;
        wine = false;
      };
    };
    testCommandLinesAreSystemds = {
      expr =
        (settings (alone {
          a = {
            package = pkgs.hello;
            command = [
              "\${ARTIFACT}"
              "--port=\${PORT}"
              "100%"
              "a \"b\""
              "$$HOME"
            ];
          };
        }) "a@").ExecStart;
      expected = "\"${pkgs.hello}/bin/a\" \"--port=\${PORT}\" \"100%%\" \"a \\\"b\\\"\" \"$$HOME\"";
    };
    testProgramsAreFoundWhereTheRuntimeHasThem = {
      expr =
        (settings (alone {
          a = {
            runtime = "python";
            artifact = ./default.nix;
            command = [
              "python3"
              "\${ARTIFACT}"
            ];
          };
        }) "a@").ExecSearchPath;
      expected = "${pkgs.python3}/bin";
    };
    testPlainOnesAreRestartedLikeOurs = {
      expr = lib.getAttrs [ "Type" "Restart" ] (settings (alone { a.package = pkgs.hello; }) "a@");
      expected = {
        Type = "exec";
        Restart = "on-failure";
      };
    };
  };

  # Every unit of the shop, one that makes machine code, as systemd itself rates them.
  eval-hardening =
    let
      units =
        lib.concatLists (
          lib.mapAttrsToList (
            machine: config:
            lib.mapAttrsToList (name: _: {
              name = "${machine}/${lib.replaceStrings [ "@" ] [ "@1" ] name}";
              inherit (config.systemd.units."${name}.service") text;
            }) (ofMesh config)
          ) machines
        )
        ++ [
          {
            name = "alone/jit@1";
            inherit
              ((alone {
                jit = {
                  runtime = "java";
                  artifact = ./default.nix;
                  path = [ ];
                };
              }).systemd.units."jit@.service"
              )
              text
              ;
          }
        ];
    in
    pkgs.runCommand "eval-hardening" { nativeBuildInputs = [ pkgs.systemd ]; } ''
      ${lib.concatMapStrings (
        { name, text }:
        ''
          mkdir -p $(dirname ${name})
          cp ${pkgs.writeText "unit" text} ${name}.service
        ''
      ) units}
      for unit in */*.service; do
        systemd-analyze security --offline=true --threshold=19 --no-pager $unit >report || { cat report; echo "$unit is rated 2.0 or worse"; exit 1; }
        tail -1 report | tee -a $out
      done
    '';
}
