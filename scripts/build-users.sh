#!/usr/bin/env bash
# Makes the group nixbld and its users, as whom Nix builds, if there are none: newer Debian
# packages of Nix leave that to another package, which wants systemd. And the account `nix`, as whom
# ssh sessions speak to the store; no password is right for it.
set -euo pipefail

if ! getent passwd nix >/dev/null; then
  # Out of the range in which hosts number their services: a node's daemon trusts this one.
  useradd -u 30998 -U -M -d / -s /bin/sh -p '*' nix
fi
! getent group nixbld >/dev/null || exit 0
groupadd -r nixbld
for n in 1 2 3 4 5 6 7 8; do
  useradd -r -g nixbld -G nixbld -M -d /var/empty -s /usr/sbin/nologin "nixbld$n"
done
