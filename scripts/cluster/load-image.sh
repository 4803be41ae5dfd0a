#!/usr/bin/env bash
# Loads images into the node of a cluster:
#   scripts/cluster/load-image.sh DIR ARCHIVE.tar...
set -euo pipefail

dir=$(realpath "$1")
shift
for archive in "$@"; do
  # The node sees DIR and nothing else of the machine.
  name=$dir/images/${archive##*/}
  [[ $archive -ef $name ]] || { ln -f "$archive" "$name" 2>/dev/null || cp "$archive" "$name"; }
  "$(dirname "$0")/on-node.sh" "$dir" ctr -n k8s.io images import --local "$name" >/dev/null
done
