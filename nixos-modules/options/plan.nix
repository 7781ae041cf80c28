{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.berth;
in
{
  options.berth = {
    plan = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./mesh.lock.json";
      description = ''
        The resolved plan of the mesh, as `berth lock` writes it. Everything that {option}`berth.node` runs is set from it, each value
        with `mkDefault`.
      '';
    };

    node = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "items-1";
      description = "Which of the plan's nodes this machine is.";
    };

    packages = mkOption {
      type = types.lazyAttrsOf types.package;
      default = { };
      example = lib.literalExpression "{ pricing = pkgs.pricing; }";
      description = "The packages the plan names, each with a program of its name in {file}`bin/`.";
    };

    artifacts = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./.";
      description = "The folder of {file}`mesh.toml`, in which the plan's artifacts lie.";
    };

    package = mkOption {
      type = types.package;
      default = pkgs.berthPrograms.berth;
      defaultText = lib.literalExpression "pkgs.berthPrograms.berth";
      description = "The `berth` program, which prepares and starts databases and the event bus.";
    };

    probe = mkOption {
      type = types.package;
      default = pkgs.berthPrograms.probe;
      defaultText = lib.literalExpression "pkgs.berthPrograms.probe";
      description = "The `probe` program, which asks plain services whether they serve.";
    };

    mesh = mkOption {
      type = types.nullOr (types.attrsOf types.anything);
      readOnly = true;
      default = if cfg.plan == null then null else lib.importJSON cfg.plan;
      defaultText = lib.literalExpression "lib.importJSON config.berth.plan";
      description = "What the plan says.";
    };
  };
}
