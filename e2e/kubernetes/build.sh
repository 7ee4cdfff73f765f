#!/usr/bin/env bash
# Builds everything in Go that the lab runs, from the versions that the go.mod files here pin: two minors of
# Kubernetes, etcd, containerd, and what clusters run as add-ons.
#
#   build.sh                builds what is missing, and prints a line `SET FOLDER` for each set of programs
#   build.sh --only SET     the same for one set alone, which may be one that is built only so
#   build.sh --path [SET]   prints the folder of one set only, built or not (default: kubernetes)
#
# The folders are outside the tree, each named after the content that decides what is built in it, so that a changed
# pin is a new folder for its set, and an unchanged one costs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cache=${KEYPLANE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keyplane}

# set, the go.mod that pins it, and `on-request` where it is built only when asked for by name. A set is built from one
# module, so that each keeps its own versions of what they share (CoreDNS its client-go, above all).
sets=(
  "kubernetes      go.mod"
  "v1.36           v1.36/go.mod"
  "coredns-v1.14.6 coredns/go.mod"
  "coredns-v1.14.2 coredns/v1.14.2.mod"
  "flannel         flannel/go.mod"
  "flannel-cni     flannel-cni/go.mod"
  "ignition        ignition/go.mod"
  "helm            helm/go.mod"
  "go-approver     go-approver/go.mod on-request"
  "witness         witness/go.mod on-request"
  "vale            vale/go.mod on-request"
)

# set, binary, package; or a package that needs cgo, a package of a module that is built from a copy, a file of a module
parts=(
  "kubernetes      kube-apiserver          k8s.io/kubernetes/cmd/kube-apiserver"
  "kubernetes      kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager"
  "kubernetes      kube-scheduler          k8s.io/kubernetes/cmd/kube-scheduler"
  "kubernetes      kubelet                 k8s.io/kubernetes/cmd/kubelet"
  "kubernetes      kube-proxy              k8s.io/kubernetes/cmd/kube-proxy"
  "kubernetes      kubeadm                 k8s.io/kubernetes/cmd/kubeadm"
  "kubernetes      kubectl                 k8s.io/kubernetes/cmd/kubectl"
  "kubernetes      etcd                    go.etcd.io/etcd/server/v3"
  "kubernetes      etcdctl                 go.etcd.io/etcd/etcdctl/v3"
  "kubernetes      etcdutl                 go.etcd.io/etcd/etcdutl/v3"
  "kubernetes      containerd              github.com/containerd/containerd/v2/cmd/containerd"
  "kubernetes      containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
  "kubernetes      ctr                     github.com/containerd/containerd/v2/cmd/ctr"
  "v1.36           kube-apiserver          k8s.io/kubernetes/cmd/kube-apiserver"
  "v1.36           kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager"
  "v1.36           kube-scheduler          k8s.io/kubernetes/cmd/kube-scheduler"
  "v1.36           kubelet                 k8s.io/kubernetes/cmd/kubelet"
  "v1.36           kube-proxy              k8s.io/kubernetes/cmd/kube-proxy"
  "v1.36           kubeadm                 k8s.io/kubernetes/cmd/kubeadm"
  "v1.36           etcd                    go.etcd.io/etcd/server/v3"
  "v1.36           etcdctl                 go.etcd.io/etcd/etcdctl/v3"
  "v1.36           etcdutl                 go.etcd.io/etcd/etcdutl/v3"
  "coredns-v1.14.6 coredns                 ."
  "coredns-v1.14.2 coredns                 ."
  "flannel         flanneld                copy:github.com/flannel-io/flannel:."
  "flannel         install-conf            copy:github.com/flannel-io/flannel:./cmd/install_conf"
  "flannel         kube-flannel.yml        file:github.com/flannel-io/flannel:Documentation/kube-flannel.yml"
  "flannel-cni     flannel                 github.com/containernetworking/plugins/plugins/meta/flannel"
  "ignition        ignition-validate       github.com/coreos/ignition/v2/validate"
  "helm            helm                    helm.sh/helm/v4/cmd/helm"
  "go-approver     go-approver             ."
  "witness         witness                 ."
  "vale            vale                    cgo:github.com/vale-cli/vale/v3/cmd/vale"
)

# Without cgo each binary runs alone in an image of one layer. The tags leave out snapshotters that need C.
export CGO_ENABLED=0
flags=(-mod=readonly -trimpath -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs)

# The lines of $parts of the set $1, without its name.
parts_of() {
  local part set rest
  for part in "${parts[@]}"; do
    read -r set rest <<<"$part"
    if [ "$set" = "$1" ]; then echo "$rest"; fi
  done
}

# The folder of the set $1 that the go.mod $2 pins.
folder_of() {
  local sources recipe key
  sources=("$2" "${2%.mod}.sum")
  if [ -e "$(dirname "$2")/main.go" ]; then sources+=("$(dirname "$2")/main.go"); fi
  recipe=$(parts_of "$1"; echo "${flags[*]}"; declare -f linker_flags)
  case $recipe in *copy:*) recipe+=$(declare -f build_copy) ;; esac
  key=$({ cat "${sources[@]}"; echo "$recipe"; } | sha256sum)
  echo "$cache/$1/${key:0:16}"
}

# In a set's module: the version of the module $1, or nothing.
version_of() { go list -m "${modfile[@]}" -f '{{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}' "$1" 2>/dev/null || true; }

# In a set's module: what its programs take from the linker. kubeadm refuses to act on the placeholder it has otherwise.
linker_flags() {
  local text="-s -w" kubernetes containerd flannel v minor
  kubernetes=$(version_of k8s.io/kubernetes)
  containerd=$(version_of github.com/containerd/containerd/v2)
  flannel=$(version_of github.com/flannel-io/flannel)
  if [ -n "$kubernetes" ]; then
    v=k8s.io/component-base/version
    minor=${kubernetes#v1.}
    text+=" -X $v.gitVersion=$kubernetes -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"
    text+=" -X $v.gitCommit=unknown -X $v.buildDate=1970-01-01T00:00:00Z"
  fi
  if [ -n "$containerd" ]; then text+=" -X github.com/containerd/containerd/v2/version.Version=$containerd"; fi
  if [ -n "$flannel" ]; then text+=" -X github.com/flannel-io/flannel/pkg/version.Version=$flannel"; fi
  echo "$text"
}

# The folder with the source of the module $1 in the version that this set's go.mod pins.
source_of() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'; }

# Builds the package $2 of the module $1 from a copy of it, to $3, without the backends that can't be had here: udp is
# in C, and the SDK of tencentvpc comes from no module proxy.
build_copy() {
  local source copy
  source=$(source_of "$1")
  copy=$(mktemp -d)
  cp -r --no-preserve=mode "$source/." "$copy"
  sed -i -e '/pkg\/backend\/tencentvpc"$/d' -e '/pkg\/backend\/udp"$/d' "$copy/main.go"
  (cd "$copy" && go build "${flags[@]}" -ldflags "$ldflags" -o "$3" "$2") || { rm -rf "$copy"; return 1; }
  rm -rf "$copy"
}

if [ "${1:-}" = --path ]; then
  for set in "${sets[@]}"; do
    read -r name pins _ <<<"$set"
    if [ "$name" = "${2:-kubernetes}" ]; then
      folder_of "$name" "$pins"
      exit 0
    fi
  done
  echo "build.sh: there is no set $2" >&2
  exit 1
fi

command -v go >/dev/null || { echo "build.sh: Go is missing: install the version that go.mod names" >&2; exit 1; }

only=
if [ "${1:-}" = --only ]; then only=${2:?a set}; fi

# folder, go.mod, binary, package, and set of each program that is not there
missing=()
for set in "${sets[@]}"; do
  read -r name pins when <<<"$set"
  if [ -n "$only" ]; then [ "$name" = "$only" ] || continue; elif [ -n "$when" ]; then continue; fi
  bin=$(folder_of "$name" "$pins")
  mkdir -p "$bin"
  while read -r binary package; do
    [ -e "$bin/$binary" ] || missing+=("$bin $pins $binary $package $name")
  done < <(parts_of "$name")
  echo "$name $bin"
done

n=0
previous=
for one in "${missing[@]}"; do
  read -r bin pins binary package name <<<"$one"
  n=$((n + 1))
  printf 'building %-15s %-24s (%d of %d)\n' "$name" "$binary" "$n" "${#missing[@]}" >&2
  started=$SECONDS
  pushd "$(dirname "$pins")" >/dev/null
  modfile=("-modfile=$(basename "$pins")")
  if [ "$name" != "$previous" ]; then ldflags=$(linker_flags); previous=$name; fi
  partial=$bin/.$binary.partial
  IFS=: read -r kind module path <<<"$package"
  case $kind in
    copy) build_copy "$module" "$path" "$partial" ;;
    # Vale's grammars of programming languages are in C. The documentation has none: they need not be fast.
    cgo) CGO_ENABLED=1 CGO_CFLAGS=-O0 go build "${modfile[@]}" "${flags[@]}" -ldflags "$ldflags" -o "$partial" "$module" ;;
    file) install -m 644 "$(source_of "$module")/$path" "$partial" ;;
    *) go build "${modfile[@]}" "${flags[@]}" -ldflags "$ldflags" -o "$partial" "$package" ;;
  esac
  popd >/dev/null
  mv "$partial" "$bin/$binary"
  printf '         %-15s %-24s %d s\n' "$name" "$binary" $((SECONDS - started)) >&2
done
if [ $n -gt 0 ]; then printf 'built %d programs in %d s\n' $n $SECONDS >&2; fi
