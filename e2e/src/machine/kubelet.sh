# Arguments: the kubelet's command without the flags in files. It runs until it ends; one that was ended by the restart
# command beside this (`restart_kubelet.sh`) is started again, with the flags that are in the files by then.
state=/run/lab-kubelet
mkdir -p "$state"
child=
stop() {
  trap '' TERM
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
  while [ -n "$child" ] && kill -0 "$child" 2>/dev/null; do wait "$child"; done
  exit 0
}
trap stop TERM
# The value of the variable $2 in the environment file $1, as words.
flags() {
  [ ! -r "$1" ] || sed -n "s/^[[:space:]]*$2=//p" "$1" | tr -d "\"'"
}
while :; do
  rm -f "$state/again"
  # shellcheck disable=SC2046
  "$@" $(flags /var/lib/kubelet/kubeadm-flags.env KUBELET_KUBEADM_ARGS) \
    $(flags /etc/default/kubelet KUBELET_EXTRA_ARGS) &
  child=$!
  echo "$child" >"$state/pid"
  wait "$child"
  status=$?
  # A signal that nobody here sent ends the waiting, not the kubelet.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=
  [ -e "$state/again" ] || exit "$status"
  echo "lab: the kubelet is started again" >&2
done
