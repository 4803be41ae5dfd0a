# The node role as a service of NixOS: on a single machine, or registered with its kubelet.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkEnableOption mkIf mkOption optionalAttrs types;
  cfg = config.services.nix-csi;
in
{
  options.services.nix-csi = {
    enable = mkEnableOption "nix-csi, which mounts Nix closures";
    package = mkOption {
      type = types.package;
      default = (import ../default.nix { inherit pkgs; }).driver;
      defaultText = lib.literalExpression "the driver of this flake, built with the machine's nixpkgs";
      description = "The driver.";
    };
    settings = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { NIX_CSI_BUILD_SLOTS = "8"; };
      description = "Settings by their environment names, as `nix-csi node --help` has them. They win over the module's.";
    };
    kubelet = {
      enable = mkEnableOption "registration with this machine's kubelet";
      directory = mkOption {
        type = types.path;
        default = "/var/lib/kubelet";
        description = "The kubelet's directory.";
      };
      nodeName = mkOption {
        type = types.str;
        default = config.networking.hostName;
        defaultText = lib.literalExpression "config.networking.hostName";
        description = "The name of this machine's Node object.";
      };
      kubeconfig = mkOption {
        type = types.path;
        example = "/var/lib/nix-csi.kubeconfig";
        description = "How to reach the API server, with the rights of the chart's account nix-csi-node.";
      };
    };
  };

  config = mkIf cfg.enable {
    systemd.services.nix-csi = {
      description = "Mounts Nix closures (nix-csi)";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "local-fs.target" "network-online.target" "nix-daemon.socket" ];
      path = [ config.nix.package pkgs.git pkgs.openssh pkgs.e2fsprogs pkgs.gnutar pkgs.gzip pkgs.xz pkgs.bzip2 pkgs.zstd ];
      environment =
        {
          NIX_CSI_SSHD = "${pkgs.openssh}/bin/sshd";
          # The machine's own daemon serves: one store has one collector, which is not ours.
          NIX_CSI_NIX_DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket";
        }
        // optionalAttrs cfg.kubelet.enable {
          CSI_ENDPOINT = "unix://${cfg.kubelet.directory}/plugins/nix.csi.store/csi.sock";
          NIX_CSI_REGISTRATION_DIR = "${cfg.kubelet.directory}/plugins_registry";
          NIX_CSI_TARGET_ROOTS = cfg.kubelet.directory;
          NIX_CSI_NODE_NAME = cfg.kubelet.nodeName;
          NIX_CSI_NODE_ID = cfg.kubelet.nodeName;
          NIX_CSI_KUBECONFIG = cfg.kubelet.kubeconfig;
        }
        // cfg.settings;
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/nix-csi node";
        # Mounts outlive the service: only its own processes are ended.
        KillMode = "mixed";
        TimeoutStopSec = 30;
        Restart = "on-failure";
        # Records of volumes must survive a restart of the service.
        RuntimeDirectory = "nix-csi";
        RuntimeDirectoryMode = "0700";
        RuntimeDirectoryPreserve = true;
        # Volumes are mounted where people asked for them, in the machine's own mount namespace.
        MountFlags = "shared";
        PrivateMounts = false;
      };
    };
  };
}
