# After the functions before and start and the variables restart and pause: what systemd does with them.
child=
stop() {
  trap '' TERM
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
  while [ -n "$child" ] && kill -0 "$child" 2>/dev/null; do wait "$child"; done
  exit 0
}
trap stop TERM
attend() {
  "$@" &
  child=$!
  wait "$child"
  status=$?
  child=
}
while :; do
  attend before
  [ "$status" = 0 ] && attend start
  case $restart in
    no) exit "$status" ;;
    on-failure) [ "$status" != 0 ] || exit 0 ;;
  esac
  echo "lab: ended with status $status; started again after $pause s" >&2
  attend sleep "$pause"
done
