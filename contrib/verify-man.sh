#!/bin/sh
# Lets groff read the manual pages: whatever it warns of is a fault.
set -eu

for page in contrib/man/*; do
    said=$(groff -ww -man -Tutf8 -z "$page" 2>&1)
    if [ -n "$said" ]; then
        echo "$said"
        exit 1
    fi
done
echo 'verify-man: contrib/man is understood'
