#!/bin/sh
# Lets systemd read the user unit, with a stand-in for the binary that isn't installed. Skipped without systemd.
set -eu

if ! command -v systemd-analyze >/dev/null; then
    echo 'verify-unit: no systemd-analyze here, skipped'
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' contrib/systemd/vsnd-bridge.service > "$folder/vsnd-bridge.service"
# A user manager wants a runtime directory, which a build machine may not have.
said=$(XDG_RUNTIME_DIR=$folder systemd-analyze --user verify "$folder/vsnd-bridge.service" 2>&1) || {
    echo "$said"
    exit 1
}
# Faults in single lines are only told, not counted.
if echo "$said" | grep -F "$folder/vsnd-bridge.service"; then
    exit 1
fi
echo 'verify-unit: contrib/systemd/vsnd-bridge.service is understood'
