#!/usr/bin/env bash
# Builds the real Kubernetes, etcd and containerd that the lab runs, from the versions that go.mod pins.
#
#   build.sh         builds what is missing, and prints the folder that holds the binaries as its last line
#   build.sh --path  prints that folder only
#
# The folder is outside the tree, named after the content that decides what is built, so that a changed pin is a
# new folder and an unchanged one costs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cache=${KEYPLANE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keyplane}
key=$(cat go.mod go.sum build.sh | sha256sum | cut -c1-16)
bin=$cache/kubernetes/$key
if [ "${1:-}" = --path ]; then
  echo "$bin"
  exit 0
fi

command -v go >/dev/null || { echo "build.sh: Go is missing: install the version that go.mod names" >&2; exit 1; }

version_of() { go list -m -f '{{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}' "$1"; }

# binary, package, and the module whose version it reports
parts=(
  "kube-apiserver          k8s.io/kubernetes/cmd/kube-apiserver"
  "kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager"
  "kube-scheduler          k8s.io/kubernetes/cmd/kube-scheduler"
  "kubelet                 k8s.io/kubernetes/cmd/kubelet"
  "kubeadm                 k8s.io/kubernetes/cmd/kubeadm"
  "kubectl                 k8s.io/kubernetes/cmd/kubectl"
  "etcd                    go.etcd.io/etcd/server/v3"
  "etcdctl                 go.etcd.io/etcd/etcdctl/v3"
  "containerd              github.com/containerd/containerd/v2/cmd/containerd"
  "containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
  "ctr                     github.com/containerd/containerd/v2/cmd/ctr"
)

mkdir -p "$bin"
missing=()
for part in "${parts[@]}"; do
  read -r name _ <<<"$part"
  [ -x "$bin/$name" ] || missing+=("$part")
done

if [ ${#missing[@]} -gt 0 ]; then
  kubernetes=$(version_of k8s.io/kubernetes)
  containerd=$(version_of github.com/containerd/containerd/v2)
  # Kubernetes takes its version from the linker; kubeadm refuses to act on the placeholder it has otherwise.
  v=k8s.io/component-base/version
  minor=${kubernetes#v1.}
  ldflags="-s -w -X $v.gitVersion=$kubernetes -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"
  ldflags+=" -X $v.gitCommit=unknown -X $v.buildDate=1970-01-01T00:00:00Z"
  ldflags+=" -X github.com/containerd/containerd/v2/version.Version=$containerd"
  # No cgo: each binary then runs alone in an image of one layer. The tags leave out snapshotters that need C.
  export CGO_ENABLED=0
  n=0
  for part in "${missing[@]}"; do
    read -r name package <<<"$part"
    n=$((n + 1))
    printf 'building %-24s (%d of %d)\n' "$name" "$n" "${#missing[@]}" >&2
    started=$SECONDS
    go build -mod=readonly -trimpath -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs -ldflags "$ldflags" \
      -o "$bin/.$name.partial" "$package"
    mv "$bin/.$name.partial" "$bin/$name"
    printf '         %-24s %d s\n' "$name" $((SECONDS - started)) >&2
  done
fi
echo "$bin"
