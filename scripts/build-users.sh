#!/usr/bin/env bash
# Makes the group nixbld and its users, as whom Nix builds, if there are none: newer Debian
# packages of Nix leave that to another package, which wants systemd.
set -euo pipefail

! getent group nixbld >/dev/null || exit 0
groupadd -r nixbld
for n in 1 2 3 4 5 6 7 8; do
  useradd -r -g nixbld -G nixbld -M -d /var/empty -s /usr/sbin/nologin "nixbld$n"
done
