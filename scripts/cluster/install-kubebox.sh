#!/usr/bin/env bash
# Compiles Kubernetes' programs from their Go modules into one binary (kubebox.go), leaves it on the
# machine, and prints the directory that holds it under each program's name. From a cold cache it
# takes about 15 minutes of CPU; what is kept is the stripped binary only, 140 MB.
set -euo pipefail

version=${KUBERNETES_VERSION:-1.35.4}
here=$(realpath "$(dirname "$0")")
cache=${NIX_CSI_CACHE:-$HOME/.cache/nix-csi}
# The last number: of kubebox.go, one more when that changes.
dir=$cache/kubernetes-$version-2

mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [[ -x $dir/kubelet ]]; then
  echo "$dir"
  exit 0
fi
go_dir=$("$here/../install-go.sh")
export PATH=$go_dir:$PATH GOTOOLCHAIN=local CGO_ENABLED=0
export GOFLAGS='-mod=mod -buildvcs=false -trimpath'

echo "install-kubebox: compiling Kubernetes $version (8 to 15 minutes from a cold cache)" >&2
start=$SECONDS
# The module's own go.mod replaces its staging modules by directories that only its repository has;
# each is published as a module too, 1.x.y as v0.x.y. All are required at once, since Go would
# otherwise settle on other versions one import at a time.
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/src"
cp "$here/kubebox.go" "$new/src/main.go"
cd "$new/src"
go_mod=$(cd / && go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
mapfile -t staging < <(sed -n 's#^\t\(k8s.io/[a-z0-9-]*\) => ./staging.*#\1#p' "$go_mod" | grep -v '^k8s.io/sample-')
((${#staging[@]})) || { echo "install-kubebox: $go_mod names no staging modules" >&2; exit 1; }
{
  echo 'module kubebox'
  grep -E '^(go|godebug) ' "$go_mod"
  grep -E '^\s+github.com/spf13/cobra v' "$go_mod" | sed 's/^\s*/require /'
  echo "require k8s.io/kubernetes v$version"
  for module in "${staging[@]}"; do
    echo "require $module v0.${version#1.}"
    echo "replace $module => $module v0.${version#1.}"
  done
} >go.mod
go list -deps . >/dev/null
stamp=k8s.io/component-base/version
minor=${version#*.}
go build -o ../kubebox \
  -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" . >&2
cd ..
rm -rf src
for name in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet kubectl; do
  ln -s kubebox "$name"
done
chmod 755 "$new"
mv -T "$new" "$dir"
echo "install-kubebox: done in $((SECONDS - start)) s" >&2
echo "$dir"
