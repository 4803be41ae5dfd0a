#!/usr/bin/env bash
# Installs actionlint and prints the program's path.
set -euo pipefail

exec "$(dirname "$0")/install-go-tool.sh" 1.7.12 github.com/rhysd/actionlint/cmd/actionlint
