#!/usr/bin/env bash
# Compiles CoreDNS from its Go module with the few plugins of coredns.go, leaves it on the machine, and
# prints the directory that holds it. It takes a minute of CPU after install-kubebox.sh, with which it
# shares much; what is kept is the stripped binary only, 52 MB.
set -euo pipefail

# The newest that asks for no newer Go than Kubernetes does (install-go.sh), and with its client-go.
version=1.14.7
here=$(realpath "$(dirname "$0")")
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
# The last number: of coredns.go, one more when that changes.
dir=$cache/coredns-$version-1

mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [[ -x $dir/coredns ]]; then
  echo "$dir"
  exit 0
fi
go_dir=$("$here/../install-go.sh")
export PATH=$go_dir:$PATH GOTOOLCHAIN=local CGO_ENABLED=0
export GOFLAGS='-mod=mod -buildvcs=false -trimpath'

echo "install-coredns: compiling CoreDNS $version" >&2
start=$SECONDS
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/src"
cp "$here/coredns.go" "$new/src/main.go"
cd "$new/src"
go_mod=$(cd / && go mod download -json "github.com/coredns/coredns@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
{
  echo 'module coredns'
  grep -E '^go ' "$go_mod"
  echo "require github.com/coredns/coredns v$version"
} >go.mod
go list -deps . >/dev/null
go build -o ../coredns -ldflags '-s -w' . >&2
cd ..
rm -rf src
chmod 755 "$new"
mv -T "$new" "$dir"
echo "install-coredns: done in $((SECONDS - start)) s" >&2
echo "$dir"
