# What is rendered from the chart with its default values, and with a cache: nix-csi.yaml and nix-csi.json each. A
# test of the project holds them to the chart.
{ lib }:
lib.fileset.toSource {
  root = ../deploy/manifests;
  fileset = ../deploy/manifests;
}
