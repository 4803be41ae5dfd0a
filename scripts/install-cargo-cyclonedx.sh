#!/usr/bin/env bash
# Installs cargo-cyclonedx and prints the program's path.
set -euo pipefail

exec "$(dirname "$0")/install-cargo-tool.sh" cargo-cyclonedx 0.5.9
