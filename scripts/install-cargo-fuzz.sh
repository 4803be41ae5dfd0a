#!/usr/bin/env bash
# Installs cargo-fuzz and prints the program's path.
set -euo pipefail

exec "$(dirname "$0")/install-cargo-tool.sh" cargo-fuzz 0.13.2
