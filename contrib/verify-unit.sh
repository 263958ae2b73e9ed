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
# Ten is no sandbox at all. The scale is that of system services: some six of these points are capabilities and mounts that a user
# manager can't take away, and the service's user never had.
EXPOSURE=63
XDG_RUNTIME_DIR=$folder systemd-analyze --user security --offline=yes --no-pager --threshold=$EXPOSURE \
    "$folder/vsnd-bridge.service" > "$folder/security" 2>&1 || {
    cat "$folder/security"
    exit 1
}
echo 'verify-unit: contrib/systemd/vsnd-bridge.service is understood, its sandbox as tight as it was'
