#!/usr/bin/env bash
# run.sh NAME CASE...|all: boots the lab under QEMU, runs these cases in Dom0 and leaves what they recorded in
# target/xenlab/runs/NAME/out. Says nothing about whether it is what should have been heard: that is main.rs's part.
#
# VSND_LOG     what the daemon logs (default: info)
# VSND_BRIDGE  the daemon to put into Dom0, with the vsndctl beside it (default: target/release/vsnd-bridge)
# VSND_HOSTILE the program of the guest that keeps to no rule (default: target/release/vsnd-hostile)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$here/../../target
lab=$(realpath -m "${XENLAB_DIR:-$target/xenlab}")
parts=$lab/parts
(($# >= 2)) || { sed -n '2,7s/^# //p' "$0"; exit 2; }
run=$lab/runs/$1
shift
cases=("$@")
if [[ ${cases[0]} == all ]]; then
    cases=()
    for script in "$here"/cases/*.sh; do
        case=$(basename "$script" .sh)
        # those that speak of the guest's kernel run with both
        if grep -q '\$kernel' "$script"; then
            cases+=("$case-old" "$case-new")
        else
            cases+=("$case")
        fi
    done
fi

[[ -d $lab/signals ]] || { echo "run.sh: no signals yet: main.rs writes them, cargo test --test xen starts it" >&2; exit 1; }
rm -rf "$run"
mkdir -p "$run/out/consoles"
cp -r "$here/dom0" "$here/cases" "$here/../../contrib/udev" "$run/"
cp -rl "$lab"/signals{,-of-host,-of-servers} "$run/"
mkdir "$run/tools"
cp "$here/guest"/{notes,servers,pipewire.conf} "$run/tools/"
cc -static -O2 -Wall -Wextra -Werror -o "$run/tools/pcm" "$here/guest/pcm.c"
cp "${VSND_HOSTILE:-$target/release/vsnd-hostile}" "$run/tools/hostile"
bridge=${VSND_BRIDGE:-$target/release/vsnd-bridge}
cp -f "$bridge" "$run/vsnd-bridge"
cp -f "${bridge%/*}/vsndctl" "$run/"
for part in guest-old.vmlinux guest-new.vmlinux guest-old.img guest-new.img servers.img; do
    ln -f "$parts/$part" "$run/$part"
done
printf '%s\n' "${cases[@]}" >"$run/cases.list"
echo "${VSND_LOG:-info}" >"$run/log-level"

# TCG, QEMU's processor in software, is everywhere; KVM is not, and not every one of them runs a hypervisor.
# Xen without SMAP and SMEP: with them a PV Dom0 dies at its first exception under TCG.
# Dom0 has one processor to itself and a kernel that may be preempted, as a machine for sound would have; the guests share the
# other (need_guest in dom0/lab.sh). Guests play in real time: where it is allowed, the emulator goes before everything else on this machine.
before_others=()
if chrt --rr 1 true 2>/dev/null; then
    before_others=(chrt --rr 1)
fi
exec timeout -k 10 "${XENLAB_SECONDS:-1200}" "${before_others[@]}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 3000 -smp 2 \
    -nographic -monitor none -no-reboot -net none -serial "file:$run/out/xen.log" \
    -kernel "$parts/xen.elf" \
    -append "console=com1 com1=115200,8n1 dom0_mem=1500M dom0_max_vcpus=1 dom0_vcpus_pin loglvl=warning guest_loglvl=warning smap=0 smep=0" \
    -initrd "$parts/dom0.vmlinux console=hvc0 panic=-1 mitigations=off preempt=full quiet,$parts/dom0.img" \
    -virtfs "local,path=$run,mount_tag=share,security_model=none" </dev/null
