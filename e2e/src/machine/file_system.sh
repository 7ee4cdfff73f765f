# Makes a machine's view of the file system, inside its own mount namespace: programs come from the host, everything
# that is written stays in $STATE, also over a boot. Nothing is mounted on the host, so nothing can be left there.
set -eu

# What the host's folders are taken from must be had before those folders are covered.
# They are shown, not given: nothing on a machine may change them.
show() {
  mkdir -p "$STATE/opt/keyplane/$2"
  mount --bind "$1" "$STATE/opt/keyplane/$2"
  mount -o remount,bind,ro "$STATE/opt/keyplane/$2"
}
show "$PARTS" parts
show "$IMAGES" images
printf '%s\n' "$SETS" | while IFS='=' read -r set folder; do
  show "$folder" "sets/$set"
done
# Where people and add-ons look for CNI plugins; an add-on puts its own beside them.
mkdir -p "$STATE/opt/cni/bin"
ln -sfn /usr/lib/cni/* "$STATE/opt/cni/bin"
resolver=$(cat /etc/resolv.conf 2>/dev/null || true)
machine_id=$(cat "$STATE/etc/machine-id" 2>/dev/null || tr -d - </proc/sys/kernel/random/uuid)

# /etc and /usr: the host's, copied on write. kubeadm and add-ons write to both.
for folder in etc usr; do
  mkdir -p "$STATE/$folder" "$STATE/work/$folder"
  mount -t overlay -o "lowerdir=/$folder,upperdir=$STATE/$folder,workdir=$STATE/work/$folder" machine "/$folder"
done

# /run: as after a boot. It is in memory, as the kubelet and containerd expect.
mount -t tmpfs -o mode=755 machine /run
mkdir -p /run/lock

# /opt, /tmp and, last because $STATE may lie in it, /var: the machine's own, empty, on a real disk, since containerd
# can't stack its snapshots on an overlay.
mkdir -p "$STATE/tmp" "$STATE/var/cache" "$STATE/var/home" "$STATE/var/lib" "$STATE/var/log" "$STATE/var/tmp"
chmod 1777 "$STATE/tmp" "$STATE/var/tmp"
ln -sfn /run "$STATE/var/run"
ln -sfn /run/lock "$STATE/var/lock"
mount --rbind "$STATE/opt" /opt
var=$STATE/var
mount --bind "$STATE/tmp" /tmp
if [ -d "$var" ]; then
  mount --bind "$var" /var
else
  echo "the labs' folder may not be below /tmp, /run or /opt" >&2
  exit 1
fi

# Pods share their mounts with the machine.
mount --make-rshared /

hostname "$NAME"
rm -f /etc/resolv.conf /etc/hostname
printf '%s\n' "$resolver" >/etc/resolv.conf
printf '%s\n' "$NAME" >/etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$ADDRESS" "$NAME" >/etc/hosts
# The kubelet reports it, and no two nodes may have the same. After a boot it is the one of before.
printf '%s\n' "$machine_id" >/etc/machine-id

echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null || true
