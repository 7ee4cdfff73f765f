#!/usr/bin/env bash
# Checks the prose with Vale: the pages, the descriptions of the CRDs, and the CLI's help. Errors fail; of warnings there is
# a count for each file. The rules are in .vale/Keyplane.
#
# Vale reads Markdown, so the descriptions and the help are written to target/prose first. Line 60 of crds.md there is line
# 60 of charts/keyplane-crds/templates/crds.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

texts=target/prose
rm -rf "$texts"
mkdir -p "$texts"

# Keeps the descriptions of a CRD, each on its own line, and empties all other lines. Those of Kubernetes' own types (a
# container's resources, a condition) stay out.
descriptions() {
  awk '
    { indent = match($0, /[^ ]/) - 1 }
    NF && skipped && indent <= foreign { skipped = 0 }
    /^ *(claims|limits|requests|conditions):$/ && !skipped { skipped = 1; foreign = indent }
    skipped { inside = 0; print ""; next }
    inside && NF && indent <= outer { inside = 0 }
    inside { sub(/^ +/, ""); print; next }
    /^ *description: / {
      outer = indent; inside = 1
      sub(/^ *description: /, "")
      if ($0 ~ /^[|>][-+]?$/) { print ""; next }
      if ($0 ~ /^".*"$/) { $0 = substr($0, 2, length($0) - 2); gsub(/\\"/, "\""); gsub(/\\n/, " ") }
      if ($0 ~ /^\047.*\047$/) { $0 = substr($0, 2, length($0) - 2); gsub(/\047\047/, "\047") }
      print; next
    }
    { print "" }'
}

# Keeps the sentences of a help text: no usage, flags, values or examples.
sentences() {
  awk '
    /^Usage:/ || /^ *\[(default|possible values|env|aliases)/ { print ""; next }
    /^Examples?:/ { exit }
    /^ *-[-a-zA-Z]/ || (commands && /^  [a-z]/) { n = match($0, /[^ ]  +[^ ]/); $0 = n ? substr($0, n + 1) : "" }
    { commands = /^Commands:/ || (commands && NF) }
    { sub(/^ +/, ""); print }'
}

# Writes the help of the command $* and of its subcommands.
help() {
  local name=keyplane${1:+-}$(IFS=-; echo "$*") text command
  text=$("${keyplane[@]}" "$@" --help)
  sentences <<<"$text" >"$texts/$name.md"
  for command in $(awk '/^Commands:/ { inside = 1; next } !NF { inside = 0 } inside { print $1 }' <<<"$text"); do
    if [ "$command" != help ]; then help "$@" "$command"; fi
  done
}

cargo build --quiet --locked --package keyplane
keyplane=(cargo run --quiet --locked --package keyplane --)
descriptions <charts/keyplane-crds/templates/crds.yaml >"$texts/crds.md"
help

e2e/kubernetes/build.sh --only vale >/dev/null
vale=$(e2e/kubernetes/build.sh --path vale)/vale
files=(README.md CONTRIBUTING.md)
if [ -e ARCHITECTURE.md ]; then files+=(ARCHITECTURE.md); fi
files+=(docs "$texts")

echo "warnings, by file:"
"$vale" --no-exit --output line --filter '.Level != "error"' "${files[@]}" | awk -F: '
  { count[$1 "  " $4]++ }
  END { for (key in count) printf "%5d  %s\n", count[key], key }' | sort -rn
exec "$vale" --minAlertLevel error "${files[@]}"
