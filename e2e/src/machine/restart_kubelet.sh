#!/bin/sh
# Restarts the kubelet that `kubelet.sh` looks after, as `systemctl restart kubelet` does on a machine with systemd.
set -eu
state=/run/lab-kubelet
before=$(cat "$state/pid")
touch "$state/again"
kill -TERM "$before"
tries=0
while [ "$(cat "$state/pid")" = "$before" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || { echo "the kubelet does not end" >&2; exit 1; }
  sleep 0.1
done
